"""Programs that are killed in the middle of whatever they do, and what of their work is there in the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from examples import NOON
from ledger_databases import Place
from sqlalchemy import select

from accounting.archive.archived_ids import unpacked
from accounting.ledger import Ledger
from monitoring.stores.opening import open_monitoring
from siteward.kinds import load_kinds
from siteward.query import Function, Query, Wanted
from siteward.settings import Settings


class Process:
    """A program that is killed and started again."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._command = command
        self._environ = environ
        self.kills = 0
        self._process = self._started()

    def kill(self) -> None:
        """Kill it in the middle of whatever it does, and start it again."""
        self._process.kill()
        self._process.communicate()
        self.kills += 1
        self._process = self._started()

    def end(self) -> None:
        """End it as a person would."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        # The services take the end of their standard input for the end of their supervisor.
        return subprocess.Popen(self._command, env=self._environ, stdin=subprocess.PIPE)


def killed(
    script: str, place: Place, arguments: Sequence[str], meanwhile: Callable[[], object], seconds: float
) -> None:
    """Let a process do something to a ledger for ever, do something beside it, and kill it in the middle.

    Args:
        script: of the process; it gets the tests' folder, the database's URL and the arguments, reads the password from
            its standard input, and writes `ready` when it begins.
        place: the database.
        arguments: beyond that.
        meanwhile: done when it has begun.
        seconds: from then until it is killed.
    """
    command = [sys.executable, "-c", script, str(Path(__file__).parent), place.url, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # A password is on no command line.
        process.stdin.write(place.password + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        meanwhile()
        time.sleep(seconds)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def wait(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def counts_of(settings: Settings, kind: str, name: str, newest: int) -> Counter[str]:
    """How often each value of a dimension is stored; asked in windows, since an answer has a million rows at most.

    Args:
        settings: of the installation.
        kind: of records that end so many seconds after noon as their number is.
        name: of the dimension.
        newest: number of the last one.
    """
    counts: Counter[str] = Counter()
    window = timedelta(days=5)
    wanted = (Wanted(Function.COUNT),)
    with closing(open_monitoring(settings, load_kinds())) as store:
        start = NOON
        while start <= NOON + timedelta(seconds=newest):
            question = Query(kind=kind, wanted=wanted, start=start, end=start + window, by=(name,))
            for row in store.query(question).rows:
                counts[str(row.group[0])] += int(row.values[0] or 0)
            start += window
        question = Query(kind=kind, wanted=wanted, start=NOON - window, end=NOON + timedelta(days=9999))
        assert store.query(question).totals == (counts.total(),)
    return counts


def held(ledger: Ledger, kind: str) -> Counter[bytes]:
    """How often each record of a kind is there, in its table or in a file of the archive."""
    records, archived = ledger.tables_of(kind).records, ledger.common.archived
    found: Counter[bytes] = Counter()
    with ledger.database.read() as connection:
        found.update(bytes(row[0]) for row in connection.execute(select(records.c["_id"])))
        for (ids,) in connection.execute(select(archived.c.ids)):
            found.update(unpacked(bytes(ids)).keys())
    return found
