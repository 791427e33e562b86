"""Signatures of closed months: a digest over figures as of closing that anybody can compute again."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, FromClause, column, func, select, table
from sqlalchemy.sql import ColumnElement

from accounting.booking.adjustments import ALL_VOS, PeriodState
from accounting.ledger import Ledger
from accounting.periods.closed_months import ClosedMonth, closed_period, meaning_of, periods_in
from accounting.periods.closing import note_signature
from accounting.tables import CLOSING, RECORDS, SERIES, START, KindTables
from accounting.upkeep.months import month_end

VO: Final = "vo"
Figures = dict[bytes, list[int]]
"""Sums in the order of their names, by the dimensions as MessagePack."""


class Verified(msgspec.Struct, frozen=True):
    """What looking at a signed month came to.

    Attributes:
        kind: whose.
        month: its name, such as `2026-10`.
        vo: whose figures; "*" of all VOs.
        signed_by: who stands for it.
        signed: the digest that was signed.
        computed: the digest of its figures as of closing, as they are in the ledger now.
        changed: measures that were declared otherwise when it was closed, so that their figures cannot be compared.
    """

    kind: str
    month: str
    vo: str
    signed_by: str
    signed: str
    computed: str
    changed: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether the figures are what was signed."""
        return self.signed == self.computed


def sign(ledger: Ledger, kind: str, month: int, by: str, vo: str = ALL_VOS) -> ClosedMonth:
    """Stand for the figures of a closed month, of a VO or of all.

    Raises:
        PeriodError: it is not closed.
    """
    with ledger.database.read() as connection:
        period = closed_period(connection, ledger.common.periods, kind, month, vo)
        digest = digest_of_period(connection, ledger, period)
    return note_signature(ledger, period, by, digest)


def verified_periods(ledger: Ledger, kind: str = "") -> Iterator[Verified]:
    """Every signed month, of a kind or of all, compared with what was signed."""
    for period in periods_in(ledger, kind):
        if period.state is not PeriodState.SIGNED or period.kind not in ledger.tables:
            continue
        with ledger.database.read() as connection:
            computed = digest_of_period(connection, ledger, period)
        now = meaning_of(ledger.tables[period.kind].kind).sums
        changed = tuple(name for name, formula in period.meaning.sums.items() if now.get(name, formula) != formula)
        yield Verified(period.kind, period.name, period.vo, period.signed_by, period.digest, computed, changed)


def digest_of_period(connection: Connection, ledger: Ledger, period: ClosedMonth) -> str:
    """SHA-256 over a closed month's by-end figures as of closing, 64 hexadecimal digits.

    Over kind, month, names and every combination of dimensions that holds anything, in order, as MessagePack; where it
    is not over every VO, also over whose it is and whom it leaves out. Tiers, compaction, numbers of series, the
    database, and what the kind has gained since make no difference.
    """
    figures = figures_as_of_closing(connection, ledger, period)
    head = (period.kind, period.name, period.meaning.dimensions, tuple(period.meaning.sums))
    whose = () if period.is_every else (period.vo, period.without)
    digest = sha256(msgspec.msgpack.encode((*head, *whose)))
    for group in sorted(figures):
        if any(figures[group]):
            digest.update(group + msgspec.msgpack.encode([str(value) for value in figures[group]]))
    return digest.hexdigest()


def has_figures(ledger: Ledger, period: ClosedMonth) -> bool:
    """Whether anything that ended in the month, of those whose it is, is booked; what was moved away leaves zeros."""
    tables = ledger.tables[period.kind]
    series, records = tables.by_end.c[SERIES], tables.by_end.c[RECORDS]
    question = (
        select(series)
        .select_from(_joined(tables.by_end, tables.series))
        .where(*_within(tables.by_end, period, is_adjusting=False), *_of_vos(tables.series, period))
        .group_by(series)
        .having(func.sum(records) != 0)
        .limit(1)
    )
    with ledger.database.read() as connection:
        return connection.execute(question).first() is not None


def figures_as_of_closing(connection: Connection, ledger: Ledger, period: ClosedMonth) -> Figures:
    """The present by-end sums of a closed month less its adjustments."""
    tables = ledger.tables[period.kind]
    found = _sums(connection, ledger, tables, period, tables.by_end.name)
    for group, values in _sums(connection, ledger, tables, period, tables.adjustments.name).items():
        present = found.setdefault(group, [0] * len(values))
        found[group] = [one - other for one, other in zip(present, values, strict=True)]
    return found


def _sums(connection: Connection, ledger: Ledger, tables: KindTables, period: ClosedMonth, name: str) -> Figures:
    # By the names that were kept: columns that the kind has lost are still in the tables.
    meaning, dialect = period.meaning, ledger.database.dialect
    sums = table(name, *(column(each) for each in (START, SERIES, CLOSING, *meaning.sums)))
    series = table(tables.series.name, *(column(each) for each in dict.fromkeys((SERIES, VO, *meaning.dimensions))))
    parts = [dialect.exact_sum(sums.c[each]) for each in meaning.sums]
    by = [series.c[each] for each in meaning.dimensions]
    question = (
        select(*by, *(part for found in parts for part in found))
        .select_from(_joined(sums, series))
        .where(*_within(sums, period, is_adjusting=name == tables.adjustments.name), *_of_vos(series, period))
        .group_by(*by)
    )
    found: Figures = {}
    for row in connection.execute(question):
        values = iter(row[len(by) :])
        totals = [dialect.whole([next(values) for _ in part]) for part in parts]
        found[_key(row[: len(by)])] = totals
    return found


def _joined(sums: FromClause, series: FromClause) -> FromClause:
    return sums.join(series, sums.c[SERIES] == series.c[SERIES])


def _within(sums: FromClause, period: ClosedMonth, *, is_adjusting: bool) -> list[ColumnElement[bool]]:
    if is_adjusting:
        return [sums.c[CLOSING] == period.closing]
    return [sums.c[START] >= period.month, sums.c[START] < month_end(period.month)]


def _of_vos(series: FromClause, period: ClosedMonth) -> list[ColumnElement[bool]]:
    if period.is_every:
        return []
    return [series.c[VO].not_in(period.without) if period.vo == ALL_VOS else series.c[VO] == period.vo]


def _key(values: Any) -> bytes:  # noqa: ANN401  # a part of a row.
    return msgspec.msgpack.encode([int(value) if isinstance(value, bool) else value for value in values])
