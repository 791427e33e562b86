"""Who gets what: routing keys, topic patterns, and the queues that every broker has, one per sink."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

EVERYTHING: Final = "#"


def routing_key(vo: str, kind: str) -> str:
    """`<vo>.<kind>`: VO names contain dots, kind names never do, so the last dot separates them."""
    return f"{vo}.{kind}"


def split_key(key: str) -> tuple[str, str]:
    """The inverse: VO and kind.

    Raises:
        ValueError: the key has no dot.
    """
    vo, dot, kind = key.rpartition(".")
    if not dot or not vo or not kind:
        message = f"routing key {key!r} is not <vo>.<kind>"
        raise ValueError(message)
    return vo, kind


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    """AMQP's topic rules: `*` is one word, `#` any number of words, words are separated by dots."""
    words = [r"[^.]+" if word == "*" else "#" if word == "#" else re.escape(word) for word in pattern.split(".")]
    text = r"\.".join(words)
    text = text.replace(r"\.#\.", r"\.(?:.+\.)?").replace(r"#\.", r"(?:.+\.)?").replace(r"\.#", r"(?:\..+)?")
    return re.compile(text.replace("#", ".*"))


def matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern takes a routing key."""
    return _pattern(pattern).fullmatch(key) is not None


def patterns_for(kinds: Iterable[str] | None) -> tuple[str, ...]:
    """The bindings of a sink that wants these kinds; None is every kind."""
    return (EVERYTHING,) if kinds is None else tuple(f"#.{kind}" for kind in kinds)
