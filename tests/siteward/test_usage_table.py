"""Usage answers in every form: the same figures, exact, each with its attribution."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accounting.query.calendar import periods_of
from siteward.query import Value
from siteward.usage import Attribution, Period, Quantity, UsageAnswer, UsageQuery, UsageRow, ValueType, WantedUsage
from siteward.usage_json import UsageDocument, usage_document
from siteward.usage_table import arrow_bytes, arrow_table, csv_text, data_frame, head, parquet_bytes

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
WIDE = 2**70 + 1
EXACT = 2**62 + 1
"""Fits into 64 bits, and into no float."""
VALUES: tuple[tuple[Value, ...], ...] = ((EXACT, WIDE, 1.5), (None, 3, None))
HEAD = ("start", "end", "attribution", "site", "code", "other", "sum:cpu_time", "cumulative:cpu_time", "mean:cpu_time")


def document(zone: str = "UTC", **changes: Any) -> UsageDocument:
    """An answer with two rows, one of them Other."""
    wanted = tuple(WantedUsage(each, "cpu_time") for each in (Quantity.SUM, Quantity.CUMULATIVE, Quantity.MEAN))
    query = UsageQuery(
        kind="job", wanted=wanted, start=START, end=END, attribution=Attribution.BY_END, by=("site", "code"), top=1
    )
    rows = (UsageRow(START, END, ("S", None), VALUES[0]), UsageRow(START, END, (), VALUES[1], other=True))
    types = (ValueType.INTEGER, ValueType.INTEGER, ValueType.NUMBER)
    answer = UsageAnswer(query=query, rows=rows, totals=(EXACT, WIDE, 2.5), units=("s",) * 3, groups=2, types=types)
    return usage_document(msgspec.structs.replace(answer, **changes), 1.0, ZoneInfo(zone))


def test_dimensions_keep_names_that_other_columns_have() -> None:
    """A kind may call a dimension as a table calls its own columns: these have an underscore then, in every form."""
    by = ("start", "other", "records", "attribution")
    wanted = (WantedUsage(Quantity.RECORDS), WantedUsage(Quantity.SUM, "used"))
    query = UsageQuery(kind="x", wanted=wanted, start=START, end=END, attribution=Attribution.BY_END, by=by, top=1)
    group = ("Monday", "none", None, 7)
    rows = (UsageRow(START, END, group, (3, 4)), UsageRow(START, END, (), (1, EXACT), other=True))
    types = (ValueType.INTEGER, ValueType.INTEGER)
    answer = UsageAnswer(query=query, rows=rows, totals=(4, EXACT), units=("1", "s"), groups=2, types=types)
    said = usage_document(answer, 1.0, ZoneInfo("UTC"))
    names = ["_start", "end", "_attribution", *by, "_other", "_records", "sum:used"]
    assert list(head(said)) == names
    first = [START, END, "by-end", *group, False, 3, 4]
    table = pq.read_table(io.BytesIO(parquet_bytes(said)))
    assert [table.column_names, [column[0].as_py() for column in table]] == [names, first]
    frame = data_frame(said)
    assert list(frame) == names
    assert list(frame.iloc[0].astype(object).where(frame.iloc[0].notna(), None)) == first
    assert str(frame["_records"].dtype) == "Int64"
    assert next(csv.reader(io.StringIO(csv_text(said)))) == names


def test_json_has_its_members_in_one_order() -> None:
    """Integers travel exactly, whatever their size, and the attribution stands beside the question."""
    text = msgspec.json.encode(document())
    assert list(msgspec.json.decode(text)) == [
        "query",
        "attribution",
        "time_zone",
        "columns",
        "units",
        "types",
        "rows",
        "totals",
        "groups",
        "visible",
        "pseudonyms",
        "closed",
        "unfinished",
        "of_records",
        "took_ms",
    ]
    found = msgspec.json.decode(text, type=UsageDocument)
    assert found == document()
    assert (found.attribution, found.totals) == ("by-end", (EXACT, WIDE, 2.5))


def test_csv_has_the_attribution_in_every_line() -> None:
    """Integers are written out, unknown is empty, and Other is no group of that name."""
    found = list(csv.reader(io.StringIO(csv_text(document()))))
    assert found[0] == list(HEAD)
    times = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "by-end"]
    assert found[1] == [*times, "S", "", "false", str(EXACT), str(WIDE), "1.5"]
    assert found[2] == [*times, "", "", "true", "", "3", ""]


def test_the_time_zone_changes_how_instants_are_written_and_nothing_else() -> None:
    """The same instants and figures; the question stays in UTC."""
    there = document("Europe/Zurich")
    assert there.rows == document().rows
    assert there.query == document().query
    assert csv_text(there).splitlines()[1].startswith("2026-01-01T01:00:00+01:00,2026-02-01T01:00:00+01:00,by-end")
    assert arrow_table(there).schema.field("start").type == pa.timestamp("us", tz="Europe/Zurich")
    assert str(data_frame(there)["start"].dtype) == "datetime64[us, Europe/Zurich]"


@pytest.mark.parametrize(
    ("period", "starts", "written"),
    [
        # The clock goes from 02:00 to 03:00, and in autumn from 03:00 to 02:00: an hour that is not, and one twice.
        (
            Period.HOUR,
            [datetime(2026, 3, 29, hour, tzinfo=UTC) for hour in (0, 1, 2)],
            ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"],
        ),
        (
            Period.HOUR,
            [datetime(2026, 10, 25, hour, tzinfo=UTC) for hour in (0, 1, 2)],
            ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"],
        ),
        (
            Period.DAY,
            [datetime(2026, 3, day, tzinfo=UTC) for day in (28, 29, 30)],
            ["2026-03-28T01:00:00+01:00", "2026-03-29T01:00:00+01:00", "2026-03-30T02:00:00+02:00"],
        ),
        (
            Period.DAY,
            [datetime(2026, 10, day, tzinfo=UTC) for day in (24, 25, 26)],
            ["2026-10-24T02:00:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-26T01:00:00+01:00"],
        ),
        (
            Period.MONTH,
            [datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4, 5)],
            ["2026-03-01T01:00:00+01:00", "2026-04-01T02:00:00+02:00", "2026-05-01T02:00:00+02:00"],
        ),
        (
            Period.MONTH,
            [datetime(2026, month, 1, tzinfo=UTC) for month in (10, 11, 12)],
            ["2026-10-01T02:00:00+02:00", "2026-11-01T01:00:00+01:00", "2026-12-01T01:00:00+01:00"],
        ),
    ],
    ids=["hours in spring", "hours in autumn", "days in spring", "days in autumn", "to summer time", "to winter time"],
)
def test_periods_are_the_same_over_a_change_of_clocks(
    period: Period, starts: list[datetime], written: list[str]
) -> None:
    """Each instant has the offset of its own day and hour, is no other one's, and comes back as what it was."""
    edges = list(pairwise(starts))
    assert edges == list(periods_of(starts[0], starts[-1], period))
    there = document("Europe/Zurich", rows=tuple(UsageRow(*each, ("S", None), VALUES[0]) for each in edges))
    # Python calls an hour that comes twice equal to none in another zone; as seconds it is.
    seconds = [(start.timestamp(), end.timestamp()) for start, end in edges]
    assert [(row.start.timestamp(), row.end.timestamp()) for row in there.rows] == seconds
    lines = list(csv.reader(io.StringIO(csv_text(there))))[1:]
    assert [line[:2] for line in lines] == [list(each) for each in pairwise(written)]
    assert [datetime.fromisoformat(each) for line in lines for each in line[:2]] == [
        at for each in edges for at in each
    ]
    for table in (arrow_table, lambda said: pq.read_table(io.BytesIO(parquet_bytes(said)))):
        columns = table(there).select(["start", "end"]).to_pylist()
        assert [(row["start"].timestamp(), row["end"].timestamp()) for row in columns] == seconds
    frame = data_frame(there)
    assert [at.isoformat() for at in frame["start"]] == written[:-1]
    assert [at.isoformat() for at in frame["end"]] == written[1:]


@pytest.mark.parametrize(
    "read",
    [
        arrow_table,
        lambda asked: pa.ipc.open_stream(arrow_bytes(asked)).read_all(),
        lambda asked: pq.read_table(io.BytesIO(parquet_bytes(asked))),
    ],
)
def test_arrow_and_parquet_keep_integers_and_attribution(read: Any) -> None:
    """Beyond 64 bits they are decimals; attribution, question, units and totals are in the metadata too."""
    table = read(document())
    assert tuple(table.schema.names) == HEAD
    first, other = table.to_pylist()
    assert (first["sum:cpu_time"], first["cumulative:cpu_time"], first["mean:cpu_time"]) == (EXACT, Decimal(WIDE), 1.5)
    assert (first["site"], first["code"], first["other"], first["attribution"]) == ("S", None, False, "by-end")
    assert (other["site"], other["other"], other["sum:cpu_time"]) == (None, True, None)
    assert table.schema.metadata[b"siteward.attribution"] == b"by-end"
    assert msgspec.json.decode(table.schema.metadata[b"siteward.totals"])["cumulative:cpu_time"] == WIDE
    assert table.schema.field("sum:cpu_time").metadata == {b"unit": b"s"}


def test_a_data_frame_keeps_integers() -> None:
    """As Int64 where they fit, else as Python's own; numbers are floats, and the attribution is a column."""
    frame = data_frame(document())
    assert tuple(frame.columns) == HEAD
    assert str(frame["sum:cpu_time"].dtype) == "Int64"
    assert int(frame["sum:cpu_time"][0]) == EXACT
    assert frame["sum:cpu_time"].isna().tolist() == [False, True]
    assert frame["cumulative:cpu_time"].tolist() == [WIDE, 3]
    assert str(frame["mean:cpu_time"].dtype) == "float64"
    assert frame["attribution"].tolist() == ["by-end"] * 2
    assert frame.attrs["attribution"] == "by-end"
    assert isinstance(frame, pd.DataFrame)


def test_no_rows_have_the_same_columns() -> None:
    """An answer without rows has every column, and the figures' columns have their types."""
    empty = document(rows=())
    assert csv_text(empty).strip() == ",".join(HEAD)
    assert arrow_table(empty).schema.field("mean:cpu_time").type == pa.float64()
    assert str(data_frame(empty)["sum:cpu_time"].dtype) == "Int64"
    assert head(document(query=document_query(top=0)))[5] == "sum:cpu_time"


def document_query(**changes: Any) -> UsageQuery:
    wanted = tuple(WantedUsage(each, "cpu_time") for each in (Quantity.SUM, Quantity.CUMULATIVE, Quantity.MEAN))
    return UsageQuery(kind="job", wanted=wanted, start=START, end=END, by=("site", "code"), **changes)


def test_integers_beyond_38_digits_are_refused_by_arrow() -> None:
    """No reader of Parquet would agree on them; JSON and CSV have them as they are."""
    rows = (UsageRow(START, END, ("S", None), (10**40, 0, None)),)
    with pytest.raises(OverflowError, match="ask for JSON or CSV"):
        arrow_table(document(rows=rows))
    assert str(10**40) in csv_text(document(rows=rows))
