"""What was asked, as the audit keeps it: without names in its conditions, since an entry is never rewritten."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from siteward.hiding import HIDDEN
from siteward.people import personal_names
from siteward.records import Kind

CONDITION: Final = "where"
"""The parameter whose texts may name people: what a field of theirs is to be."""
SOUGHT: Final = "reason"
"""The parameter that is sought in what was refused, which may name anybody."""
_FIELD: Final = re.compile(r"\s*([^\s=!~<>.]+)[^=!~<>]*[=!~<>]+")
"""How a condition begins: with its field, and what it is to be to the rest."""


class Fields(msgspec.Struct, frozen=True):
    """What conditions may be about.

    Attributes:
        personal: those that name people.
        others: those that name nobody.
    """

    personal: frozenset[str]
    others: frozenset[str]

    @classmethod
    def of(cls, kinds: Iterable[Kind]) -> Fields:
        """Of all kinds; what names people in one is personal."""
        every = tuple(kinds)
        personal = frozenset(personal_names(every))
        return cls(personal, frozenset(name for kind in every for name in kind.column) - personal)


def without_names(name: str, value: str, fields: Fields) -> str:
    """The value of a parameter, or what of it names nobody.

    Of a condition that nobody can read, such as of a mistyped field, nothing is told: it may name anybody.
    """
    if name == SOUGHT:
        return HIDDEN
    if name != CONDITION:
        return value
    found = _FIELD.match(value)
    if found and found[1] in fields.others:
        return value
    return f"{found[0]}{HIDDEN}" if found and found[1] in fields.personal else HIDDEN
