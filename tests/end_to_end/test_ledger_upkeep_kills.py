"""The ledger's upkeep under fire: whatever archives, restores, puts together or rebuilds dies; all counts once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest
from examples import JOB, batch_of, job
from killing import held
from ledger_databases import Place, in_brief
from viewers import answered

from accounting.archive.archiving import archive, files
from accounting.archive.restoring import restore
from accounting.checks.verifying import Counts, Scope, verify
from accounting.ledger import Ledger
from accounting.opening import open_ledger
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.rebuild import rebuild
from accounting.upkeep.tiers import compact
from siteward.kinds.job import Job
from siteward.records import microseconds
from siteward.settings import Settings, load_settings
from siteward.sinks import Batch, Outcome
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage

FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAYS: Final = 30
OVER: Final = FIRST + timedelta(days=DAYS)
LATER: Final = FIRST + timedelta(days=200)
AT_ONCE: Final = 60
"""Records that come in before each kill."""
WORKER: Final = """
import random
import sys
from datetime import datetime
from pathlib import Path
from accounting.checks import recount
from accounting.archive.archiving import archive, files
from accounting.archive.restoring import restore
from accounting.opening import open_ledger
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.rebuild import rebuild
from accounting.upkeep.tiers import compact
from accounting.checks.verifying import Scope
from siteward.kinds import load_kinds
from siteward.records import microseconds
from siteward.settings import load_settings

what, folder, until = sys.argv[1], Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
recount.MOST_DAYS = 1
ledger = open_ledger(load_settings(), load_kinds())
ledger.clock = lambda: microseconds(until)
print("ready", flush=True)
while True:
    if what == "archive":
        list(archive(ledger, folder, until))
    elif what == "restore":
        list(archive(ledger, folder, until))
        for file in files(ledger):
            if random.random() < 0.7:
                restore(ledger, folder, file.file)
    elif what == "compact":
        compact(ledger)
    elif what == "months":
        sum_months(ledger)
    else:
        list(rebuild(ledger, Scope(folder, ("job",))))
"""
WHAT: Final = ("archive", "restore", "compact", "months", "rebuild")


class Upkept:
    """A ledger of jobs over some days, and the processes that keep it up until they are killed."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder / "archive"
        self.environ = {
            "SITEWARD_DATA": str(folder),
            "SITEWARD_ACCOUNTING__URL": place.url,
            "SITEWARD_ACCOUNTING__PASSWORD": place.password,
            "SITEWARD_LOG_LEVEL": "error",
        }
        self.jobs: list[Job] = []
        self._chance = random.Random(1)

    @property
    def settings(self) -> Settings:
        """Of all of them."""
        return load_settings(environ=self.environ)

    def some(self) -> Batch:
        """Further jobs, of minutes to days, over all the days."""
        new = []
        for number in range(len(self.jobs), len(self.jobs) + AT_ONCE):
            end = FIRST + timedelta(seconds=self._chance.randrange(DAYS * 86_400))
            start = end - timedelta(seconds=self._chance.choice([600, 7200, 40 * 3600]))
            new.append(job(number, start=start, end=end, wall_time=self._chance.randrange(10**6)))
        self.jobs += new
        return self.batch(new)

    def batch(self, jobs: list[Job]) -> Batch:
        """Jobs as a collector would hand them over."""
        return batch_of(JOB, [JOB.row_of(each, microseconds(OVER)) for each in jobs])

    def killed(self, what: str, meanwhile: Callable[[], object]) -> None:
        """Let a process do something over and over, do something beside it, and kill it in the middle."""
        arguments = [sys.executable, "-c", WORKER, what, str(self.folder), LATER.isoformat()]
        process = subprocess.Popen(arguments, env=os.environ | self.environ, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            meanwhile()
            time.sleep(self._chance.uniform(0, 0.3))
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()


def check(upkept: Upkept, ledger: Ledger) -> None:
    """Every record is in one place, all again are duplicates, figures are those of the jobs, buckets of the records."""
    batch = upkept.batch(upkept.jobs)
    assert held(ledger, "job") == Counter(batch.ids)
    assert set(ledger.write(batch).outcomes) == {Outcome.DUPLICATE}
    due: Counter[tuple[datetime, str]] = Counter()
    for each in upkept.jobs:
        due[each.end.replace(hour=0, minute=0, second=0, microsecond=0), each.site] += each.wall_time
    query = UsageQuery(
        kind="job",
        wanted=(WantedUsage(Quantity.SUM, "wall_time"),),
        start=FIRST,
        end=OVER,
        attribution=Attribution.BY_END,
        by=("site",),
        period=Period.DAY,
    )
    rows = answered(ledger, query).rows
    assert Counter({(row.start, str(row.group[0])): int(row.values[0] or 0) for row in rows}) == due
    # By months it may be answered from their own sums.
    assert answered(ledger, msgspec.structs.replace(query, period=Period.MONTH, by=())).totals == (due.total(),)
    assert list(verify(ledger, Scope(upkept.folder), Counts())) == []


def survives(folder: Path, place: Place, what: str, kills: int) -> None:
    """Kill what keeps a ledger up, while records come in."""
    upkept = Upkept(folder, place)
    with closing(open_ledger(upkept.settings, {"job": JOB})) as ledger:
        # Of the time when the records came in: what they add lies in narrow buckets.
        ledger.clock = lambda: microseconds(OVER)

        def write() -> None:
            assert set(ledger.write(upkept.some()).outcomes) == {Outcome.STORED}

        for _ in range(kills):
            write()
            if what == "rebuild":
                with ledger.database.write() as connection:
                    buckets = ledger.tables["job"].prorated
                    connection.execute(buckets.update().values(core_time=buckets.c.core_time + 1))
            upkept.killed(what, write)
        ledger.clock = lambda: microseconds(LATER)
        if what == "archive":
            list(archive(ledger, upkept.folder, LATER))
        elif what == "restore":
            # As the last process left it, some of it here and some there; then all of it here.
            check(upkept, ledger)
            for file in files(ledger):
                assert restore(ledger, upkept.folder, file.file) == file.records
        elif what == "compact":
            compact(ledger)
        elif what == "months":
            # Of both attributions, unless the last process did it.
            sum_months(ledger)
            assert sum_months(ledger) == 0
        else:
            # The first ends what was begun before the last damage.
            for _ in range(2):
                list(rebuild(ledger, Scope(upkept.folder)))
        check(upkept, ledger)


@in_brief
@pytest.mark.parametrize("what", WHAT)
def test_killed_upkeep_loses_nothing(
    ledger_place: Place, tmp_path: Path, what: str, tell_counts: Callable[[str], None]
) -> None:
    """Killed three times while records come in, then done: each counts once, in every figure."""
    survives(tmp_path, ledger_place, what, 3)
    tell_counts(f"{what} on {ledger_place.sort}: 3 kills")


@pytest.mark.soak
@pytest.mark.parametrize("what", WHAT)
def test_upkeep_killed_again_and_again_loses_nothing(
    ledger_place: Place, tmp_path: Path, what: str, tell_counts: Callable[[str], None]
) -> None:
    """The same fifty times."""
    survives(tmp_path, ledger_place, what, 50)
    tell_counts(f"{what} on {ledger_place.sort}: 50 kills")
