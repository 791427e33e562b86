"""People in corrections: named by whoever types and reads them, and by pseudonyms wherever they are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from accounting.corrections.correction import Correction, CorrectionError, Draft
from accounting.corrections.figures import Figures
from accounting.ledger import Ledger
from accounting.tables import is_bucketed
from siteward.people import People
from siteward.pseudonyms import PSEUDONYM, is_pseudonym
from siteward.query_text import escaped, format_filters, parse_filters
from siteward.records import Kind
from siteward.sight import stored

Names = dict[str, tuple[str, str]]
"""Dimension and name by pseudonym."""


class Unnamed(msgspec.Struct, frozen=True):
    """A correction without names, and the names that its new values had, to be entered where it is kept."""

    draft: Draft
    names: Names


def without_names(ledger: Ledger, draft: Draft, kind: Kind, people: People) -> Unnamed:
    """A correction whose conditions and new values hold pseudonyms. A pattern means whoever is in the ledger now.

    Raises:
        siteward.query.QueryError: a pattern is to be found among too many people.
        CorrectionError: a new value is a pseudonym, behind which somebody would have to be found.
        siteward.people.PeopleUnavailable: names cannot be looked up now.
    """
    personal = _personal(kind)
    given, names = dict(draft.given), Names()
    for name in personal & given.keys():
        value = given[name]
        if isinstance(value, str) and value:
            if is_pseudonym(value):
                message = f"{name}={value}: a pseudonym; give the name of whose the records are"
                raise CorrectionError(message)
            given[name] = code = people.pseudonym(name, value)
            names[code] = (name, value)

    def present(field: str) -> Iterable[Any]:
        tables = ledger.tables_of(kind.name)
        table = tables.series if is_bucketed(kind.column[field]) else tables.records
        with ledger.database.read() as connection:
            return connection.execute(select(table.c[field]).distinct()).scalars().all()

    filters = parse_filters(draft.selection.where, kind)
    if any(each.field in personal for each in filters):
        told = [stored(each, people, present) if each.field in personal else each for each in filters]
        draft = msgspec.structs.replace(
            draft, selection=msgspec.structs.replace(draft.selection, where=format_filters(told))
        )
    return Unnamed(msgspec.structs.replace(draft, given=given), names)


def has_pattern_of_people(draft: Draft, kind: Kind) -> bool:
    """Whether a condition is a pattern of names: what it means tells who is in the ledger."""
    return any(each.wildcard and each.field in _personal(kind) for each in parse_filters(draft.selection.where, kind))


def named_figures(figures: Figures, people: People, names: Names | None = None) -> Figures:
    """Differences with names in place of pseudonyms, for somebody who may see them.

    Args:
        figures: the differences.
        people: who is known.
        names: who is not yet: those that the correction brings.
    """
    typed = {code: name for code, (_, name) in (names or {}).items()}
    return _figures(figures, _naming(people, (value for change in figures.changes for value in change.group), typed))


def named_corrections(corrections: Sequence[Correction], people: People, *, conditions: bool) -> list[Correction]:
    """Corrections with names in place of pseudonyms, for somebody who may see them.

    Args:
        corrections: as they are kept.
        people: who is known.
        conditions: also in conditions, in which anybody may have been named, of whichever VO.
    """
    named = _naming(people, (value for each in corrections for value in _values(each)))
    return [_named(each, named, conditions=conditions) for each in corrections]


def _personal(kind: Kind) -> set[str]:
    return {column.name for column in kind.columns if column.personal}


def _values(correction: Correction) -> Iterable[Any]:
    yield from correction.selection.where
    yield from correction.given.values()
    for figures in (correction.figures, correction.undone):
        for change in figures.changes:
            yield from change.group


def _naming(people: People, values: Iterable[Any], typed: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """What puts a name in place of a pseudonym; of those that occur in some values, looked up at once."""
    codes = {code for value in values if isinstance(value, str) for code in PSEUDONYM.findall(value)}
    names = {**(typed or {}), **(people.names(codes) if codes else {})}
    return lambda code: names.get(code, code)


def _named(correction: Correction, named: Callable[[str], str], *, conditions: bool) -> Correction:
    def in_condition(match: re.Match[str]) -> str:
        return escaped(named(match[0]))

    selection = correction.selection
    if conditions:
        where = tuple(PSEUDONYM.sub(in_condition, each) for each in selection.where)
        selection = msgspec.structs.replace(selection, where=where)
    return msgspec.structs.replace(
        correction,
        selection=selection,
        given={name: named(value) if isinstance(value, str) else value for name, value in correction.given.items()},
        figures=_figures(correction.figures, named),
        undone=_figures(correction.undone, named),
    )


def _figures(figures: Figures, named: Callable[[str], str]) -> Figures:
    changes = tuple(
        msgspec.structs.replace(
            each, group=tuple(named(value) if isinstance(value, str) else value for value in each.group)
        )
        for each in figures.changes
    )
    return msgspec.structs.replace(figures, changes=changes)
