"""A client of one issuer: every way in which people and services get tokens, by Authlib over our own bounded HTTP.

Code and PKCE (RFC 6749 §4.1, RFC 7636), devices (RFC 8628), services (RFC 6749 §4.4), refresh, revocation (RFC 7009).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client

from siteward.oauth.discovery import SHOWN, Metadata, address_in, described_by, json_object
from siteward.oauth.fetching import HttpFetch, Posted, check_address

DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL: Final = 5.0
"""Seconds between two questions about a device, where the issuer does not say (RFC 8628 §3.2)."""
MOST_INTERVAL: Final = 60.0
LONGEST_CODE: Final = 1800.0
"""Seconds that anybody waits for a device, whatever the issuer says."""
DESCRIBED_FOR: Final = 3600.0
"""Seconds for which an issuer's description of itself is kept."""
_WAITING: Final = frozenset({"authorization_pending", "slow_down"})


class IssuerRefuses(Exception):  # noqa: N818  # reads as what happened.
    """The issuer gives no token, or not what its answers must be. The message holds no token and no code.

    Attributes:
        error: its own word for it, such as `access_denied`; "" where it has none.
    """

    permanent = True

    def __init__(self, message: str, error: str = "") -> None:
        """Keep both."""
        super().__init__(message)
        self.error = error


class Tokens(msgspec.Struct, frozen=True):
    """What an issuer gives. Never shown.

    Attributes:
        access: the access token.
        refresh: gets a new one; "" without.
        identity: the ID token; "" without.
        lasting: seconds for which the access token is valid; 0 where the issuer does not say.
    """

    access: str
    refresh: str = ""
    identity: str = ""
    lasting: float = 0.0

    def __repr__(self) -> str:
        """Nothing of them."""
        return f"{type(self).__name__}(…)"


class Device(msgspec.Struct, frozen=True):
    """What a person is shown, and what is asked with meanwhile.

    Attributes:
        address: where to go, in any browser.
        code: what to enter there.
        complete: the address with the code in it; "" without.
        secret: names the request to the issuer.
        interval: seconds between two questions.
        lasting: seconds until it is void.
    """

    address: str
    code: str
    complete: str
    secret: str
    interval: float
    lasting: float


class IssuerClient:
    """Known to the issuer by a name, and by a secret where it has one; any thread may use it."""

    def __init__(
        self,
        issuer: str,
        name: str,
        secret: str = "",
        *,
        http: HttpFetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet.

        Args:
            issuer: its exact name.
            name: ours, as registered there (`client_id`).
            secret: ours; "" for programs that cannot keep one.
            http: asks it.
            clock: seconds.
        """
        self.issuer = issuer
        self._name = name
        self._secret = secret
        self._http = http or HttpFetch()
        self._clock = clock
        self._kept: tuple[float, Metadata] | None = None

    def described(self) -> Metadata:
        """How the issuer describes itself.

        Raises:
            siteward.oauth.fetching.FetchError: it cannot be asked.
            IssuerRefuses: it does not describe itself as issuers do.
        """
        kept = self._kept
        if kept is None or self._clock() >= kept[0] + DESCRIBED_FOR:
            try:
                kept = self._clock(), described_by(self.issuer, self._http)
            except ValueError as error:
                raise IssuerRefuses(str(error)) from error
            self._kept = kept
        return kept[1]

    def address(self, name: str) -> str:
        """One of the issuer's addresses.

        Raises:
            siteward.oauth.fetching.FetchError: it cannot be asked.
            IssuerRefuses: it has none.
        """
        try:
            return address_in(self.described(), name)
        except ValueError as error:
            message = f"the issuer {self.issuer} cannot do this: {error}"
            raise IssuerRefuses(message) from error

    def authorization(self, *, redirect: str, scopes: Iterable[str], state: str, nonce: str, verifier: str) -> str:
        """Where a browser is sent, to come back to `redirect` with a code."""
        url, _ = self._client(redirect).create_authorization_url(
            self.address("authorization_endpoint"),
            state=state,
            nonce=nonce,
            code_verifier=verifier,
            scope=" ".join(scopes),
        )
        return str(url)

    def exchanged(self, code: str, *, redirect: str, verifier: str) -> Tokens:
        """Tokens for a code that a browser brought."""
        return self._tokens(
            redirect, grant_type="authorization_code", code=code, redirect_uri=redirect, code_verifier=verifier
        )

    def of_service(self, scopes: Iterable[str], audience: str = "") -> Tokens:
        """A token for this program itself (client credentials)."""
        return self._tokens(grant_type="client_credentials", **_wanted(scopes, audience))

    def refreshed(self, refresh: str) -> Tokens:
        """New tokens for a refresh token; some issuers give a new one of these, too."""
        found = self._tokens(grant_type="refresh_token", refresh_token=refresh)
        return found if found.refresh else msgspec.structs.replace(found, refresh=refresh)

    def begin_device(self, scopes: Iterable[str], audience: str = "") -> Device:
        """Ask for a token for a program without a browser, which a person allows in any browser."""
        form = _wanted(scopes, audience)
        answer = self._post(self.address("device_authorization_endpoint"), form, self._auth())
        if "error" in answer:
            raise _refusal(self.issuer, answer.get("error"), answer.get("error_description"))
        try:
            found = msgspec.convert(answer, _DeviceAnswer)
            if not all(
                map(str.isprintable, (found.user_code, found.verification_uri, found.verification_uri_complete))
            ):
                message = "it has characters that nobody can read"
                raise ValueError(message)  # noqa: TRY301  # one error for all that is wrong with it.
            for each in filter(None, (found.verification_uri, found.verification_uri_complete)):
                check_address(each, "verification_uri")
        except (msgspec.ValidationError, ValueError) as error:
            message = f"the issuer {self.issuer} does not say how to allow a device: {error}"
            raise IssuerRefuses(message) from error
        return Device(
            address=found.verification_uri,
            code=found.user_code,
            complete=found.verification_uri_complete,
            secret=found.device_code,
            interval=min(max(found.interval, 1.0), MOST_INTERVAL),
            lasting=min(found.expires_in, LONGEST_CODE),
        )

    def allowed(self, device: Device) -> Tokens:
        """Wait until the person has allowed a device.

        Raises:
            IssuerRefuses: the person refused, or the code is over.
            siteward.oauth.fetching.FetchError: the issuer does not answer.
        """
        until, interval = self._clock() + device.lasting, device.interval
        while self._clock() < until:
            time.sleep(interval)
            try:
                return self._tokens(grant_type=DEVICE, device_code=device.secret)
            except IssuerRefuses as refusal:
                if refusal.error not in _WAITING:
                    raise
                if refusal.error == "slow_down":
                    interval = min(interval + INTERVAL, MOST_INTERVAL)
        message = "nobody allowed this in time; start again"
        raise IssuerRefuses(message, "expired_token")

    def revoke(self, token: str) -> None:
        """Tell the issuer that a refresh token is not needed any more.

        Raises:
            siteward.oauth.fetching.FetchError: it cannot be asked.
            IssuerRefuses: it cannot take tokens back, or does not.
        """
        found = self._post(self.address("revocation_endpoint"), {"token": token}, self._auth(), may_be_empty=True)
        if "error" in found:
            raise _refusal(self.issuer, found.get("error"), found.get("error_description"))

    def _client(self, redirect: str = "") -> OAuth2Client:
        return OAuth2Client(
            _Session(self._http),
            client_id=self._name,
            client_secret=self._secret,
            redirect_uri=redirect or None,
            code_challenge_method="S256",
        )

    def _auth(self) -> ClientAuth:
        client = self._client()
        return client.client_auth(client.token_endpoint_auth_method)

    def _tokens(self, redirect: str = "", **parts: str) -> Tokens:
        try:
            answer = self._client(redirect).fetch_token(self.address("token_endpoint"), **parts)
        except OAuth2Error as error:
            raise _refusal(self.issuer, error.error, error.description) from error
        except ValueError as error:
            # Its message may quote the answer.
            message = f"the issuer {self.issuer} answers something else than tokens"
            raise IssuerRefuses(message) from error
        try:
            found = msgspec.convert(dict(answer), _TokenAnswer)
        except msgspec.ValidationError as error:
            message = f"the issuer {self.issuer} answers something else than tokens: {error}"
            raise IssuerRefuses(message) from error
        if found.token_type.lower() != "bearer":
            message = f"the issuer {self.issuer} gives a token that nobody can bear"
            raise IssuerRefuses(message)
        return Tokens(found.access_token, found.refresh_token or "", found.id_token or "", found.expires_in or 0.0)

    def _post(
        self, url: str, form: Mapping[str, str], auth: ClientAuth, *, may_be_empty: bool = False
    ) -> Mapping[str, object]:
        posted = _Session(self._http).post(url, form, {}, auth).posted
        if may_be_empty and not posted.body.strip() and posted.status < 400:  # noqa: PLR2004  # HTTP's errors.
            return {}
        try:
            return json_object(posted.body)
        except ValueError as error:
            message = f"{url}: HTTP status {posted.status}, and {error}"
            raise IssuerRefuses(message) from error


class _TokenAnswer(msgspec.Struct):
    """What a token endpoint gives (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3)."""

    access_token: str
    token_type: str
    refresh_token: str | None = None
    id_token: str | None = None
    expires_in: float | None = None


class _DeviceAnswer(msgspec.Struct):
    """What a device authorization endpoint gives (RFC 8628 §3.2)."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    verification_uri_complete: str = ""
    interval: float = INTERVAL


class _Answer:
    """An answer as Authlib reads one."""

    def __init__(self, posted: Posted) -> None:
        self.posted = posted
        self.status_code = posted.status

    def json(self) -> Any:  # noqa: ANN401  # whatever stands there.
        return json.loads(self.posted.body)

    def raise_for_status(self) -> None:
        if self.status_code >= 400:  # noqa: PLR2004  # HTTP's errors.
            message = f"HTTP status {self.status_code}"
            raise ValueError(message)


class _Session:
    """The session that Authlib sends with."""

    def __init__(self, http: HttpFetch) -> None:
        self._http = http

    def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: ClientAuth) -> _Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        url, sent, body = auth.prepare(  # type: ignore[no-untyped-call]  # Authlib has no types of its own.
            "POST", url, {**headers, **kind}, urlencode(data)
        )
        return _Answer(self._http.post(url, body.encode(), sent))


def _wanted(scopes: Iterable[str], audience: str) -> dict[str, str]:
    wanted = {"scope": " ".join(scopes), "audience": audience}
    return {name: value for name, value in wanted.items() if value}


def _refusal(issuer: str, error: object, description: object) -> IssuerRefuses:
    told = description if isinstance(description, str) and description.isprintable() else ""
    name = error if isinstance(error, str) and error.isprintable() else "unknown error"
    more = f": {told[: 3 * SHOWN]}" if told else ""
    return IssuerRefuses(f"the issuer {issuer} refuses: {name[:SHOWN]}{more}", name)
