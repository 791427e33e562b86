"""What an issuer says of a token's bearer when asked: kept as long as the token is valid, asked once at a time."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec

from siteward.log import get_logger
from siteward.oauth.discovery import address_in
from siteward.oauth.fetching import Fetch, FetchError
from siteward.server.auth.keys import IssuerKeys
from siteward.server.auth.profiles import SKEW
from siteward.server.auth.refusal import Reason, TokenRefused, Waits
from siteward.server.auth.token_text import Claims, TokenText, second_of, shown

MOST_KEPT: Final = 10_000
NOT_KNOWN: Final = frozenset({401, 403})
"""Statuses by which an issuer refuses a token of its own."""
REFUSED: Final = 60.0
"""Seconds for which the issuer is believed that it does not know a token, and not asked for it again."""
RETRY: Final = 10.0
"""Seconds for which the same token is not asked for again after its issuer did not answer."""
ADDED: Final = ("entitlements", "eduperson_entitlement", "voperson_id", "preferred_username")
"""The claims that are taken from there; no other one matters, and none may replace what was signed."""

log = get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    claims: Claims | None
    """None where the issuer did not answer, or refuses."""
    until: float
    is_refused: bool = False


class _Turn:
    """Whose turn it is to ask about one token, and how many want it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0


class Userinfo:
    """Asks one issuer. Tokens are known by their digest only, so that none is kept; any thread may ask."""

    def __init__(self, keys: IssuerKeys, fetch: Fetch, clock: Callable[[], float]) -> None:
        """Take who describes the issuer, what asks it, and a clock in seconds since 1970 UTC."""
        self._keys = keys
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._asking: dict[bytes, _Turn] = {}

    def added(self, token: TokenText, *, may_wait: bool) -> Claims:
        """A verified token's claims, with what its issuer says beside them.

        Args:
            token: whose signature is good, and which is valid now.
            may_wait: whether the issuer may be asked.

        Raises:
            TokenRefused: the issuer does not know it any more, speaks of somebody else, or does not answer.
            Waits: it would have to be asked, and may not be.
        """
        digest = sha256(token.text.encode()).digest()
        kept = self._find(digest)
        if kept is None:
            if not may_wait:
                raise Waits(str(token.claims["iss"]))
            kept = self._asked_once(digest, token)
        if kept.is_refused:
            message = "the issuer does not know the token any more"
            raise TokenRefused(Reason.DENIED, message)
        if kept.claims is None:
            message = "the issuer does not tell what the bearer is entitled to; try again later"
            raise TokenRefused(Reason.UNAVAILABLE, message)
        return {**kept.claims, **token.claims}

    def _find(self, digest: bytes) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(digest)
            return kept if kept is not None and self._clock() < kept.until else None

    def _asked_once(self, digest: bytes, token: TokenText) -> _Kept:
        with self._lock:
            turn = self._asking.setdefault(digest, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                kept = self._find(digest)
                if kept is None:
                    kept = self._ask(token)
                    self._keep(digest, kept)
                return kept
        finally:
            with self._lock:
                turn.wanted -= 1
                # While anybody waits, whoever comes next has to wait behind them.
                if not turn.wanted:
                    del self._asking[digest]

    def _ask(self, token: TokenText) -> _Kept:
        now = self._clock()
        ends = (second_of(token.claims, "exp") or now) + SKEW
        try:
            address = address_in(self._keys.described, "userinfo_endpoint")
            claims = json.loads(self._fetch(address, {"Authorization": f"Bearer {token.text}"}).body)
        except FetchError as error:
            if error.status in NOT_KNOWN:
                return _Kept(None, min(now + REFUSED, ends), is_refused=True)
            log.warning("userinfo not read", error=str(error))
            return _Kept(None, now + RETRY)
        except (ValueError, RecursionError) as error:
            log.warning("userinfo not read", error=str(error))
            return _Kept(None, now + RETRY)
        if not isinstance(claims, dict) or claims.get("sub") != token.claims.get("sub"):
            # OpenID Connect Core §5.3.2: else it may be another person's.
            subject = shown(claims.get("sub")) if isinstance(claims, dict) else "nobody"
            log.warning("userinfo of somebody else", subject=subject)
            return _Kept(None, now + RETRY)
        mine = {name: claims[name] for name in ADDED if name in claims}
        return _Kept(mine, ends)

    def _keep(self, digest: bytes, kept: _Kept) -> None:
        with self._lock:
            self._kept[digest] = kept
            self._kept.move_to_end(digest)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
