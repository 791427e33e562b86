"""The keys of one issuer, found by discovery and kept: through outages of the issuer, and through its rotations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from siteward.log import get_logger
from siteward.oauth.discovery import Metadata, address_in, described_by, json_object
from siteward.oauth.fetching import Fetch, FetchError
from siteward.server.auth.key_file import KeyFile, Told
from siteward.server.auth.key_set import Key, published_in, usable
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.token_text import shown

REFRESH: Final = 6 * 3600.0
"""Seconds after which keys are asked for again (WLCG Common JWT Profile 1.3: default 6 hours, at least one)."""
LEAST_REFRESH: Final = 3600.0
OUTAGE: Final = 2 * 86_400.0
"""Seconds for which keys are believed while their issuer does not answer (the same: default 2 days)."""
RETRY: Final = 60.0
"""Seconds between two questions to an issuer that did not answer."""
UNKNOWN_EVERY: Final = 60.0
"""Seconds in which an issuer is asked once, answered or not, about keys that it did not have."""

log = get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    metadata: Metadata
    keys: Mapping[tuple[str, str], Key]
    asked: float
    until: float


class IssuerKeys:
    """Asks the issuer at most once at a time. What is kept is found without waiting; any thread may ask."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float], file: KeyFile | None = None) -> None:
        """Know the issuer; it is asked when the first token comes.

        Args:
            issuer: its exact name, which is the address below which it describes itself.
            fetch: asks it.
            clock: seconds since 1970 UTC.
            file: where its last answer is kept, for a start while it does not answer; None keeps it nowhere.
        """
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._file = file
        self._asking = threading.Lock()
        self._tried = float("-inf")
        self._asked_unknown = float("-inf")
        told = file.read(clock()) if file else None
        # Of before: the issuer is asked again first.
        self._kept = _Kept(told.metadata, _by_name(told), told.asked, told.asked) if told else None

    def known(self, name: str, key_type: str) -> Key | None:
        """A key that is kept and fresh, without waiting; None where the issuer has to be asked first."""
        kept = self._kept
        return kept.keys.get((name, key_type)) if kept and self._clock() < kept.until else None

    def only(self, key_type: str) -> str:
        """The name of the issuer's only key of a type, where it has one; may wait for it.

        An ID token need not name its key then (OpenID Connect Core §10.1).

        Raises:
            TokenRefused: it has none, or several.
        """
        kept = self._kept
        if kept is None or self._clock() >= kept.until:
            with suppress(TokenRefused):
                self.sought("", key_type)
            kept = self._kept
        names = [name for name, each in kept.keys if each == key_type] if kept and self._is_believable(kept) else []
        if len(names) != 1:
            message = f"the token does not name its key (kid), and the issuer {self._issuer} has {len(names)} for it"
            raise TokenRefused(Reason.KEY, message)
        return names[0]

    def sought(self, name: str, key_type: str) -> Key:
        """A key, after asking the issuer where that is due; may wait for it.

        Args:
            name: of the key (`kid`).
            key_type: "RSA", "EC" or "OKP".

        Raises:
            TokenRefused: the issuer does not have it, or cannot be asked now.
        """
        found = self.known(name, key_type)
        if found is not None:
            return found
        seen, is_told = self._kept, True
        # Who finds an old key does not wait behind another one's question.
        with_old = seen is not None and (name, key_type) in seen.keys and self._is_believable(seen)
        if self._asking.acquire(blocking=not with_old):
            try:
                is_told = self._ask_where_due(name, seen)
            finally:
                self._asking.release()
        kept = self._kept
        if kept is None or not self._is_believable(kept):
            message = f"the issuer {self._issuer} does not tell its keys now; try again later"
            raise TokenRefused(Reason.UNAVAILABLE, message)
        key = kept.keys.get((name, key_type))
        if key is None and not is_told:
            message = f"whether the issuer {self._issuer} has a key {shown(name)} cannot be asked now; try again later"
            raise TokenRefused(Reason.UNAVAILABLE, message)
        if key is None:
            message = f"the issuer {self._issuer} has no {key_type} key {shown(name)} for signatures"
            raise TokenRefused(Reason.KEY, message)
        return key

    def _ask_where_due(self, name: str, seen: _Kept | None) -> bool:
        """Ask the issuer if what is kept is too old, or has no key of a name; whether it has told since `seen`.

        Names are anybody's to invent: they have one question a minute, of their own. Whoever it is that asks it, all
        keys are told.
        """
        kept, now = self._kept, self._clock()
        if kept is None or now >= kept.until:
            if now >= self._tried + RETRY:
                self._ask()
        elif any(each == name for each, _ in kept.keys):
            return True
        elif kept is seen and not 0 <= now - self._asked_unknown < UNKNOWN_EVERY:
            # A clock that was set back does not make a new key wait until it shows the same again.
            self._asked_unknown = now
            self._ask()
        return self._kept is not seen

    def _is_believable(self, kept: _Kept) -> bool:
        return self._clock() < kept.asked + OUTAGE

    def _ask(self) -> None:
        self._tried = self._clock()
        try:
            metadata = described_by(self._issuer, self._fetch)
            answer = self._fetch(address_in(metadata, "jwks_uri"), {})
            published = published_in(json_object(answer.body))
        except (FetchError, ValueError) as error:
            log.warning("keys of an issuer not read", issuer=self._issuer, error=str(error))
            return
        lasting = REFRESH if answer.lasting is None else min(max(answer.lasting, LEAST_REFRESH), REFRESH)
        texts = {name: value for name, value in metadata.items() if isinstance(value, str)}
        told = Told(self._issuer, self._tried, texts, tuple(published))
        self._kept = _Kept(metadata, _by_name(told), self._tried, self._tried + lasting)
        if self._file is not None:
            self._file.write(told)

    @property
    def described(self) -> Metadata:
        """How the issuer described itself when it was last asked; {} before."""
        return self._kept.metadata if self._kept else {}


def _by_name(told: Told) -> dict[tuple[str, str], Key]:
    return {(each.kid, each.kty): key for each, key in usable(told.keys)}
