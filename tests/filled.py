"""An installation of two VOs with something of everything: records, closed months, corrections, receipts, audit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from collected import collected
from examples import JOB, NOW, batch_of, job

from accounting.corrections.deciding import approve, propose
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.opening import open_ledger
from accounting.periods.closing import close
from accounting.topology.attributes import Entry
from accounting.topology.topology_table import write_topology
from accounting.upkeep.months import parse_month
from collectors.database import database_path
from collectors.dead_letters import DeadLetters, Letter, Stage, place_id
from collectors.receipts import GATEWAY, Receipt, Receipts
from collectors.sender import Sender
from siteward.envelope import as_json
from siteward.kinds import load_kinds
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.kinds.storage_share import StorageShare
from siteward.people import People
from siteward.records import Kind, Refused, Row, kind_of
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.resources import Resources
from siteward.settings import Settings

SHARES: Final = kind_of(StorageShare)
OCCUPANCY: Final = kind_of(StorageOccupancy)
"""The kind that names nobody."""
LOOKS: Final = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(3)]
"""When storages are looked at."""
MONTHS: Final = (1, 2, 3)
"""Of 2026, in which there are records."""
CLOSED: Final = ("2026-01", "2026-02")
"""Months of jobs that are closed for each VO."""


def jobs(vo: str, months: Iterable[int] = MONTHS, **changes: Any) -> list[Row]:
    """Six finished jobs of a VO in each month, of two sites and three people; other VOs' are other jobs."""
    return [
        JOB.row_of(
            job(
                number,
                **{
                    "vo": vo,
                    "site": f"SITE-{number % 2}",
                    "local_job_id": f"{vo}-{month}-{number}",
                    "user": f"{vo}-user{number % 3}",
                    "group": f"/{vo}/{'ops' if number % 2 else 'users'}",
                    "start": datetime(2026, month, 2, 10, tzinfo=UTC),
                    "end": datetime(2026, month, 2, 12, number, tzinfo=UTC),
                    **changes,
                },
            ),
            NOW,
        )
        for month in months
        for number in range(6)
    ]


def shares(vo: str) -> list[Row]:
    """What a VO held on two storages at three instants, each look a cycle; of the last a record is missing."""
    return [
        SHARES.row_of(
            StorageShare(
                vo=vo,
                time=look,
                producer=f"storage-of-{vo}",
                cycle_size=2 if look != LOOKS[-1] else 3,
                site=site,
                storage=f"se.{site.lower()}.example",
                user=f"{vo}-user0",
                group=f"/{vo}/users",
                capacity_used=1000 * (place + 1) * (number + 1),
            ),
            NOW,
        )
        for number, look in enumerate(LOOKS)
        for place, site in enumerate(("SITE-0", "SITE-1"))
    ]


def occupancies(vo: str) -> list[Row]:
    """How full a VO's storages were at the same instants; of the last look a record is missing."""
    return [
        OCCUPANCY.row_of(
            StorageOccupancy(
                vo=vo,
                time=look,
                producer=f"storage-of-{vo}",
                cycle_size=2 if look != LOOKS[-1] else 3,
                site=site,
                storage=f"se-of-{vo}.{site.lower()}.example",
                total=10**6,
                used=1000 * (number + 1),
            ),
            NOW,
        )
        for number, look in enumerate(LOOKS)
        for site in ("SITE-0", "SITE-1")
    ]


def correct(ledger: Ledger, vo: str, site: str, right: str, *, approved: bool) -> int:
    """The number of a correction that moves one VO's jobs of a site in March, applied or waiting."""
    text = DraftText(
        kind="job",
        action="move",
        where=(f"vo={vo}", f"site={site}"),
        window="2026-03",
        given=(f"site={right}",),
        author=f"author of {vo}",
        reason=f"a wrong name in {vo}",
    )
    number = propose(ledger, parse_draft(text, ledger.kinds, datetime(2026, 3, 3, tzinfo=UTC))).number
    if approved:
        approve(ledger, number, f"another one of {vo}")
    return number


def close_months(ledger: Ledger, vo: str) -> None:
    """Close some months of one VO's jobs."""
    for month in CLOSED:
        close(ledger, "job", parse_month(month), f"accountant of {vo}", vo)


def letters(vo: str, count: int) -> list[Letter]:
    """Refused jobs of a VO, whose site is missing."""
    row = jobs(vo)[0]
    original = json.loads(as_json(JOB, [getattr(row, name) for name in JOB.names])) | {"site": ""}
    return [
        Letter(
            queue="monitoring",
            record=place_id(vo.encode().ljust(16), number),
            stage=Stage.VALIDATE,
            kind="job",
            vo=vo,
            producer=f"pilot of {vo}",
            message=vo.encode().ljust(16),
            refused=Refused("is missing", kind="job", field="site"),
            original=json.dumps(original).encode(),
        )
        for number in range(count)
    ]


def topology(people: People, vos: Iterable[str]) -> list[Entry]:
    """The countries of sites, and the institute of one person of each VO, by whom records are told apart as well."""
    sites = [Entry("site", f"SITE-{number}", "country", country) for number, country in enumerate(("CH", "FR"))]
    return [*sites, *(Entry("user", people.pseudonym("user", f"{vo}-user0"), "institute", f"I of {vo}") for vo in vos)]


def caller_named(settings: Settings, subject: str) -> Caller:
    """A program with a token of our own issuer, as changes and receipts keep it; without any role."""
    issuer = LocalIssuer(settings.issuer_file).settings.url
    return Caller(Identity(issuer=issuer, subject=subject, token="t", expires=float("inf"), is_service=True), ())


def receipts(account: str, vo: str, ids: Iterable[bytes]) -> list[Receipt]:
    """What became of records that an account of a VO sent over HTTP."""
    return [
        Receipt(f"{vo} {number}".encode().ljust(16), 0, sink, record, outcome, reason)
        for number, record in enumerate(ids)
        for sink, outcome, reason in ((GATEWAY, "queued", account), ("monitoring", "stored", f"of {vo}"))
    ]


def everything(_row: Row) -> bool:
    """Keep all records."""
    return True


def fill(
    settings: Settings,
    *vos: str,
    beside: Sequence[str] = (),
    waiting: int = 0,
    is_kept: Callable[[Row], bool] = everything,
) -> None:
    """Do all of it for some VOs, one after the other, so that what comes of the first does not tell of the others.

    Args:
        settings: whose.
        vos: whose records there are.
        beside: of which there are records and nothing else.
        waiting: corrections of the first VO that wait for somebody to decide.
        is_kept: whether a record is there at all.
    """
    kinds = load_kinds()
    resources = Resources(settings, kinds)
    with closing(resources), closing(open_ledger(settings, kinds)) as ledger:
        write_topology(ledger.database, ledger.common.topology, topology(resources.people, vos), NOW // 10**6)

        def write(kind: Kind, rows: list[Row]) -> None:
            kept = list(filter(is_kept, rows))
            batch = collected(batch_of(kind, kept), settings)
            ledger.write(batch)
            resources.store.write(batch)  # type: ignore[attr-defined]  # every store has it.

        for vo in (*vos, *beside):
            write(JOB, jobs(vo))
            write(SHARES, shares(vo))
            write(OCCUPANCY, occupancies(vo))
            if vo in beside:
                continue
            close_months(ledger, vo)
            correct(ledger, vo, "SITE-1", "RIGHT", approved=True)
            # After their month was closed: each is an adjustment.
            write(JOB, jobs(vo, (2,), local_job_id=f"late-of-{vo}")[:1])
            admin = caller_named(settings, f"admin of {vo}")
            resources.audit.note(admin, f"POST /v1/what/{vo}", "200", (vo,), {"changed": f"of {vo}"})
        for number in range(waiting):
            correct(ledger, vos[0], "SITE-0", f"RIGHT-{number}", approved=False)
        accounts = {vo: Sender(caller_named(settings, f"ce of {vo}"), resources.people).kept_account for vo in vos}
    with DeadLetters(database_path(settings)) as dead:
        for vo in vos:
            dead.put(letters(vo, 9), NOW)
    with Receipts(database_path(settings)) as kept:
        for vo in vos:
            # Others have sent the same record, too.
            ids = batch_of(JOB, [jobs(vo)[0], jobs(vos[0])[0]]).ids
            kept.note(receipts(accounts[vo], vo, dict.fromkeys(ids)), NOW)
