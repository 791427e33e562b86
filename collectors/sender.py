"""Whoever sends records over HTTP: their name as a producer, and for which VOs and sites they may send."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Final
from urllib.parse import urlsplit

from siteward.people import People
from siteward.records import Kind, Refused, Row, Shape
from siteward.server.auth import Permission
from siteward.server.auth.caller import Caller
from siteward.server.auth.producer import account_of, is_told_by_name, producer_name
from siteward.server.auth.roles import Grant

SITE: Final = "site"
PRODUCER: Final = "producer"
COUNTS: Final = "record-count"
"""The kind that says how many records a producer has sent."""
REMEMBERED: Final = 1_024
"""VOs and sites of one request for which it is remembered whether its sender speaks for them."""


class Sender:
    """One caller of the gateway.

    Attributes:
        account: who it is, for whatever is kept apart by senders: no two of different issuers are the same.
        name: what it is called in answers to itself.
    """

    def __init__(self, caller: Caller, people: People) -> None:
        """Take the caller, and what makes pseudonyms, which is asked once one is needed: it may wait for a database."""
        self._caller = caller
        self._identity = identity = caller.identity
        self._people = people
        self._grants = caller.grants
        self._is_platform = caller.may(Permission.PLATFORM)
        self.account = account_of(identity)
        self.name = identity.host or identity.subject
        self._may_in = lru_cache(REMEMBERED)(caller.may_in)

    @property
    def producer(self) -> str:
        """What records say of where they came from: host, subject or pseudonym, and issuer.

        Raises:
            siteward.people.PeopleUnavailable, siteward.settings.SettingsError: as `producer_name`; so do
                `kept_account`, and `check` for what names its producer.
        """
        if not self._identity.token:
            return self._own
        issuer = urlsplit(self._identity.issuer)
        return f"{self._own}@{issuer.hostname or ''}{issuer.path.rstrip('/')}"

    @property
    def kept_account(self) -> str:
        """The account as receipts keep it: a person's by a pseudonym, so that no name is left in them."""
        return self.account if is_told_by_name(self._identity) else self._own

    @cached_property
    def _own(self) -> str:
        return producer_name(self._identity, self._people)

    def vos(self, kind: Kind) -> str:
        """The VOs that it sends records of a kind for, for messages."""
        return ", ".join(sorted({each for grant in self._sending(kind) for each in grant.vos})) or "no VO"

    @property
    def places_of(self) -> tuple[str, ...]:
        """The VOs of whose places its requests may take one."""
        return self._caller.places_of(Permission.REPORT)

    def may_send(self, kind: Kind) -> bool:
        """Whether there is any record of a kind that it may send."""
        return any(self._sending(kind))

    def speaks_for(self, kind: Kind, vo: str) -> bool:
        """Whether there is any record of a kind and a VO that it may send."""
        return any(grant.holds_in(vo) and (grant.sites or self._may(kind, vo, "")) for grant in self._sending(kind))

    def check(self, kind: Kind, row: Row) -> None:
        """Refuse a record for which the sender does not speak: of a VO, a site, or another producer.

        Raises:
            Refused: naming the field.
        """
        vo, site = row.vo, getattr(row, SITE, "")  # type: ignore[attr-defined]  # every kind has a VO.
        if not self._may(kind, vo, site):
            self._refuse(kind, vo, site)
        if self._by_site(kind, vo) and _may_be_another_sites(kind, row):
            message = "such a record may replace another site's; send it with a token that is of no single site"
            raise Refused(message, kind=kind.name, field=SITE, value=site)
        if not self._is_platform and _is_by_producer(kind):
            self._check_producer(kind, getattr(row, PRODUCER))

    def _may(self, kind: Kind, vo: str, site: str) -> bool:
        return any(self._may_in(permission, vo, site) for permission in _permissions(kind))

    def _by_site(self, kind: Kind, vo: str) -> bool:
        """Whether it speaks for single sites of a VO only."""
        return all(grant.sites for grant in self._sending(kind) if grant.holds_in(vo))

    def _sending(self, kind: Kind) -> Iterator[Grant]:
        return (grant for grant in self._grants if any(map(grant.allows, _permissions(kind))))

    def _check_producer(self, kind: Kind, producer: str) -> None:
        if producer == self._own or producer.startswith((f"{self._own}/", f"{self._own}@")):
            return
        message = f"your token speaks for the producer {self._own}, and what is called {self._own}/…"
        raise Refused(message, kind=kind.name, field=PRODUCER, value=producer)

    def _refuse(self, kind: Kind, vo: str, site: str) -> None:
        sites = sorted({each for grant in self._sending(kind) if grant.holds_in(vo) for each in grant.sites})
        if sites:
            message = f"your token reports for {', '.join(sites)} only"
            raise Refused(message, kind=kind.name, field=SITE, value=site)
        message = f"your token reports for {self.vos(kind)} only"
        raise Refused(message, kind=kind.name, field="vo", value=vo)


def _is_by_producer(kind: Kind) -> bool:
    """Whether a record says who it is of: cycles and what was to come, whatever the VO, and ids that are made of it."""
    if PRODUCER not in kind.column:
        return False
    return kind.shape is Shape.SNAPSHOT or kind.name == COUNTS or PRODUCER in kind.identity


def _permissions(kind: Kind) -> tuple[Permission, ...]:
    """Each of them lets somebody send records of a kind."""
    return (Permission.REPORT, Permission(kind.sent_by)) if kind.sent_by else (Permission.REPORT,)


def _may_be_another_sites(kind: Kind, row: Row) -> bool:
    """Whether a record's id says nothing of its site or producer, so that one of another site may have the same."""
    if SITE not in kind.column or {SITE, PRODUCER} & {*kind.identity}:
        return False
    # One without an identity is always new.
    return bool(kind.identity) and not (
        kind.optional_identity and not any(getattr(row, name) for name in kind.identity)
    )
