"""The reports of a kind, derived from its declaration: of every measure, product and ratio, and of the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from accounting.booking.measures import additive, held
from accounting.ledger import Ledger
from accounting.query.quantities import unit_of
from accounting.query.usage import attributes_of
from siteward.query_text import find_kind
from siteward.records import Kind
from siteward.usage import Attribution, Period, Quantity
from siteward.usage_report import UsageReport
from siteward.usage_text import groupable, parse_wanted_usage

TOP: Final = 10
"""Groups of a total: as many as a chart shows."""
_SPREAD: Final = (Quantity.MIN, Quantity.P50, Quantity.P90, Quantity.P95, Quantity.P99, Quantity.MAX)
_PRORATED: Final = str(Attribution.PRORATED)
_BY_END: Final = str(Attribution.BY_END)
Part = tuple[str, str, tuple[str, ...], str, str]
"""End of the name, title, measures, attribution, period."""


def reports_in(ledger: Ledger, kind: str = "") -> list[UsageReport]:
    """The reports of one kind in a ledger, or of all of them.

    Raises:
        siteward.query.QueryError: there is no kind of that name.
    """
    chosen = [find_kind(kind, ledger.kinds)] if kind else list(ledger.kinds.values())
    attributes = attributes_of(ledger)
    return [report for each in chosen for report in reports_of(each, attributes).values()]


def reports_of(kind: Kind, attributes: Mapping[str, Sequence[str]]) -> dict[str, UsageReport]:
    """The reports of a kind by name.

    Args:
        kind: any kind in the ledger.
        attributes: what the topology tells of the values of dimensions.
    """
    by = tuple(name for name in groupable(kind, attributes) if name != "simulated")
    parts = [*_of_snapshots(kind)] if kind.of_instants else [*_of_records(kind), *_of_measures(kind), *_of_ratios(kind)]
    return {
        f"{kind.name}/{end}": UsageReport(
            name=f"{kind.name}/{end}",
            title=title,
            kind=kind.name,
            measures=measures,
            units=tuple(unit_of(kind, parse_wanted_usage(measure, kind)) for measure in measures),
            attribution=attribution,
            period=period,
            top=TOP if period == Period.WHOLE else 0,
            by=by,
        )
        for end, title, measures, attribution, period in parts
    }


def _of_snapshots(kind: Kind) -> Iterator[Part]:
    at = str(Attribution.AT_INSTANT)
    for name in held(kind):
        doc = kind.products[name].doc if name in kind.products else kind.column[name].doc
        yield f"{name}/mean", f"{doc}, on average", (f"mean:{name}",), at, Period.DAY
        yield f"{name}/last", f"{doc}, when last seen", (f"last:{name}",), at, Period.WHOLE
        yield f"{name}/spread", f"{doc}: least and most", (f"min:{name}", f"max:{name}"), at, Period.DAY
    for name, ratio in kind.ratios.items():
        yield name, f"{ratio.doc}, day by day", (f"ratio:{name}",), at, Period.DAY
    yield "cycles", "how often was looked, and how often not all came", ("cycles", "incomplete"), at, Period.DAY


def _of_records(kind: Kind) -> Iterator[Part]:
    if "records" in kind.column or "records" in kind.products:
        return
    named = f"{kind.name} records"
    yield "records/total", f"number of {named}", ("records",), _BY_END, Period.WHOLE
    yield "records/count", f"number of {named}, day by day", ("records",), _BY_END, Period.DAY
    yield "records/rate", f"{named} per second", ("rate:records",), _BY_END, Period.DAY
    yield "records/cumulative", f"number of {named} so far", ("cumulative:records",), _BY_END, Period.DAY


def _of_measures(kind: Kind) -> Iterator[Part]:
    for name in (*(column.name for column in kind.measures), *kind.products):
        doc = kind.products[name].doc if name in kind.products else kind.column[name].doc
        if name in additive(kind):
            yield f"{name}/total", f"{doc}, in all", (f"sum:{name}",), _PRORATED, Period.WHOLE
            yield f"{name}/sum", f"{doc}, day by day", (f"sum:{name}",), _PRORATED, Period.DAY
            yield f"{name}/rate", f"{doc}, per second", (f"rate:{name}",), _PRORATED, Period.DAY
            yield f"{name}/cumulative", f"{doc}, so far", (f"cumulative:{name}",), _PRORATED, Period.DAY
        yield f"{name}/mean", f"{doc}, on average", (f"mean:{name}",), _BY_END, Period.DAY
        spread = tuple(f"{quantity}:{name}" for quantity in _SPREAD)
        yield f"{name}/spread", f"{doc}: least, percentiles and most", spread, _BY_END, Period.WHOLE


def _of_ratios(kind: Kind) -> Iterator[Part]:
    for name, ratio in kind.ratios.items():
        yield name, f"{ratio.doc}, day by day", (f"ratio:{name}",), _PRORATED, Period.DAY
        yield f"{name}/total", f"{ratio.doc}, in all", (f"ratio:{name}",), _PRORATED, Period.WHOLE
