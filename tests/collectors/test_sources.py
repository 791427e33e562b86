"""Importing a log: what each line becomes, and that nothing is lost, doubled or hidden on the way."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from collectors.cli.imports import import_file
from collectors.sources import Options, Read, SourceError
from collectors.sources.importing import Checkpoint, ImportStopped, Tally, checkpoint_of, import_rows
from collectors.sources.swf import source
from siteward import extensions
from siteward.broker.opening import open_broker
from siteward.cli.options import Options as GlobalOptions
from siteward.records import Kind, Refused, Row, microseconds, moment
from siteward.settings import Settings

HEADER = """; UnixStartTime: 1000000000
; Installation: First Laboratory
; Queue: 2 day
; Partition: 1 ce.example.org
"""
NOW = microseconds(datetime(2026, 3, 3, tzinfo=UTC))
OPTIONS = Options(vo="example", site="SITE-A")


def line(number: int = 9, **changes: int) -> str:
    """One line of a log; a job that ran well unless changed."""
    values = {
        "number": number,
        "submit": 100,
        "wait": 4,
        "run": 16,
        "processors": 2,
        "cpu": 8,
        "memory": 512,
        "requested": 2,
        "time": 7200,
        "memory_requested": -1,
        "status": 1,
        "user": 3,
        "group": 5,
        "application": 7,
        "queue": 2,
        "partition": 1,
        "preceding": -1,
        "think": -1,
    }
    return " ".join(map(str, (values | changes).values())) + "\n"


def read(text: str, options: Options = OPTIONS, position: int = 0) -> list[Read]:
    return list(source.rows(io.BytesIO(text.encode()), options, position, NOW))


def row(text: str) -> Any:
    (found,) = read(HEADER + text)
    assert found.row is not None, found
    return found.row


def test_registered() -> None:
    """The source is found by its name."""
    assert extensions.load("siteward.sources", "swf") is source


def test_mapping() -> None:
    """A job's times, use and names come out as the format defines them, averages multiplied."""
    job = row(line())
    assert moment(job.start) == datetime.fromtimestamp(1_000_000_104, UTC)
    assert moment(job.end) == datetime.fromtimestamp(1_000_000_120, UTC)
    assert (job.wall_time, job.queue_time, job.processors) == (16, 4, 2)
    assert (job.cpu_time, job.memory) == (16, 2 * 512 * 1024)
    assert (job.site, job.vo, job.submit_host, job.local_job_id) == ("SITE-A", "example", "First Laboratory", "9")
    assert (job.compute_element, job.queue) == ("ce.example.org", "day")
    assert (job.user, job.group, job.application) == ("3", "5", "7")
    assert (job.state, job.exit_status, job.simulated) == ("completed", None, False)


def test_quantities_of_the_header() -> None:
    """Where the header says that a quantity is per job, it is not multiplied by the processors."""
    notes = (
        "; Note: The 'mem_used' column relates to: quantity=per_job\n"
        "; Note: The 'cpu_used' column relates to: quantity=per_job\n"
    )
    job = row(notes + line())
    assert (job.cpu_time, job.memory) == (8, 512 * 1024)


@pytest.mark.parametrize(("status", "state"), [(1, "completed"), (0, "failed"), (5, "cancelled"), (-1, "unknown")])
def test_state(status: int, state: str) -> None:
    """Each status has its state."""
    assert row(line(status=status)).state == state


def test_unknown_values() -> None:
    """-1 is unknown: no value for measures, an empty text for names."""
    job = row(line(cpu=-1, memory=-1, wait=-1, user=-1, group=-1, application=-1, queue=-1, partition=-1))
    assert (job.cpu_time, job.memory, job.queue_time) == (None, None, None)
    assert (job.user, job.group, job.application, job.queue, job.compute_element) == ("", "", "", "", "")


def test_names_that_the_header_has_not() -> None:
    """A queue or partition without a name is called by its number."""
    job = row(line(queue=8, partition=9))
    assert (job.queue, job.compute_element) == ("8", "9")


def test_cancelled_before_it_started() -> None:
    """A job without processors used nothing, and is a record all the same, at the instant it left the queue."""
    job = row(line(processors=0, run=-1, cpu=-1, memory=-1, status=5))
    assert (job.wall_time, job.processors, job.state) == (0, 0, "cancelled")
    assert job.start == job.end == 1_000_000_104_000_000
    assert job.cpu_time is None


def test_requested_processors_stand_in() -> None:
    """Where the processors allocated are unknown, those requested are booked."""
    assert row(line(processors=-1)).processors == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": -1}, "job.run: is unknown, so that nothing can be booked"),
        ({"processors": -1, "requested": -1}, "job.processors: is unknown, so that nothing can be booked"),
        ({"submit": -1}, "job.submit: is unknown, so that nothing says when the job ran"),
        ({"status": 9}, "job.state: expected one of completed"),
        ({"submit": 10**18}, "job.start: lies outside 1990 to 2100"),
        ({"run": -7}, "job.wall_time: "),
        ({"submit": 3 * 10**9 - 10**9}, "job.end: lies more than 1 d in the future"),
    ],
)
def test_unusable_line(changes: dict[str, int], reason: str) -> None:
    """A line that cannot be a record is given with its number and a reason that names the field."""
    found = read(HEADER + line() + line(**changes) + line())
    assert [read.position for read in found] == [5, 6, 7]
    assert found[1].row is None
    assert found[1].malformed.startswith(reason)


@pytest.mark.parametrize("status", [2, 3, 4])
def test_partial_executions_are_not_counted_twice(status: int) -> None:
    """Bursts of a swapped job are in its summary line already: they are passed over, and said to be."""
    found = read(HEADER + line() + line(status=status))
    assert found[1].row is None
    assert not found[1].malformed
    assert "partial execution" in found[1].passed


def test_header_without_start() -> None:
    """A log that does not say when it begins is refused as a whole."""
    with pytest.raises(SourceError, match="UnixStartTime"):
        read(line())


def test_log_without_a_name() -> None:
    """A log that does not say where it is from needs an option, which keeps ids of different logs apart."""
    text = "; UnixStartTime: 1000000000\n" + line()
    with pytest.raises(SourceError, match="--submit-host"):
        read(text)
    (named,) = read(text, Options("example", "SITE-A", "my-log"))
    (other,) = read(text, Options("example", "SITE-A", "other-log"))
    assert named.row is not None
    assert other.row is not None
    assert source.kind.id_of(named.row) != source.kind.id_of(other.row)


@given(st.lists(st.integers(-(10**19), 10**19), min_size=18, max_size=18))
def test_any_numbers(values: list[int]) -> None:
    """Eighteen numbers of any size give a valid row or a reason, never an error."""
    (found,) = read(HEADER + " ".join(map(str, values)) + "\n")
    assert (found.row is not None) + bool(found.malformed) + bool(found.passed) == 1


class Gathered:
    """Stands for the Emitter: keeps rows, and can fail at a given one."""

    def __init__(self, fail_at: int = -1, error: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        self.rows: list[Row] = []
        self.flushed = 0
        self._fail_at = fail_at
        self._error = error

    def emit_row(self, kind: Kind, row: Row) -> Refused | None:
        assert kind is source.kind
        if len(self.rows) == self._fail_at:
            raise self._error()
        self.rows.append(row)
        return None

    def flush(self, timeout: float) -> bool:
        assert timeout > 0
        self.flushed = len(self.rows)
        return True

    def ids(self) -> list[bytes]:
        return [source.kind.id_of(row) for row in self.rows]


def run_import(text: bytes, emitter: Gathered, checkpoint: Checkpoint, told: list[tuple[int, str]]) -> Tally:
    return import_rows(
        source,
        io.BytesIO(text),
        OPTIONS,
        emitter,
        checkpoint,
        now=NOW,
        malformed=lambda position, reason: told.append((position, reason)),
    )


LOG = (HEADER + "".join(line(number) for number in range(50)) + "what is this\n" + line(50)).encode()


def test_import(tmp_path: Path) -> None:
    """Everything that can be read is emitted and flushed, the rest is told, and the checkpoint is gone."""
    emitter, told, path = Gathered(), list[tuple[int, str]](), tmp_path / "checkpoint.json"
    tally = run_import(LOG, emitter, Checkpoint(path), told)
    assert tally == Tally(position=56, imported=51, malformed=1)
    assert told == [(55, "has 3 columns, expected 18")]
    assert emitter.flushed == len(set(emitter.ids())) == 51
    assert not path.exists()


@pytest.mark.parametrize("place", [0, 1, 23, 50])
def test_interrupted_import_goes_on(tmp_path: Path, place: int) -> None:
    """An interrupted import continues where it was, so that both parts together are the whole, each record once."""
    checkpoint = Checkpoint(tmp_path / "checkpoint.json")
    first, second, told = Gathered(place), Gathered(), list[tuple[int, str]]()
    with pytest.raises(KeyboardInterrupt):
        run_import(LOG, first, checkpoint, told)
    assert first.flushed == place
    tally = run_import(LOG, second, checkpoint, told)
    assert len(first.ids() + second.ids()) == len({*first.ids(), *second.ids()}) == 51
    assert tally == Tally(position=56, imported=51, malformed=1)
    assert len(told) == 1


def test_killed_import_repeats_harmlessly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill without warning the rows since the last checkpoint come again, with the same ids."""
    monkeypatch.setattr("collectors.sources.importing.CHECKPOINT_ROWS", 10)
    checkpoint = Checkpoint(tmp_path / "checkpoint.json")
    first, second = Gathered(37, SystemError), Gathered()
    with pytest.raises(SystemError):
        run_import(LOG, first, checkpoint, [])
    assert checkpoint.load().imported == first.flushed > 0
    run_import(LOG, second, checkpoint, [])
    assert {*first.ids(), *second.ids()} == set(map(source.kind.id_of, (r.row for r in read(LOG.decode()) if r.row)))
    assert 51 < len(first.rows) + len(second.rows) <= 61


def test_refused_rows_stop_the_import(tmp_path: Path) -> None:
    """An emitter that takes no more ends the import, with what was taken in the checkpoint."""

    class Full(Gathered):
        def emit_row(self, kind: Kind, row: Row) -> Refused | None:
            return Refused("spool is full") if len(self.rows) == 5 else super().emit_row(kind, row)

    checkpoint = Checkpoint(tmp_path / "checkpoint.json")
    with pytest.raises(ImportStopped, match="spool is full"):
        run_import(LOG, Full(), checkpoint, [])
    assert checkpoint.load().imported == 5


def test_broken_off_file(tmp_path: Path) -> None:
    """A truncated file is imported up to the break, which is an error that says how much came before."""
    text = HEADER + "".join(line(number, submit=number * 37 % 1000) for number in range(30_000))
    packed = gzip.compress(text.encode())
    emitter = Gathered()
    with pytest.raises(SourceError, match=r"beyond line \d+.*imported before that: \d+ records"):
        run_import(packed[: len(packed) // 2], emitter, Checkpoint(tmp_path / "checkpoint.json"), [])
    assert emitter.flushed == len(emitter.rows) > 1000


def test_checkpoint_belongs_to_content_and_options(tmp_path: Path) -> None:
    """Another content, source or option is another import; the file's name does not matter."""

    def path(content: bytes, options: Options = OPTIONS, name: str = "swf") -> Path:
        file = io.BytesIO(content)
        checkpoint = checkpoint_of(tmp_path, name, options, file)
        assert file.tell() == 0
        return checkpoint._path

    others = [
        path(LOG),
        path(LOG + b"\n"),
        path(LOG, Options("other", "SITE-A")),
        path(LOG, Options("example", "SITE-B")),
        path(LOG, Options("example", "SITE-A", "host")),
        path(LOG, name="other"),
    ]
    assert len(set(others)) == len(others)
    assert path(LOG) == others[0]


def test_unreadable_checkpoint(tmp_path: Path) -> None:
    """A damaged checkpoint means to begin anew, which ids make harmless."""
    path = tmp_path / "checkpoint.json"
    path.write_bytes(b'{"position": ')
    assert Checkpoint(path).load() == Tally()


def command(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """`siteward import` with a data folder of its own: exit code, standard output, standard error."""
    app = typer.Typer()
    app.command()(import_file)
    given = GlobalOptions(output="json")
    given.__dict__["settings"] = Settings(data=str(tmp_path / "data"))
    result = CliRunner().invoke(app, arguments, obj=given)
    return result.exit_code, result.stdout, result.stderr


def queued(tmp_path: Path) -> int:
    broker = open_broker(Settings(data=str(tmp_path / "data")))
    try:
        return sum(status.records or 0 for status in broker.status())
    finally:
        broker.close()


def test_command(tmp_path: Path) -> None:
    """`siteward import` emits into the broker, tells malformed lines with number and reason, and exits with 1."""
    path = tmp_path / "log.swf"
    path.write_bytes(LOG)
    code, out, err = command(tmp_path, "swf", str(path), "--vo", "example", "--site", "SITE-A")
    assert code == 1
    assert '"imported":51,"malformed":1' in out
    assert "line 55: has 3 columns" in err
    assert queued(tmp_path) == 51


def test_command_limits_what_it_tells(tmp_path: Path) -> None:
    """Twenty malformed lines are told one by one, more are counted."""
    path = tmp_path / "log.swf"
    path.write_text(HEADER + line() + "nothing\n" * 33)
    _, _, err = command(tmp_path, "swf", str(path), "--vo", "example", "--site", "SITE-A")
    assert err.count("has 1 columns") == 20
    assert "and 13 more malformed lines" in err


def test_command_without_malformed_lines(tmp_path: Path) -> None:
    """An import in which every line was good exits with 0."""
    path = tmp_path / "log.swf"
    path.write_text(HEADER + line())
    assert command(tmp_path, "swf", str(path), "--vo", "example", "--site", "SITE-A")[0] == 0


def test_command_with_another_format(tmp_path: Path) -> None:
    """A file that is no such log is refused in one sentence, without a trace."""
    path = tmp_path / "log.swf"
    path.write_text("hello\n")
    code, _, err = command(tmp_path, "swf", str(path), "--vo", "example", "--site", "SITE-A")
    assert code == 1
    assert "UnixStartTime" in err
    assert "Traceback" not in err


def test_lpc_totals(lpc_log: Path) -> None:
    """The whole LPC log: use per partition and month, jobs and wall time per user, and states agree with plain sums."""
    expected: Counter[tuple[str, str, str]] = Counter()
    names = {"1": "clrglop195.in2p3.fr", "2": "clrce01.in2p3.fr", "3": "clrce02.in2p3.fr"}
    with gzip.open(lpc_log, "rt") as file:
        for text in file:
            if text.startswith(";") or not text.strip():
                continue
            words = text.split()
            submit, wait, run, processors, cpu, status, user = (int(words[i]) for i in (1, 2, 3, 4, 5, 10, 11))
            used = max(run, 0)
            month = datetime.fromtimestamp(1091615532 + submit + wait + used, UTC).strftime("%Y-%m")
            expected["core", names[words[15]], month] += used * processors
            expected["jobs", "", "" if user < 0 else str(user)] += 1
            expected["wall", "", "" if user < 0 else str(user)] += used
            expected["status", "", {0: "failed", 1: "completed", 5: "cancelled"}[status]] += 1
            expected["cpu", "", ""] += max(cpu, 0)
            expected["wait", "", ""] += wait
    found: Counter[tuple[str, str, str]] = Counter()
    ids: set[bytes] = set()
    with lpc_log.open("rb") as opened:
        for item in source.rows(opened, OPTIONS, 0, NOW):
            job: Any = item.row
            found["core", job.compute_element, moment(job.end).strftime("%Y-%m")] += job.wall_time * job.processors
            found["jobs", "", job.user] += 1
            found["wall", "", job.user] += job.wall_time
            found["status", "", job.state] += 1
            found["cpu", "", ""] += job.cpu_time or 0
            found["wait", "", ""] += job.queue_time
            ids.add(source.kind.id_of(job))
    assert len(ids) == 234_889
    assert +found == +expected
