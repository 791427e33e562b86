"""People in corrections: named by whoever types and reads them, and by pseudonyms wherever they are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from accounting.corrections.correction import Correction, Draft
from accounting.corrections.figures import Figures
from siteward.people import People
from siteward.pseudonyms import PSEUDONYM
from siteward.query_text import escaped, format_filters, parse_filters
from siteward.records import Kind
from siteward.server.people_table import PeopleTable
from siteward.sight import pseudonym_of, stored


def without_names(draft: Draft, kind: Kind, people: PeopleTable) -> Draft:
    """A correction whose conditions and new values hold pseudonyms; new names are entered.

    Raises:
        siteward.query.QueryError: a pattern means too many people.
        siteward.people.PeopleUnavailable: names cannot be looked up, or entered, now.
    """
    personal = {column.name for column in kind.columns if column.personal}
    filters = parse_filters(draft.selection.where, kind)
    given = dict(draft.given)
    for name in personal & given.keys():
        value = given[name]
        if isinstance(value, str) and value:
            given[name] = code = pseudonym_of(people, name, value)
            if code != value:
                people.enter({code: (name, value)})
    if any(each.field in personal for each in filters):
        where = format_filters(stored(each, people) if each.field in personal else each for each in filters)
        draft = msgspec.structs.replace(draft, selection=msgspec.structs.replace(draft.selection, where=where))
    return msgspec.structs.replace(draft, given=given)


def named_figures(figures: Figures, people: People) -> Figures:
    """Differences with names in place of pseudonyms, for somebody who may see them."""
    named = _naming(people, (value for change in figures.changes for value in change.group))
    return _figures(figures, named)


def named_corrections(corrections: Sequence[Correction], people: People) -> list[Correction]:
    """Corrections with names in place of pseudonyms, for somebody who may see them."""
    named = _naming(people, (value for each in corrections for value in _values(each)))
    return [_named(each, named) for each in corrections]


def _values(correction: Correction) -> Iterable[Any]:
    yield from correction.selection.where
    yield from correction.given.values()
    for figures in (correction.figures, correction.undone):
        for change in figures.changes:
            yield from change.group


def _naming(people: People, values: Iterable[Any]) -> Callable[[str], str]:
    """What puts a name in place of a pseudonym; of those that occur in some values, looked up at once."""
    codes = {code for value in values if isinstance(value, str) for code in PSEUDONYM.findall(value)}
    names = people.names(codes) if codes else {}
    return lambda code: names.get(code, code)


def _named(correction: Correction, named: Callable[[str], str]) -> Correction:
    def in_condition(match: re.Match[str]) -> str:
        return escaped(named(match[0]))

    where = tuple(PSEUDONYM.sub(in_condition, each) for each in correction.selection.where)
    return msgspec.structs.replace(
        correction,
        selection=msgspec.structs.replace(correction.selection, where=where),
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
