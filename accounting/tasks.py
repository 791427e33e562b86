"""What is done to the ledger again and again: old buckets are put together, old records leave, gaps are told."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from accounting import SINK
from accounting.archive.archive_file import ArchiveError
from accounting.archive.archiving import archive
from accounting.completeness.comparing import Asked, completeness
from accounting.ledger import Ledger
from accounting.opening import archive_folder, kept_days, open_ledger
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.tiers import compact
from siteward.kinds.booked import booked_kinds
from siteward.log import get_logger
from siteward.records import moment
from siteward.server.auth import Permission
from siteward.server.database import Conflict
from siteward.server.schedule import Task
from siteward.sinks import SinkUnavailable
from siteward.telemetry import LEDGER_MISSING, LEDGER_OVERDUE, telemetry

if TYPE_CHECKING:
    from siteward.server.resources import Resources

EVERY: Final = 3600.0
"""Seconds between two rounds; tiers change by whole days."""
DAY: Final = 86_400.0
"""Seconds between two rounds of archiving, which moves whole days."""
log = get_logger(__name__)


def run_compaction(resources: Resources) -> None:
    """Compact the ledger and sum its months, where this installation feeds one."""
    ledger = _ledger(resources)
    if ledger is None:
        return
    count = compact(ledger)
    if count:
        log.info("buckets were put together", buckets=count)
    months = sum_months(ledger)
    if months:
        log.info("months were summed", months=months)
    if count or months:
        resources.note_task("compaction", {"buckets": count, "months": months})


def run_archiving(resources: Resources) -> None:
    """Archive what is older than the settings keep records of its kind, where this installation feeds a ledger.

    Raises:
        accounting.archive.archive_file.ArchiveError: of some kinds it cannot be done now; the others are archived.
    """
    settings = resources.settings
    days = kept_days(settings, booked_kinds(settings, resources.kinds))
    ledger = _ledger(resources) if days else None
    if ledger is None:
        return
    now, folder = moment(ledger.clock()), archive_folder(settings)
    failed: list[str] = []
    for kind, kept in days.items():
        try:
            for file in archive(ledger, folder, now - timedelta(days=kept), (kind,)):
                log.info("records were archived", kind=file.kind, file=file.file, records=file.records)
                resources.note_task("archiving", {"kind": file.kind, "file": file.file, "records": file.records})
        except (ArchiveError, Conflict, SinkUnavailable) as error:
            failed.append(f"{kind}: {error}")
    if failed:
        raise ArchiveError("; ".join(failed))


def _ledger(resources: Resources) -> Ledger | None:
    """The ledger that this installation feeds, shared with the routes; None where it feeds none."""
    if SINK in resources.settings.collector.leave_out:
        return None
    return resources.shared("ledger", lambda: open_ledger(resources.settings, resources.kinds))


def run_completeness(resources: Resources) -> None:
    """Tell Prometheus what is missing of whom: of this month until it is over, and of the last week."""
    ledger = _ledger(resources)
    if ledger is None:
        return
    now = moment(ledger.clock())
    start = min(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0), now - timedelta(days=7))
    found = completeness(ledger, Asked(start=int(start.timestamp()), end=int(now.timestamp())))
    missing: Counter[tuple[str, str]] = Counter()
    for row in found.rows:
        missing[row.kind, row.producer or row.scope] += row.missing
        if row.why:
            log.warning("what is missing cannot be told", kind=row.kind, scope=row.producer or row.scope, why=row.why)
    overdue = {(each.kind, each.producer): each.silence.overdue for each in found.producers if each.silence}
    for metric, values in ((LEDGER_MISSING, missing), (LEDGER_OVERDUE, overdue)):
        # What was told before and has come since is told as zero; of others nothing is said.
        told = {(kind, producer) for name, (kind, producer) in _labels() if name == metric.name}
        for kind, producer in told | {labels for labels, value in values.items() if value}:
            telemetry.set(metric, values.get((kind, producer), 0), kind, producer)


def _labels() -> list[tuple[str, tuple[str, str]]]:
    """Metric and labels of what this process has told of kinds and producers."""
    ours = {LEDGER_MISSING.name, LEDGER_OVERDUE.name}
    samples = (sample for sample in telemetry.samples() if sample.metric in ours)
    return [(sample.metric, (sample.labels[0], sample.labels[1])) for sample in samples]


archiving: Final = Task(name="archiving", every=DAY, permission=Permission.PLATFORM, run=run_archiving)
completing: Final = Task(name="completeness", every=EVERY, permission=Permission.READ, run=run_completeness)
compaction: Final = Task(name="compaction", every=EVERY, permission=Permission.PLATFORM, run=run_compaction)
