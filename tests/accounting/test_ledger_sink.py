"""The sink `ledger`: what it books and what it leaves aside, and what it does about a database that is away or full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import msgspec
import pytest
from examples import JOB, NOON, batch_of, job, job_rows
from ledger_databases import Place, prepared
from usage_model import USE, Fields, batch
from viewers import answered

from accounting import LedgerError
from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.sink import LedgerSink, open_sink
from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from collectors.service import collect
from siteward.broker.opening import open_declared, sinks
from siteward.emit import Emitter
from siteward.kinds import load_kinds
from siteward.kinds.booked import booked_kinds
from siteward.records import Refused, kind_from_table, microseconds
from siteward.server.database import Database, DatabaseError
from siteward.settings import AccountingSettings, CollectorSettings, Settings, SettingsError
from siteward.settings_sections import BookedKindSettings
from siteward.sinks import Batch, Outcome, SinkUnavailable
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage

DAY: Final = datetime(2026, 1, 30, tzinfo=UTC)
START: Final = microseconds(DAY)
HOUR: Final = 3_600_000_000
LARGE: Final = 2**31
"""Processors: of 10^9 s wall time four such records fit into a bucket of 64 bits, and five do not."""


def settings_of(place: Place, folder: Path) -> Settings:
    """An installation whose ledger is there, and that feeds nothing else."""
    return Settings(
        data=str(folder / "data"),
        accounting=AccountingSettings(url=place.url, password=place.password),
        collector=CollectorSettings(leave_out=("monitoring", "prometheus")),
    )


@contextmanager
def opened(settings: Settings) -> Iterator[LedgerSink]:
    """The sink."""
    with closing(open_sink(settings, load_kinds())) as sink:
        assert isinstance(sink, LedgerSink)
        yield sink


def jobs_booked(ledger: Ledger) -> tuple[Any, ...]:
    """Records and wall time of all example jobs, the same in both attributions."""
    found = []
    for attribution, quantity in ((Attribution.BY_END, Quantity.RECORDS), (Attribution.PRORATED, Quantity.STARTED)):
        query = UsageQuery(
            kind="job",
            wanted=(WantedUsage(quantity), WantedUsage(Quantity.SUM, "wall_time")),
            start=NOON.replace(hour=0),
            end=NOON.replace(hour=0) + timedelta(days=3),
            attribution=attribution,
        )
        found.append(answered(ledger, query).totals)
    assert found[0] == found[1]
    return found[0]


def test_nothing_configured_is_left_out_and_sqlite(tmp_path: Path) -> None:
    """By default the ledger gets no queue; asked for, it is a file in the data folder."""
    settings = Settings(data=str(tmp_path))
    assert "ledger" not in sinks(settings)
    with opened(settings) as sink:
        assert sink.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3
        assert jobs_booked(sink.ledger) == (3, 3 * 3600)
    assert (tmp_path / "accounting.sqlite").is_file()


def test_kinds_that_are_not_booked_count_as_stored(tmp_path: Path) -> None:
    """Hosts, downtimes and kinds left out have no tables here, and their records do not wait."""
    kinds = load_kinds()
    settings = Settings(data=str(tmp_path), accounting=AccountingSettings(leave_out=("data-operation",)))
    with opened(settings) as sink:
        assert not {*sink.ledger.kinds} & {"host", "downtime", "data-operation"}
        assert {"job", "cloud-vm", "storage-occupancy"} <= {*sink.ledger.kinds}
        for name in ("host", "downtime", "data-operation"):
            left = Batch(kinds[name], [bytes(16)] * 2, {}, ["p"] * 2, [bytes(16)] * 2, 0)
            assert sink.write(left).outcomes == [Outcome.STORED] * 2
    assert {"data-operation", "job"} <= {*booked_kinds(Settings(), kinds)}


def test_wrong_settings_are_named() -> None:
    """A kind that there is not, or whose records are not archived, and a URL of no known database stop the start."""
    with pytest.raises(SettingsError, match=r"accounting.leave_out: no kind is called 'jobs'; did you mean 'job'"):
        open_sink(Settings(accounting=AccountingSettings(leave_out=("jobs",))), load_kinds())
    wrong = {"pilots": "no kind is called 'pilots'; did you", "record-count": "not archived", "host": "not booked"}
    for name, error in wrong.items():
        kept = AccountingSettings(kinds={name: BookedKindSettings(keep_records=9)})
        with pytest.raises(SettingsError, match=f"accounting.kinds.*{error}"):
            open_sink(Settings(accounting=kept), load_kinds())
    with pytest.raises(DatabaseError, match="'oracle' are not known"):
        open_sink(Settings(accounting=AccountingSettings(url="oracle://x:secret@y/z")), load_kinds())


def test_a_ledger_that_waits_for_a_person_does_not_open(ledger_place: Place, tmp_path: Path) -> None:
    """The sink says what differs and what to run; the queue keeps its records meanwhile."""
    settings = settings_of(ledger_place, tmp_path)
    shorter = msgspec.structs.replace(JOB.declaration, products={}, ratios={})
    with closing(Database(ledger_place.url, ledger_place.password)) as database:
        less = type(JOB)(shorter)
        ledger = Ledger(database, {"job": less}, digests=prepare(database, {"job": less}))
        ledger.write(msgspec.structs.replace(batch_of(JOB, job_rows(2)), kind=less))
    with pytest.raises(LedgerError, match=r"core_time.*siteward ledger upgrade"):
        open_sink(settings, load_kinds())


def test_a_database_that_is_away_is_waited_for(ledger_place: Place, tmp_path: Path) -> None:
    """A stopped server makes the sink unavailable, with words of the driver and no password; started, it goes on."""
    if ledger_place.server is None:
        pytest.skip("a file is not away")
    node, settings = ledger_place.server.node, settings_of(ledger_place, tmp_path)
    with opened(settings) as sink:
        sink.write(batch_of(JOB, job_rows(2)))
        node.stop()
        for attempt in (lambda: sink.write(batch_of(JOB, job_rows(5))), lambda: open_sink(settings, load_kinds())):
            with pytest.raises(SinkUnavailable) as caught:
                attempt()
            assert ledger_place.password not in str(caught.value)
            assert "INSERT" not in str(caught.value)
            assert str(caught.value)
        node.start()
        assert sink.write(batch_of(JOB, job_rows(5))).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED] * 3
        assert jobs_booked(sink.ledger) == (5, 5 * 3600)


def test_no_error_shows_a_password(ledger_place: Place, tmp_path: Path) -> None:
    """Neither a wrong password nor one within the URL is in the error, and settings do not show it."""
    if ledger_place.server is None:
        pytest.skip("a file has no password")
    user = ledger_place.server.user
    for secret in ("wrong-but-secret", "p@ss/w:rd"):
        given = AccountingSettings(url=ledger_place.url, password=secret)
        with pytest.raises(SinkUnavailable) as caught:
            open_sink(Settings(data=str(tmp_path), accounting=given), load_kinds())
        assert secret not in str(caught.value) + repr(given)
        assert user in str(caught.value)
    inside = AccountingSettings(url=ledger_place.url.replace(user, f"{user}:inside-secret"))
    with pytest.raises(SinkUnavailable) as caught:
        open_sink(Settings(data=str(tmp_path), accounting=inside), load_kinds())
    assert "inside-secret" not in str(caught.value) + repr(inside)


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_collector_waits_for_a_database_and_goes_on(
    ledger_place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Started without its database, and again when it goes away: records wait in the queue, and each is booked once."""
    if ledger_place.server is None:
        pytest.skip("a file is not away")
    node, settings = ledger_place.server.node, settings_of(ledger_place, tmp_path)
    stop = Event()
    thread = Thread(target=collect, args=(settings, stop, ["ledger"]))

    def emit(first: int) -> None:
        with Emitter(settings) as emitter:
            assert all(emitter.emit(job(number)) is None for number in range(first, first + 100))

    def waiting() -> int:
        with closing(open_declared(settings)) as broker:
            return sum(queue.records or 0 for queue in broker.status())

    node.stop()
    thread.start()
    try:
        emit(0)
        time.sleep(1)
        assert waiting() == 100
        node.start()
        eventually(lambda: waiting() == 0)
        node.kill()
        emit(100)
        time.sleep(1)
        assert waiting() == 100
        node.start()
        eventually(lambda: waiting() == 0)
    finally:
        if not node.is_running:
            node.start()
        stop.set()
        thread.join(60)
    with opened(settings) as sink:
        assert jobs_booked(sink.ledger) == (200, 200 * 3600)
    with DeadLetters(database_path(settings)) as letters:
        assert letters.count() == 0
    said = "".join(capfd.readouterr())
    assert "sink waits" in said
    assert ledger_place.password not in said
    assert "INSERT" not in said


def use(number: int, **changes: Any) -> Fields:
    """A record of an hour."""
    fields: Fields = {
        "vo": "v",
        "start": START,
        "end": START + HOUR,
        "site": "S",
        "user": "u",
        "code": None,
        "name": str(number),
        "wall_time": 10,
        "cpu_time": None,
        "processors": 1,
        "score": None,
        "memory": 0,
        "simulated": False,
        "revision": 0,
        "_id": (START // 1000).to_bytes(6, "big") + number.to_bytes(10, "big"),
    }
    return fields | changes


def test_what_would_overflow_a_bucket_is_set_aside(open_database: Callable[[], Database]) -> None:
    """Of seven records that no bucket of 64 bits holds together four are booked, with all others of the batch."""
    ledger = prepared(open_database(), USE, START)
    records = [use(number) for number in range(40)]
    for number in (3, 4, 17, 20, 21, 30, 39):
        records[number] |= {"wall_time": 10**9, "processors": LARGE}
    written = ledger.write(batch(records))
    assert [written.outcomes.count(each) for each in (Outcome.STORED, Outcome.REJECTED)] == [37, 3]
    for refused in written.reasons.values():
        assert (refused.field, refused.value) == ("core_time", str(10**9 * LARGE))
        assert "does not fit" in refused.reason
    again = ledger.write(batch(records))
    assert [again.outcomes.count(each) for each in (Outcome.DUPLICATE, Outcome.REJECTED)] == [37, 3]
    for attribution in (Attribution.PRORATED, Attribution.BY_END):
        wanted = (WantedUsage(Quantity.SUM, "core_time"), WantedUsage(Quantity.RECORDS))
        query = UsageQuery(kind="use", wanted=wanted, start=DAY, end=DAY + timedelta(days=1), attribution=attribution)
        assert answered(ledger, query).totals == (4 * 10**9 * LARGE + 33 * 10, 37)


def test_one_record_too_many_for_a_full_bucket_is_set_aside(open_database: Callable[[], Database]) -> None:
    """Also where the database itself finds out, since the bucket was nearly full before; a revision is no exception."""
    ledger = prepared(open_database(), USE, START)
    large = {"wall_time": 10**9, "processors": LARGE}
    ledger.write(batch([use(number, **large) for number in range(4)]))
    assert ledger.write(batch([use(4, **large), use(5)])).outcomes == [Outcome.REJECTED, Outcome.STORED]
    revised = ledger.write(batch([use(5, revision=1, **large)]))
    assert revised.outcomes == [Outcome.REJECTED]
    less = ledger.write(batch([use(0, revision=1), use(5, revision=1, **large)]))
    assert less.outcomes == [Outcome.REPLACED] * 2


def test_refusals_name_the_record_and_not_others(open_database: Callable[[], Database]) -> None:
    """The reason of each is its own, in the order of the batch, beside those beyond the kind's limits."""
    ledger = prepared(open_database(), USE, START)
    large = {"wall_time": 10**9, "processors": LARGE}
    records = [use(9, **large), use(2, wall_time=10**12), *(use(number, **large) for number in (5, 1, 7, 3)), use(4)]
    written = ledger.write(batch(records))
    assert {position for position, each in enumerate(written.outcomes) if each is Outcome.REJECTED} == {0, 1}
    assert {position: each.field for position, each in written.reasons.items()} == {0: "core_time", 1: "wall_time"}
    assert all(isinstance(each, Refused) for each in written.reasons.values())


def test_long_texts_of_many_records_are_booked(open_database: Callable[[], Database]) -> None:
    """A batch of more text than a server takes in one statement is no trouble."""
    note = {"doc": "anything", "max_length": 60_000, "bucketed": False}
    declared = {"doc": "A remark.", "shape": "event", "dimensions": {"note": note}}
    kind = kind_from_table("remark", declared)
    ledger = prepared(open_database(), kind, START)
    count = 400
    columns: dict[str, list[Any]] = {"vo": ["v"] * count, "time": [START] * count, "note": ["é" * 60_000] * count}
    columns |= {"simulated": [False] * count, "revision": [0] * count}
    ids = [number.to_bytes(16, "big") for number in range(count)]
    written = ledger.write(Batch(kind, ids, columns, ["p"] * count, [bytes(16)] * count, START))
    assert written.outcomes == [Outcome.STORED] * count
