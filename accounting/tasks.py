"""What is done to the ledger again and again: old buckets are put together, old records leave for the archive."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from accounting.archive import archive
from accounting.ledger import Ledger
from accounting.month_sums import sum_months
from accounting.opening import archive_folder, open_ledger
from accounting.tiers import compact
from siteward.log import get_logger
from siteward.records import moment
from siteward.server.schedule import Task

if TYPE_CHECKING:
    from siteward.server.resources import Resources

EVERY: Final = 3600.0
"""Seconds between two rounds; tiers change by whole days."""
DAY: Final = 86_400.0
"""Seconds between two rounds of archiving, which moves whole days."""
SINK: Final = "ledger"
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


def run_archiving(resources: Resources) -> None:
    """Archive what is older than `accounting.keep_records`, where that is set and this installation feeds a ledger."""
    settings = resources.settings
    ledger = _ledger(resources) if settings.accounting.keep_records else None
    if ledger is None:
        return
    before = moment(ledger.clock()) - timedelta(days=settings.accounting.keep_records)
    for file in archive(ledger, archive_folder(settings), before):
        log.info("records were archived", kind=file.kind, file=file.file, records=file.records)


def _ledger(resources: Resources) -> Ledger | None:
    """The ledger that this installation feeds, shared with the routes; None where it feeds none."""
    if SINK in resources.settings.collector.leave_out:
        return None
    return resources.shared("ledger", lambda: open_ledger(resources.settings, resources.kinds))


archiving: Final = Task(name="archiving", every=DAY, run=run_archiving)
compaction: Final = Task(name="compaction", every=EVERY, run=run_compaction)
