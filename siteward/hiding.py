"""What stands in place of a secret wherever settings are shown: in logs, traces and answers."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "hidden"
"""Shown in place of a secret."""
_PASSWORD: Final = re.compile(r"(://[^:]*):.*@", re.DOTALL)
"""The password within a URL, up to the last @: one that is not percent-encoded may hold anything."""


def without_password(text: str) -> str:
    """A text with the password hidden, if it is a URL with one."""
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", text)
