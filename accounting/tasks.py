"""What is done to the ledger again and again: buckets are put together, months are summed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from accounting.month_sums import sum_months
from accounting.opening import open_ledger
from accounting.tiers import compact
from siteward.log import get_logger
from siteward.server.schedule import Task

if TYPE_CHECKING:
    from siteward.server.resources import Resources

EVERY: Final = 3600.0
"""Seconds between two rounds; tiers change by whole days."""
SINK: Final = "ledger"
log = get_logger(__name__)


def run_compaction(resources: Resources) -> None:
    """Compact the ledger and sum its months, where this installation feeds one."""
    if SINK in resources.settings.collector.leave_out:
        return
    ledger = resources.shared("ledger", lambda: open_ledger(resources.settings, resources.kinds))
    count = compact(ledger)
    if count:
        log.info("buckets were put together", buckets=count)
    months = sum_months(ledger)
    if months:
        log.info("months were summed", months=months)


compaction: Final = Task(name="compaction", every=EVERY, run=run_compaction)
