"""One question's values as SQL: what is computed per record, and what per complete cycle of snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from monitoring.stores.duckdb.tables import quoted, table_name
from monitoring.stores.questions import (
    PERCENTILES,
    combine_of,
    factors_of,
    is_by_cycle,
    is_cycle_mean,
    is_whole,
    may_be_unknown,
)
from siteward.query import Function, Wanted
from siteward.records import Combine, Kind

_IN_LAST: Final = "FILTER (WHERE _at = _last)"
_Columns = dict[str, Wanted]
"""Wanted columns by their place in the result: `_v0`, `_v1` …"""


class Grouping(msgspec.Struct, frozen=True):
    """Which records, in which groups.

    Attributes:
        kind: their kind.
        window: the condition of the window alone; it chooses the cycles.
        filtered: the condition of window and filters; it chooses the records.
        keys: names in the result and their expressions.
        bucket: expression of a record's bucket; "" where all is one bucket.
        join: a further table that the keys refer to.
    """

    kind: Kind
    window: str
    filtered: str
    keys: dict[str, str]
    bucket: str = ""
    join: str = ""

    def select(self, wanted: Sequence[Wanted], *, occupied: bool = False) -> str:
        """The statement: keys, then `_v0`, `_v1` …; `occupied` leaves out the one row of no records."""
        columns = {f"_v{i}": column for i, column in enumerate(wanted)}
        direct = {name: column for name, column in columns.items() if not is_by_cycle(self.kind, column)}
        values = {name: _aggregate(self.kind, column) for name, column in direct.items()}
        if len(direct) < len(columns):
            return self._with_cycles(columns, self._grouped(values | {"_records": "count(*)"}, occupied=occupied))
        return self._grouped(values, occupied=occupied)

    def _grouped(self, values: dict[str, str], source: str = "", *, occupied: bool = False) -> str:
        selected = ", ".join(f"{expression} AS {name}" for name, expression in (self.keys | values).items())
        grouped = f" GROUP BY {', '.join(str(i + 1) for i in range(len(self.keys)))}" if self.keys else ""
        having = " HAVING count(*) > 0" if occupied else ""
        return f"SELECT {selected} FROM {source or self._source()}{grouped}{having}"  # noqa: S608  # bound values.

    def _source(self, cycles: str = "") -> str:
        return f"{table_name(self.kind)}{cycles}{self.join} WHERE {self.filtered}"

    def _with_cycles(self, columns: _Columns, base: str) -> str:
        """Join what is computed per record with what is computed per cycle; groups are those of the records."""
        tables = {"_base": base}
        means = {name: column for name, column in columns.items() if is_cycle_mean(self.kind, column)}
        lasts = {name: column for name, column in columns.items() if column.function is Function.LAST}
        if means:
            tables["_means"] = self._means(means)
        if lasts:
            tables["_lasts"] = self._lasts(lasts)
        joins = "".join(f" LEFT JOIN {table} ON {self._same(table)}" for table in tables if table != "_base")
        selected = ", ".join([*(f"_base.{name}" for name in self.keys), *columns])
        parts = ", ".join(f"{name} AS ({text})" for name, text in tables.items())
        return f"WITH {self._whole()}, {parts} SELECT {selected} FROM _base{joins}"  # noqa: S608  # bound values.

    def _same(self, table: str) -> str:
        return " AND ".join(f"_base.{name} IS NOT DISTINCT FROM {table}.{name}" for name in self.keys) or "TRUE"

    def _whole(self) -> str:
        """Complete cycles, each with the number and the last of its producer's complete cycles in its bucket."""
        bucket = f", any_value({self.bucket}) AS _in" if self.bucket else ""
        partition = f"PARTITION BY _by{', _in' if self.bucket else ''}"
        return (
            f"_cycles AS ({cycles_select(self.kind, self.window, bucket)}), "  # noqa: S608  # bound values.
            "_whole AS MATERIALIZED (SELECT _by, _at, count(*) OVER _all AS _cycle_count, max(_at) OVER _all AS _last "
            f"FROM _cycles WHERE _complete WINDOW _all AS ({partition}))"
        )

    def _seen(self) -> str:
        """The records of complete cycles."""
        time = quoted(self.kind.time)
        return self._source(f' JOIN _whole ON "producer" = _by AND {time} = _at')

    def _means(self, columns: _Columns) -> str:
        """Per producer the sum over its complete cycles by their number, producers added up.

        Where a value may be unknown, each series is averaged over the cycles that know it: an unknown value is
        not zero, an absent series is.
        """
        parts = {"_producer_": "_by", "_cycles_": "_cycle_count"}
        if any(may_be_unknown(self.kind, column.measure) for column in columns.values()):
            parts |= {f"_d{i}": quoted(column.name) for i, column in enumerate(self.kind.dimensions)}
        by_part = msgspec.structs.replace(self, keys=self.keys | parts)
        sums: dict[str, str] = {}
        for name, column in columns.items():
            value = _value(self.kind, column.measure)
            sums |= {f"_sum{name}": _total(self.kind, column.measure), f"_unknown{name}": f"count(*) - count({value})"}
        shares = {name: f"sum(_sum{name} / nullif(_cycles_ - _unknown{name}, 0))" for name in columns}
        by_key = msgspec.structs.replace(self, keys={name: name for name in self.keys})
        return by_key._grouped(shares, f"({by_part._grouped(sums, self._seen())})")  # noqa: SLF001  # of itself.

    def _lasts(self, columns: _Columns) -> str:
        return self._grouped({name: _last(self.kind, column.measure) for name, column in columns.items()}, self._seen())


def cycles_select(kind: Kind, window: str, more: str = "") -> str:
    """Every cycle of the window, `_by` whom and `_at` which instant, and whether all its records are here."""
    return (
        f'SELECT "producer" AS _by, {quoted(kind.time)} AS _at, count(*) = max("cycle_size") AS _complete{more} '  # noqa: S608
        f"FROM {table_name(kind)} WHERE {window} GROUP BY 1, 2"  # bound values.
    )


def _value(kind: Kind, measure: str) -> str:
    """A record's value of a measure or product; products of 64-bit integers need 128."""
    first, *others = map(quoted, factors_of(kind, measure))
    return " * ".join([f"CAST({first} AS HUGEINT)", *others]) if others else first


def _total(kind: Kind, measure: str) -> str:
    """A sum, compensated for floats: a plain one differs with the order in which threads add them up."""
    return f"{'sum' if is_whole(kind, measure) else 'fsum'}({_value(kind, measure)})"


def _aggregate(kind: Kind, wanted: Wanted) -> str:
    if wanted.function is Function.COUNT:
        return "count(*)"
    value = _value(kind, wanted.measure)
    total = _total(kind, wanted.measure)
    match wanted.function:
        case Function.SUM | Function.RATE:
            return total
        case Function.MEAN:
            return f"{total} / nullif(count({value}), 0)"
        case Function.MIN | Function.MAX:
            return f"{wanted.function}({value})"
        case _:
            return f"quantile_cont({value}, {PERCENTILES[wanted.function]})"


def _last(kind: Kind, measure: str) -> str:
    """What a measure was in the last complete cycles; a group absent from them has a sum of zero."""
    value = _value(kind, measure)
    match combine_of(kind, measure):
        case Combine.SUM:
            return (
                f"CASE WHEN count(*) {_IN_LAST} = 0 AND count(*) > 0 THEN 0 ELSE {_total(kind, measure)} {_IN_LAST} END"
            )
        case Combine.MEAN:
            return f"avg({value}) {_IN_LAST}"
        case Combine.MAX:
            return f"max({value}) {_IN_LAST}"
        case Combine.LAST:
            return f"arg_max({value}, (_id_high, _id_low)) {_IN_LAST}"
