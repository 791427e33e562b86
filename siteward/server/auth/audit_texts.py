"""How entries of the audit are written: whatever is noted has to fit, and to be text for every database."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from siteward.server.auth.roles import EVERY
from siteward.server.auth.token_text import LONGEST_NAME

LONGEST_STATE: Final = 100_000
"""Bytes of what something was, or became; more is cut off, and said to be."""
CUT: Final = {"cut": "it was too long to be kept here"}
_HALVES: Final = re.compile("[\ud800-\udfff]")
"""Halves of characters, which are no text; somebody sends them, and is refused."""


def vo_names(vos: Collection[str]) -> tuple[str, ...]:
    """VOs in order, each once; what is about all is about each."""
    return (EVERY,) if EVERY in vos else tuple(sorted({plain(vo, LONGEST_NAME) for vo in vos if vo}))


def plain(text: str, longest: int) -> str:
    """A text without the character that PostgreSQL has no room for."""
    return text.replace("\0", "\\0")[:longest]


def written(state: object) -> bytes:
    """What something was, or became, as it is stored."""
    try:
        data = msgspec.json.encode(state, enc_hook=str)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(state, enc_hook=str, str_keys=True), ensure_ascii=False)
        data = _HALVES.sub("\N{REPLACEMENT CHARACTER}", text).encode()
    return data if len(data) <= LONGEST_STATE else msgspec.json.encode(CUT)


def read(data: bytes) -> Any:  # noqa: ANN401  # whatever was noted.
    """What was stored."""
    return msgspec.json.decode(bytes(data))
