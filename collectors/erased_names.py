"""Names of erased people in refused records, whatever their form: found as texts of JSON, stood for by pseudonyms."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from collectors.dead_letters import Letter
from siteward.people import personal_names
from siteward.records import Kind
from siteward.server.people_table import PeopleTable

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_KEY: Final = re.compile(rb"\s*:")
Naming = Callable[[str, str], str]
"""What stands for a text in a field; the text itself where it is nobody's name. "" is no field."""


def texts_of(original: bytes, kind: Kind | None) -> Iterator[tuple[re.Match[bytes], str, str]]:
    """The texts of a refused record that may name somebody, each with its place and the field that it is said for.

    Args:
        original: JSON, as far as it is.
        kind: of the record, if it is known: what it declares otherwise names nobody.
    """
    field = ""
    for match in _TEXT.finditer(original):
        try:
            text = json.loads(match[0])
        except ValueError:
            continue
        if _KEY.match(original, match.end()):
            field = text
        elif kind is None or field not in kind.column or kind.column[field].personal:
            yield match, field, text


def renamed(original: bytes, kind: Kind | None, naming: Naming) -> bytes:
    """A refused record with other texts for some, and else byte by byte as it came."""
    parts, last = [], 0
    for match, field, text in texts_of(original, kind):
        name = naming(field, text)
        if name != text:
            parts += [original[last : match.start()], json.dumps(name).encode()]
            last = match.end()
    return b"".join([*parts, original[last:]])


def stand_in(codes: Mapping[str, str], people: PeopleTable, field: str) -> str:
    """What stands for somebody in a field, so that the record can be sent again.

    Args:
        codes: the person's pseudonym by dimension; at least one.
        people: what seals it.
        field: in which the name is; any other than a dimension of people is told by the first of them.
    """
    return people.sealed(codes[field] if field in codes else next(iter(codes.values())))


def without_erased(letters: Sequence[Letter], kinds: Mapping[str, Kind], people: PeopleTable) -> list[Letter]:
    """Refused records in which nobody is named who was erased.

    Raises:
        siteward.people.PeopleUnavailable: it is not known now who was.
    """
    dimensions = personal_names(kinds.values())
    texts = {
        text for each in letters for _, _, text in texts_of(each.original, kinds.get(each.kind)) if text.isprintable()
    }
    codes = {people.pseudonym(dimension, text): (dimension, text) for text in texts for dimension in dimensions}
    gone = {person.pseudonym for person in people.find(codes) if person.erased is not None}
    erased: dict[str, dict[str, str]] = {}
    for code, (dimension, text) in codes.items():
        if code in gone:
            erased.setdefault(text, {})[dimension] = code

    def naming(field: str, text: str) -> str:
        return stand_in(erased[text], people, field) if text in erased else text

    if not erased:
        return list(letters)
    return [
        msgspec.structs.replace(each, original=renamed(each.original, kinds.get(each.kind), naming)) for each in letters
    ]
