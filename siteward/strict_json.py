"""JSON that two readers cannot take for different things: each name once, and no numbers that JSON does not know."""

from __future__ import annotations

import json
from typing import Final, NoReturn


def strict_json(text: str) -> object:
    """What a text says.

    Raises:
        ValueError: it is not JSON, or a name occurs twice in one object; nested too deeply, too. What stands in it is
            not repeated, since it may be a secret; names are.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            message = f"the name {name[:80]!a} occurs twice"
            raise ValueError(message)
        found[name] = value
    return found


def _no_constant(text: str) -> NoReturn:
    message = f"{text} is not a number of JSON"
    raise ValueError(message)


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)
