"""The text form of a question to the ledger, for HTTP and CLI: `cpu_time`, `rate:core_time`, `2026-Q1`, `by-end`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from siteward.query import QueryError
from siteward.query_text import check_top, each_once, find_kind, find_named, format_filters, parse_filters
from siteward.query_window import format_time
from siteward.records import Column, Dimension, Kind, Type
from siteward.usage import OF_RECORDS, AsOf, Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.usage_window import parse_usage_window

NO_ATTRIBUTES: Final[Mapping[str, Sequence[str]]] = {}
ALONE: Final = (
    Quantity.RECORDS,
    Quantity.STARTED,
    Quantity.INSTANTS,
    Quantity.CYCLES,
    Quantity.INCOMPLETE,
)
"""What takes no measure."""
CHANNEL: Final = "channel"
"""What a kind with both ends is grouped by as one value, `A→B`, unless it has a dimension of that name."""
ENDS: Final = ("source", "destination")
_PERCENTILE: Final = re.compile(r"[pP][-0-9].*")
"""What means to be one."""


class UsageText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question as it is typed.

    Attributes:
        kind: name of the kind.
        measures: what to compute: a measure or product alone is its sum, of snapshots its mean, a ratio itself; else
            `rate:core_time`, `mean:wall_time`, `cumulative:cpu_time`, `p95:wall_time` and any other whole percentile,
            `records`, `started`; of snapshots also `mean-present:used`, `last:used`, `last-known:used`, `instants`,
            `cycles`, `incomplete`.
        by: dimensions to group by, or attributes in the topology of those in buckets, such as `site.country`. Of
            others, such as `node`, and of whole-number measures, such as `processors`, records have to be there.
        where: conditions on the same, as in siteward.query_text.QueryText.
        window: a calendar word: `2026`, `2026-Q1`, `2026-03`, `last-month` …; "" takes start and end.
        start: first instant: RFC 3339, a date, relative to now such as `-30d`, or a calendar word's first instant.
        end: first instant after the window, in the same forms. Without any of the three: this month until now.
        attribution: `prorated` or `by-end`, of snapshots `at-instant`; "" is `prorated`, or `at-instant`.
        period: one row for each `hour`, `day`, `week`, `month`, `quarter` or `year`, in UTC; or `whole`.
        top: number of groups kept; 0 keeps all.
        as_of: figures of closed months: `present`, or by end as of their `closing`.
    """

    kind: str
    measures: tuple[str, ...] = ("records",)
    by: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    window: str = ""
    start: str = ""
    end: str = ""
    attribution: str = ""
    period: str = str(Period.WHOLE)
    top: int = 0
    as_of: str = str(AsOf.PRESENT)


def parse_usage(
    text: UsageText,
    kinds: Mapping[str, Kind],
    now: datetime,
    attributes: Mapping[str, Sequence[str]] = NO_ATTRIBUTES,
) -> UsageQuery:
    """The question that a text asks.

    Args:
        text: as it was typed.
        kinds: every known kind by name.
        now: what `now` and relative times mean; aware.
        attributes: what the topology tells of the values of dimensions.

    Raises:
        QueryError: naming the part at fault and what is possible.
    """
    kind = find_kind(text.kind, kinds)
    if not text.measures:
        message = "measures: ask for at least one, such as records"
        raise QueryError(message)
    fields = groupable(kind, attributes) | of_records(kind)
    start = text.start or ("" if text.window or text.end else "this-month")
    first, last = parse_usage_window(text.window, start, text.end, now)
    return UsageQuery(
        kind=kind.name,
        wanted=each_once("measure", [parse_wanted_usage(measure, kind) for measure in text.measures]),
        start=first,
        end=last,
        attribution=_attribution(text.attribution, kind),
        by=each_once("dimension", [_find_dimension(name, kind, fields).name for name in text.by]),
        filters=parse_filters(text.where, kind, fields),
        period=find_named(text.period, {str(each): each for each in Period}, "period"),
        top=check_top(text.top),
        as_of=find_named(text.as_of, {str(each): each for each in AsOf}, "state to ask for"),
    )


def attributions_of(kind: Kind) -> tuple[Attribution, ...]:
    """Those that a kind has, the usual one first."""
    return (Attribution.AT_INSTANT,) if kind.of_instants else (Attribution.PRORATED, Attribution.BY_END)


def _attribution(text: str, kind: Kind) -> Attribution:
    usual, *others = attributions_of(kind)
    known = {str(each): each for each in (usual, *others)}
    return find_named(text, known, f"known attribution of {kind.name}") if text else usual


def format_usage(query: UsageQuery) -> UsageText:
    """The inverse of parse_usage, with an absolute window.

    Raises:
        QueryError: a filter has no condition, and so no text.
    """
    return UsageText(
        kind=query.kind,
        measures=tuple(wanted.name for wanted in query.wanted),
        by=query.by,
        where=format_filters(query.filters),
        start=format_time(query.start),
        end=format_time(query.end),
        attribution=str(query.attribution),
        period=str(query.period),
        top=query.top,
        as_of=str(query.as_of),
    )


def bucketed(kind: Kind) -> dict[str, Column]:
    """The dimensions by which the ledger keeps a kind's totals."""
    return {
        column.name: column for column in kind.dimensions if isinstance(column.role, Dimension) and column.role.bucketed
    }


def of_records(kind: Kind) -> dict[str, Column]:
    """What only the records tell of a group: dimensions that are in no bucket, and measures by their values.

    What was at instants is asked by what is in buckets.
    """
    if kind.of_instants:
        return {}
    known = bucketed(kind)
    dimensions = {column.name: column for column in kind.dimensions if column.name not in known}
    return dimensions | by_value(kind)


def by_value(kind: Kind) -> dict[str, Column]:
    """The measures of which records have equal values, such as processors: whole numbers that each record says itself.

    Those of a counter say how long it has been counting.
    """
    if kind.of_instants:
        return {}
    return {
        column.name: column
        for column in kind.measures
        if column.type is Type.INTEGER and column.name not in kind.counters
    }


def bases_of(kind: Kind, name: str) -> tuple[str, ...]:
    """The dimensions from which a group of a name is told: of `site.country` the site, of `channel` both ends."""
    first = name.partition(".")[0]
    return ENDS if first == CHANNEL and CHANNEL not in kind.column else (first,)


def groupable(kind: Kind, attributes: Mapping[str, Sequence[str]]) -> dict[str, Column]:
    """The same, what the topology tells of them (`site.country`), and the channels between two of them.

    What is told from a person's name is as personal as the name.
    """
    dimensions = bucketed(kind)
    names = [f"{name}.{attribute}" for name in dimensions for attribute in attributes.get(name, ())]
    if CHANNEL not in kind.column and all(end in dimensions for end in ENDS):
        of_both = [each for each in attributes.get(ENDS[0], ()) if each in attributes.get(ENDS[1], ())]
        names += [CHANNEL, *(f"{CHANNEL}.{attribute}" for attribute in of_both)]
    return dimensions | {name: _told(kind, name) for name in names}


def _told(kind: Kind, name: str) -> Column:
    personal = any(kind.column[base].personal for base in bases_of(kind, name))
    first, _, attribute = name.partition(".")
    doc = f"{attribute} of the {first}" if attribute else f"{ENDS[0]} and {ENDS[1]}"
    return Column(name, Type.STRING, Dimension(doc, personal=personal))


def _find_dimension(name: str, kind: Kind, fields: Mapping[str, Column]) -> Column:
    return find_named(name, fields, f"dimension of {kind.name} in the ledger")


def parse_wanted_usage(text: str, kind: Kind) -> WantedUsage:
    """One column: `cpu_time`, `rate:core_time`, `efficiency`, `records`.

    Raises:
        QueryError: unknown quantity or measure, or one without the other.
    """
    measures = [*(column.name for column in kind.measures), *kind.products]
    first, colon, measure = text.partition(":")
    if not colon and not _is_quantity(first):
        # Snapshots added up over time are what nobody means.
        usual = Quantity.MEAN if kind.of_instants else Quantity.SUM
        plain = dict.fromkeys(measures, usual) | dict.fromkeys(kind.ratios, Quantity.RATIO)
        names = plain | dict.fromkeys(map(str, ALONE), usual)
        return WantedUsage(find_named(first, names, f"measure of {kind.name}"), first)
    quantity = _quantity(first)
    if quantity in ALONE:
        if colon:
            message = f"{text[:80]!r}: {quantity} takes no measure; write {quantity}"
            raise QueryError(message)
        return WantedUsage(quantity)
    counted = [str(Quantity.RECORDS)] if quantity in OF_RECORDS else []
    known, what = (list(kind.ratios), "ratio") if quantity is Quantity.RATIO else ([*measures, *counted], "measure")
    if quantity.hundredths is not None and not kind.of_instants:
        known += kind.ratios
    if not measure:
        hint = f", such as {quantity}:{known[0]}" if known else ""
        message = f"{text[:80]!r}: of which {what}? Write {quantity}:{what.upper()}{hint}"
        raise QueryError(message)
    return WantedUsage(quantity, find_named(measure, {name: name for name in known}, f"{what} of {kind.name}"))


def _is_quantity(text: str) -> bool:
    try:
        Quantity(text)
    except ValueError:
        return False
    return True


def _quantity(text: str) -> Quantity:
    if _is_quantity(text):
        return Quantity(text)
    if _PERCENTILE.fullmatch(text):
        message = f"{text[:80]!r} is not a percentile that can be asked for; there are p1 to p99, by whole numbers"
        raise QueryError(message)
    return find_named(text, {str(each): each for each in Quantity}, "quantity")
