"""The text form of a question for completeness, and its answer as it travels, for HTTP and CLI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from accounting.completeness.cadence import SPREADS
from accounting.completeness.comparing import Asked, Completeness, Expected, Producer
from siteward.query import QueryError
from siteward.query_text import find_kind
from siteward.query_window import format_time
from siteward.records import Kind
from siteward.usage_window import parse_usage_window

MOST_SPREADS = 100


class CompletenessText(msgspec.Struct, frozen=True, kw_only=True):
    """A question as it is typed.

    Attributes:
        kinds: names; () for all in the ledger.
        producers: names; () for all.
        window: a calendar word, as in siteward.usage_text.UsageText.
        start: first instant; days are whole. Without window and start: the last seven days.
        end: first instant after the last day.
        spreads: beyond what is usual, at which something is missing.
        gaps: only that of which something is missing.
    """

    kinds: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    window: str = ""
    start: str = ""
    end: str = ""
    spreads: int = SPREADS
    gaps: bool = False


class ExpectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """See accounting.completeness.comparing.Expected; instants are RFC 3339."""

    kind: str
    producer: str
    scope: str
    start: str
    end: str
    model: str
    expected: int | None
    spread: int
    came: int
    missing: int
    why: str


class ProducerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A producer for people: see `accounting.completeness.comparing`; seconds, and 0 where it is not silent."""

    kind: str
    producer: str
    last: str
    silent: bool
    usual_interval: int
    spread: int
    overdue: int


class CompletenessDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The answer.

    Attributes:
        start: first instant of the window.
        end: first instant after it.
        spreads: beyond what is usual, at which something is missing.
        rows: by kind, producer and time.
        producers: those that sent records within the last nine weeks.
        missing: of all rows.
    """

    start: str
    end: str
    spreads: int
    rows: tuple[ExpectedRow, ...]
    producers: tuple[ProducerRow, ...]
    missing: int


def parse_completeness(text: CompletenessText, kinds: Mapping[str, Kind], now: datetime) -> Asked:
    """The question that a text asks.

    Raises:
        QueryError: naming the part at fault and what is possible.
    """
    if not 1 <= text.spreads <= MOST_SPREADS:
        message = f"spreads: expected 1 to {MOST_SPREADS}, got {text.spreads}"
        raise QueryError(message)
    start = text.start or ("" if text.window else "-7d")
    first, last = parse_usage_window(text.window, start, text.end, now)
    return Asked(
        start=int(first.timestamp()),
        end=int(last.timestamp()),
        kinds=tuple(find_kind(name, kinds).name for name in text.kinds),
        producers=text.producers,
        spreads=text.spreads,
    )


def completeness_document(answer: Completeness, asked: Asked, *, gaps: bool) -> CompletenessDocument:
    """An answer as it travels; with `gaps`, only what is missing and who is silent."""
    rows = [_row(each) for each in answer.rows if each.missing or each.why or not gaps]
    producers = [_producer(each) for each in answer.producers if each.silence or not gaps]
    return CompletenessDocument(
        start=_time(asked.start),
        end=_time(asked.end),
        spreads=asked.spreads,
        rows=tuple(rows),
        producers=tuple(producers),
        missing=sum(each.missing for each in answer.rows),
    )


def _row(expected: Expected) -> ExpectedRow:
    return ExpectedRow(
        kind=expected.kind,
        producer=expected.producer,
        scope=expected.scope,
        start=_time(expected.start),
        end=_time(expected.end),
        model=str(expected.model),
        expected=expected.expected,
        spread=expected.spread,
        came=expected.came,
        missing=expected.missing,
        why=expected.why,
    )


def _producer(producer: Producer) -> ProducerRow:
    silence = producer.silence
    return ProducerRow(
        kind=producer.kind,
        producer=producer.producer,
        last=_time(producer.last),
        silent=silence is not None,
        usual_interval=silence.usual if silence else 0,
        spread=silence.spread if silence else 0,
        overdue=silence.overdue if silence else 0,
    )


def columns_of(rows: Sequence[msgspec.Struct]) -> list[list[object]]:
    """Rows for a table, in the order of their fields."""
    return [list(msgspec.structs.astuple(row)) for row in rows]


def _time(second: int) -> str:
    return format_time(datetime.fromtimestamp(second, UTC))
