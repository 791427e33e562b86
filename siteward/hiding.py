"""What stands in place of a secret wherever settings are shown: in logs, traces and answers."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "hidden"
"""Shown in place of a secret."""
_PASSWORD: Final = re.compile(r"(://[^:]*):.*@", re.DOTALL)
"""The password within a URL, up to the last @: one that is not percent-encoded may hold anything."""
_HOLDS: Final = re.compile(r"[^:/?#]+://[^:/?#@\[\]]*:(?!\d+[/?#])[^@]+@", re.DOTALL)
"""The beginning of a URL with a password before its host, which may hold what should be percent-encoded, as those that
databases take; a port and what follows it is none."""
_PARAMETER: Final = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key|sig)[^=&#]*=)[^&#]+", re.IGNORECASE)
"""A parameter of a URL that is called like a secret."""


def holds_password(url: str) -> bool:
    """Whether a URL has a password before its host; `without_password` hides more than that."""
    return _HOLDS.match(url) is not None


def without_password(text: str) -> str:
    """A text with the password hidden, if it is a URL with one, and what parameters hold that are called like one."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1:{HIDDEN}@", text))
