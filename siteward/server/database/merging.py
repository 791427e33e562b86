"""How rows of one key become one: columns add up, keep the least, the greatest, or what was said last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from sqlalchemy import Column, FromClause, Table, case, func, select
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import Label

_INFO: Final = "siteward.merge"


class Merge(StrEnum):
    """What becomes of one column."""

    ADD = "add"
    LEAST = "least"
    """The smaller one; of a known and an unknown value the known one."""
    GREATEST = "greatest"
    LATEST = "latest"
    """That of the row which says more in another column, known or not."""


class Rule(msgspec.Struct, frozen=True):
    """How a column merges.

    Attributes:
        merge: what becomes of it.
        by: for LATEST, the column that decides; itself GREATEST.
    """

    merge: Merge
    by: str = ""


_ADD: Final = Rule(Merge.ADD)
_LATEST: Final = "_latest"


def merged_by(column: Column[Any], rule: Rule) -> Column[Any]:
    """The same column, which merges by a rule; others add up."""
    column.info[_INFO] = rule
    return column


def rule_of(column: Column[Any]) -> Rule:
    """How a column merges."""
    found: Rule = column.info.get(_INFO, _ADD)
    return found


class Spelling(msgspec.Struct, frozen=True):
    """How a database says it in an insertion.

    Attributes:
        present: a column of the row that is there.
        given: a column of the row that comes.
        least: the smaller of two values.
        greatest: the larger of two.
    """

    present: Callable[[str], str]
    given: Callable[[str], str]
    least: str = "LEAST"
    greatest: str = "GREATEST"


def assignments(table: Table, names: Iterable[str], spelling: Spelling) -> Mapping[str, str]:
    """What each column becomes, in the order in which it is to be said.

    MariaDB assigns one after the other: what is decided by a column comes before that column changes.
    """
    rules = {name: rule_of(table.c[name]) for name in names}
    ordered = sorted(rules, key=lambda name: rules[name].merge is not Merge.LATEST)
    return {name: _merged(name, rules[name], spelling) for name in ordered}


def _merged(name: str, rule: Rule, spelling: Spelling) -> str:
    old, new = spelling.present(name), spelling.given(name)
    match rule.merge:
        case Merge.ADD:
            return f"{old} + {new}"
        case Merge.LATEST:
            is_later = f"{spelling.given(rule.by)} > {spelling.present(rule.by)}"
            return f"CASE WHEN {is_later} THEN {new} ELSE {old} END"
        case _:
            function = spelling.least if rule.merge is Merge.LEAST else spelling.greatest
            # What databases make of an unknown value differs.
            return f"COALESCE({function}({old}, {new}), {old}, {new})"


def merged_rows(table: Table, source: FromClause) -> Iterator[Label[Any]]:
    """Aggregates that make one row of each group's rows, for every column that is no key, under its name.

    Args:
        table: whose rows they are.
        source: from `with_latest`.
    """
    for column in table.columns:
        rule = rule_of(column)
        if column.primary_key:
            continue
        mine = source.c[column.name]
        match rule.merge:
            case Merge.ADD:
                merged: ColumnElement[Any] = func.sum(mine)
            case Merge.LEAST:
                merged = func.min(mine)
            case Merge.GREATEST:
                merged = func.max(mine)
            case Merge.LATEST:
                merged = func.max(case((source.c[rule.by] == source.c[_LATEST + rule.by], mine)))
        yield merged.label(column.name)


def with_latest(table: Table, source: FromClause, group: Sequence[ColumnElement[Any]]) -> FromClause:
    """A source of a table's rows with, in each, the greatest value of its group in every column that decides."""
    deciding = dict.fromkeys(rule.by for column in table.columns if (rule := rule_of(column)).merge is Merge.LATEST)
    latest = [func.max(source.c[name]).over(partition_by=group).label(_LATEST + name) for name in deciding]
    return select(*source.c, *latest).subquery() if latest else source
