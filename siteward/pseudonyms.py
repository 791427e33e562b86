"""Pseudonyms of people: keyed, so that nobody without the key can tell whether a name belongs to one."""

from __future__ import annotations

import hmac
import re
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from siteward.exposure import SHORTEST_TOKEN
from siteward.private_files import make_private, read_private
from siteward.settings import Settings, SettingsError

DIGITS: Final = 20
"""Hexadecimal ones: among a million people two with the same are not to be expected in 10^12 installations."""
PSEUDONYM: Final = re.compile(rf"pseudonym-[0-9a-f]{{{DIGITS}}}", re.ASCII)
"""The form of each."""


def pseudonym(key: bytes, dimension: str, value: str) -> str:
    """What stands for a value of a dimension, in every kind: the same for the same key, and else unrelated."""
    code = hmac.new(key, f"{dimension}\0{value}".encode(), sha256)
    return f"pseudonym-{code.hexdigest()[:DIGITS]}"


def sealed(key: bytes, code: str) -> str:
    """A pseudonym in a form that nobody without the key can make: it stands for a name that records do not bring."""
    return f"{code}.{_seal(key, code)}"


def unsealed(key: bytes, text: str) -> str:
    """The pseudonym of a text that was sealed with this key; "" of any other text."""
    code, _, seal = text.partition(".")
    is_sealed = is_pseudonym(code) and hmac.compare_digest(seal.encode(), _seal(key, code).encode())
    return code if is_sealed else ""


def _seal(key: bytes, code: str) -> str:
    return hmac.new(key, f"sealed\0{code}".encode(), sha256).hexdigest()[:DIGITS]


def is_pseudonym(text: str) -> bool:
    """Whether a text has the form of one."""
    return PSEUDONYM.fullmatch(text) is not None


def pseudonym_key(settings: Settings) -> bytes:
    """The key of this installation: `access.pseudonym_key`, else `pseudonym.key` of the data folder.

    The file is made by whoever first needs it, for its owner's eyes only.

    Raises:
        SettingsError: it is so short that it can be guessed, or the file can neither be read nor made.
    """
    path = settings.folder / "pseudonym.key"
    key, place = settings.access.pseudonym_key, "setting access.pseudonym_key"
    if not key:
        key, place = _kept(path), f"file {path}"
    if len(key) < SHORTEST_TOKEN:
        message = f"{place}: expected at least {SHORTEST_TOKEN} random characters"
        raise SettingsError(message)
    return key.encode()


def _kept(path: Path) -> str:
    try:
        with suppress(FileNotFoundError):
            return _read(path)
        make_private(path, f"{secrets.token_hex(32)}\n".encode())
        return _read(path)
    except OSError as error:
        message = f"file {path}: {error.strerror or error}"
        raise SettingsError(message) from error


def _read(path: Path) -> str:
    return read_private(path).decode("utf-8", "replace").strip()
