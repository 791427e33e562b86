"""Corrections under fire: whoever applies one or takes it back dies at any statement, and the next run goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from examples import JOB, NOON, batch_of, job
from ledger_databases import Place, in_brief
from viewers import answered

from accounting.corrections.correction import Correction, State
from accounting.corrections.deciding import found_correction, propose
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.opening import open_ledger
from siteward.kinds import load_kinds
from siteward.records import microseconds
from siteward.settings import load_settings
from siteward.usage import OF_USAGE, Attribution, Quantity, UsageQuery, WantedUsage

RECORDS: Final = 600
FEW: Final = 3
PROGRAM: Final = """
import os, signal, sys
from contextlib import closing
from sqlalchemy import Engine, event
from accounting.corrections import correcting
from accounting.corrections.deciding import approve, reverse
from accounting.opening import open_ledger
from siteward.kinds import load_kinds
from siteward.settings import load_settings

correcting.AT_ONCE = 50
action, number, left = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with closing(open_ledger(load_settings(), load_kinds())) as ledger:
    @event.listens_for(Engine, "before_cursor_execute")
    def die(*_):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    if action == "approve":
        approve(ledger, number, "ben", anew=True)
    else:
        reverse(ledger, number, "carl", "it was right")
"""


def killed_until(
    state: State, ledger: Ledger, number: int, run: Callable[[int], int], between: Callable[[], None]
) -> int:
    """Run a program that dies after more and more statements, until the correction is there; how often it died."""
    chance, kills = random.Random(str(state)), 0
    while found_correction(ledger, number).state is not state:
        # At first within what comes before the first part; later enough for some parts.
        code = run(chance.randrange(3, 40 if kills < FEW else 160))
        assert code in {0, -signal.SIGKILL}
        kills += code != 0
        between()
    return kills


@in_brief
def test_a_killed_correction_goes_on(ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]) -> None:
    """Every record is corrected once, and taken back once, revisions that come meanwhile included."""
    goes_on(ledger_place, tmp_path, tell_counts)


@pytest.mark.soak
def test_a_killed_correction_goes_on_everywhere(
    ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]
) -> None:
    """The same on every database."""
    goes_on(ledger_place, tmp_path, tell_counts)


def goes_on(ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]) -> None:
    environ = {
        "SITEWARD_DATA": str(tmp_path),
        "SITEWARD_ACCOUNTING__URL": ledger_place.url,
        "SITEWARD_ACCOUNTING__PASSWORD": ledger_place.password,
    }
    seconds = [3600] * RECORDS
    with closing(open_ledger(load_settings(environ=environ), load_kinds())) as ledger:

        def write(numbers: range, revision: int) -> None:
            for number in numbers:
                seconds[number] = 3600 + revision
            rows = [
                JOB.row_of(job(number, wall_time=seconds[number], revision=revision), microseconds(NOON) + 10**12)
                for number in numbers
            ]
            assert not ledger.write(batch_of(JOB, rows)).reasons

        def run(action: str, statements: int) -> int:
            command = [sys.executable, "-c", PROGRAM, action, str(correction.number), str(statements)]
            return subprocess.run(command, env=os.environ | environ, check=False).returncode

        revisions = iter(range(1, 10_000))

        def revise() -> None:
            revision = next(revisions)
            write(range(revision * 37 % RECORDS, RECORDS, 97), revision)

        write(range(RECORDS), 0)
        correction = proposed(ledger)
        applied = killed_until(State.APPLIED, ledger, correction.number, lambda left: run("approve", left), revise)
        assert totals(ledger) == due(seconds, lambda site: "RIGHT" if site != "SITE-0" else site)
        taken = killed_until(State.REVERSED, ledger, correction.number, lambda left: run("reverse", left), revise)
        assert totals(ledger) == due(seconds, lambda site: site)
    tell_counts(f"corrections on {ledger_place.sort}: {applied} kills while applied, {taken} while taken back")
    assert min(applied, taken) >= FEW


def proposed(ledger: Ledger) -> Correction:
    """All sites but one are another one."""
    text = DraftText(
        kind="job",
        action="move",
        where=("site!=SITE-0",),
        window="2026-03",
        given=("site=RIGHT",),
        author="anna",
        reason="renamed",
    )
    return propose(ledger, parse_draft(text, {"job": JOB}, datetime.now(UTC)))


def totals(ledger: Ledger) -> dict[Attribution, Counter[str]]:
    """Wall time by site."""
    found = {}
    for attribution in OF_USAGE:
        query = UsageQuery(
            kind="job",
            wanted=(WantedUsage(Quantity.SUM, "wall_time"),),
            start=NOON - timedelta(days=1),
            end=NOON + timedelta(days=1),
            attribution=attribution,
            by=("site",),
        )
        rows: list[Any] = list(answered(ledger, query).rows)
        found[attribution] = Counter({row.group[0]: row.values[0] for row in rows if row.values[0]})
    return found


def due(seconds: list[int], renamed: Callable[[str], str]) -> dict[Attribution, Counter[str]]:
    """The same from the records."""
    sums: Counter[str] = Counter()
    for number, value in enumerate(seconds):
        sums[renamed(job(number).site)] += value
    return dict.fromkeys(OF_USAGE, sums)
