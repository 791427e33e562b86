"""Whoever sends records over HTTP: their name as a producer, and for which VOs and sites they may send."""

from __future__ import annotations

import socket
from functools import cache
from urllib.parse import urlsplit

from siteward.records import Kind, Refused, Row
from siteward.server.auth import Permission
from siteward.server.auth.caller import Caller

SITE = "site"


class Sender:
    """One caller of the gateway.

    Attributes:
        producer: what records say of where they came from: the host of the token, else its subject and issuer; the
            gateway itself for the person at this machine.
    """

    def __init__(self, caller: Caller) -> None:
        """Take the caller."""
        identity = caller.identity
        self._grants = caller.grants
        issuer = urlsplit(identity.issuer).hostname or ""
        name = identity.host or (f"{identity.subject}@{issuer}" if identity.token else "")
        self.producer = name or f"gateway@{socket.gethostname()}"
        self._may = cache(lambda vo, site: caller.may_in(Permission.REPORT, vo, site))

    def check(self, kind: Kind, row: Row) -> None:
        """Refuse a record of a VO, or a site, for which the sender does not speak.

        Raises:
            Refused: naming the field.
        """
        vo, site = row.vo, getattr(row, SITE, "")  # type: ignore[attr-defined]  # every kind has a VO.
        if self._may(vo, site):
            return
        grants = [grant for grant in self._grants if grant.allows(Permission.REPORT)]
        if any(grant.holds_in(vo) for grant in grants):
            sites = sorted({each for grant in grants if grant.holds_in(vo) for each in grant.sites})
            message = f"your token reports for {', '.join(sites)} only"
            raise Refused(message, kind=kind.name, field=SITE, value=site)
        vos = sorted({each for grant in grants for each in grant.vos})
        message = f"your token reports for {', '.join(vos) or 'no VO'} only"
        raise Refused(message, kind=kind.name, field="vo", value=vo)
