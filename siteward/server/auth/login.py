"""Log-in of people with a browser: code and PKCE at their issuer, whose ID token and userinfo say who came back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Final, NoReturn
from urllib.parse import urlencode

from siteward.oauth.client import IssuerClient, IssuerRefuses, Tokens
from siteward.oauth.discovery import json_object
from siteward.oauth.fetching import FetchError, HttpFetch
from siteward.server.auth.cookies import UnderWay
from siteward.server.auth.identity import Identity
from siteward.server.auth.profiles import audiences_of, check_times, refuse
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.sessions import LONGEST
from siteward.server.auth.token_text import Claims, read_token, second_of, shown, text_of
from siteward.server.auth.userinfo import ADDED
from siteward.server.auth.verifier import PROFILES, Verifier, check_signature
from siteward.settings import IssuerSettings, Settings

SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    "wlcg": ("openid", "wlcg.groups"),
    "aarc": ("openid", "eduperson_entitlement"),
}
"""What is asked for where the settings do not say."""
CALLBACK: Final = "/login/callback/"
"""With the issuer's name behind it (RFC 9700 §4.4.2)."""
GROUPS: Final = "wlcg.groups"
LONGEST_PATH: Final = 1_000
"""Characters of a path that a person wants to go to."""


class LogInRefused(Exception):  # noqa: N818  # reads as what happened.
    """Nobody is logged in.

    Attributes:
        why: `denied` by the person or the issuer, `other` browser or log-in, `unavailable`, or `proof`: what the issuer
            said does not hold.
    """

    def __init__(self, why: str, message: str) -> None:
        """Keep both; the message is for the log."""
        super().__init__(message)
        self.why = why


class LogIn:
    """Sends people to their issuer, and believes what it says of them when they come back. Waits for the issuer."""

    def __init__(
        self,
        settings: Settings,
        verifier: Verifier,
        *,
        http: Callable[[IssuerSettings], HttpFetch] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Offer the issuers at which we are known.

        Args:
            settings: of this installation.
            verifier: knows the issuers' keys.
            http: asks an issuer.
            clock: seconds since 1970 UTC.
        """
        ask = http or (lambda issuer: HttpFetch(issuer.ca))
        self._issuers = {name: each for name, each in settings.issuers.items() if each.client}
        self._http = {name: ask(each) for name, each in self._issuers.items()}
        self._clients = {
            name: IssuerClient(each.url, each.client, each.client_secret, http=self._http[name])
            for name, each in self._issuers.items()
        }
        self._verifier = verifier
        self._clock = clock

    @property
    def names(self) -> tuple[str, ...]:
        """The issuers at which people can log in, as the settings call them."""
        return tuple(self._issuers)

    def begin(self, name: str, base: str, to: str) -> tuple[str, UnderWay]:
        """Where to send a browser, and what it has to come back with.

        Args:
            name: of the issuer.
            base: our own address.
            to: the path where the person wants to go.

        Raises:
            LogInRefused: the issuer does not answer.
            KeyError: nobody can log in there.
        """
        issuer = self._issuers[name]
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        under_way = UnderWay(name, state, nonce, verifier, local_path(to))
        try:
            url = self._clients[name].authorization(
                redirect=f"{base}{CALLBACK}{name}",
                scopes=issuer.scopes or SCOPES[issuer.profile],
                state=under_way.state,
                nonce=under_way.nonce,
                verifier=under_way.verifier,
            )
        except (FetchError, IssuerRefuses) as error:
            _refuse("unavailable", error)
        return url, under_way

    def finish(self, name: str, under_way: UnderWay | None, base: str, given: Mapping[str, str]) -> Identity:
        """Whom a browser brings back.

        Args:
            name: of the issuer at whose address it came back.
            under_way: what it should come back with.
            base: our own address.
            given: what the issuer sent with it: `code`, `state`, `iss`, or `error`.

        Raises:
            LogInRefused: nobody that could be believed.
        """
        state = given.get("state", "")
        if under_way is None or not compare_digest(state.encode(), under_way.state.encode()):
            _refuse("other", "the browser did not begin this log-in, or not within the last minutes")
        issuer = self._issuers[name]
        if under_way.issuer != name or given.get("iss", issuer.url) != issuer.url:
            # RFC 9207: the answer of another issuer, mixed up with this one's.
            _refuse("other", "the answer is another issuer's")
        if "error" in given or not given.get("code"):
            _refuse("denied", f"the issuer {issuer.url} answers {shown(given.get('error', 'no code'))}")
        client = self._clients[name]
        try:
            if "iss" not in given and client.described().get("authorization_response_iss_parameter_supported") is True:
                _refuse("other", "the answer does not say whose it is, as this issuer's do")
            redirect = f"{base}{CALLBACK}{name}"
            tokens = client.exchanged(given["code"], redirect=redirect, verifier=under_way.verifier)
            return self._identity(under_way, issuer, tokens)
        except IssuerRefuses as error:
            _refuse("denied" if error.error else "proof", error)
        except FetchError as error:
            _refuse("unavailable", error)
        except TokenRefused as error:
            _refuse("unavailable" if error.reason is Reason.UNAVAILABLE else "proof", error)

    def issuer_logout(self, issuer_url: str, base: str) -> str:
        """Where a browser ends its session at the issuer, too (OpenID Connect RP-Initiated Logout 1.0); "" nowhere."""
        for name, issuer in self._issuers.items():
            if issuer.url == issuer_url:
                try:
                    address = self._clients[name].address("end_session_endpoint")
                except (FetchError, IssuerRefuses):
                    return ""
                back = {"client_id": issuer.client, "post_logout_redirect_uri": f"{base}/login"}
                return f"{address}{'&' if '?' in address else '?'}{urlencode(back)}"
        return ""

    def _identity(self, under_way: UnderWay, issuer: IssuerSettings, tokens: Tokens) -> Identity:
        if not tokens.identity:
            _refuse("proof", f"the issuer {issuer.url} gives no ID token; is `openid` among the scopes?")
        token = read_token(tokens.identity)
        now = self._clock()
        check_signature(token, self._verifier.trusted(issuer.url).keys, may_wait=True, is_named=False)
        _check(token.claims, issuer, under_way.nonce, now)
        lasting = tokens.lasting or (second_of(token.claims, "exp") or now) - now
        claims = {
            **self._userinfo(under_way.issuer, tokens, token.claims, issuer),
            **token.claims,
            "jti": f"log-in {secrets.token_hex(8)}",
            # The issuer has said so to us, just now, whatever its clock shows.
            "iat": now,
            "exp": now + min(max(lasting, 0.0), LONGEST),
            # What the ID token says of scopes is not what the person may do here.
            "scope": "",
        }
        return PROFILES[issuer.profile].identity(claims, issuer)

    def _userinfo(self, name: str, tokens: Tokens, signed: Claims, issuer: IssuerSettings) -> Claims:
        """What the issuer says beside the ID token, where it says anything."""
        client = self._clients[name]
        if "userinfo_endpoint" not in client.described():
            return {}
        address = client.address("userinfo_endpoint")
        body = self._http[name](address, {"Authorization": f"Bearer {tokens.access}"}).body
        try:
            told = json_object(body)
        except ValueError as error:
            message = f"{address}: {error}"
            raise IssuerRefuses(message) from error
        if told.get("sub") != signed.get("sub"):
            # OpenID Connect Core §5.3.2: else it may be another person's.
            refuse(Reason.CLAIM, f"is of {shown(signed.get('sub'))}, and userinfo of {shown(told.get('sub'))}")
        return {each: told[each] for each in (*ADDED, GROUPS, issuer.person) if each in told}


def _check(claims: Claims, issuer: IssuerSettings, nonce: str, now: float) -> None:
    """Refuse an ID token that is not of this log-in (OpenID Connect Core §3.1.3.7); its signature is good."""
    if text_of(claims, "iss") != issuer.url:
        refuse(Reason.ISSUER, f"is of the issuer {shown(claims.get('iss'))}, not of {issuer.url}")
    check_times(claims, now, essential=("exp", "iat"))
    audiences = audiences_of(claims)
    if issuer.client not in audiences:
        refuse(Reason.AUDIENCE, f"is meant for {', '.join(map(shown, audiences[:3])) or 'nobody'}, not for our client")
    if claims.get("azp", issuer.client if len(audiences) == 1 else None) != issuer.client:
        refuse(Reason.AUDIENCE, "was not given to our client (azp)")
    if not compare_digest(text_of(claims, "nonce").encode(), nonce.encode()):
        refuse(Reason.CLAIM, "is of another log-in (nonce)")


def local_path(to: str) -> str:
    """A path on this server, whatever was asked for: nobody is sent elsewhere by a link to our log-in."""
    # As browsers read it, who take `///elsewhere` and `/\elsewhere` for another server's address.
    is_path = to.startswith("/") and not to.startswith(("//", "/\\"))
    return to if is_path and len(to) <= LONGEST_PATH and to.isprintable() else "/"


def _refuse(why: str, error: object) -> NoReturn:
    raise LogInRefused(why, str(error))
