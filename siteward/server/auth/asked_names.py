"""What was asked, as the audit keeps it: without names in its conditions, since an entry is never rewritten."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from siteward.hiding import HIDDEN

CONDITION: Final = "where"
"""The parameter whose texts may name people: what a field of theirs is to be."""
SOUGHT: Final = "reason"
"""The parameter that is sought in what was refused, which may name anybody."""
_FIELD: Final = re.compile(r"\s*([^\s=!~<>.]+)[^=!~<>]*[=!~<>]+")
"""How a condition begins: with its field, and what it is to be to the rest."""


def without_names(name: str, value: str, personal: Collection[str]) -> str:
    """The value of a parameter, or what of it names nobody.

    Args:
        name: of the parameter.
        value: its text.
        personal: dimensions that name people.
    """
    if name == SOUGHT:
        return HIDDEN
    found = _FIELD.match(value) if name == CONDITION else None
    return f"{found[0]}{HIDDEN}" if found and found[1] in personal else value
