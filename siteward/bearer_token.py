"""Which token our programs send: found where the WLCG bearer token discovery says, the same for every tool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

LONGEST: Final = 16 * 2**10
FALLBACK: Final = Path("/tmp")  # noqa: S108  # the place that the discovery names; the file has to be the user's own.


class NoTokenError(ValueError):
    """A token was promised and is not there; the message says where it was sought."""

    permanent = True


def discovered_token(environ: Mapping[str, str] | None = None) -> str:
    """The user's token (WLCG Bearer Token Discovery 1.0): the first of these that is there, "" where none is.

    `BEARER_TOKEN`; the file that `BEARER_TOKEN_FILE` names; `bt_u<uid>` in `XDG_RUNTIME_DIR`, or else in /tmp.

    Raises:
        NoTokenError: `BEARER_TOKEN_FILE` names a file that cannot be read.
    """
    given = given_token(environ)
    return found_token(environ) if given is None else given


def given_token(environ: Mapping[str, str] | None = None) -> str | None:
    """The token that somebody has named, in `BEARER_TOKEN` or by `BEARER_TOKEN_FILE`; None where nothing is named.

    Raises:
        NoTokenError: `BEARER_TOKEN_FILE` names a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    if environ.get("BEARER_TOKEN", "").strip():
        return environ["BEARER_TOKEN"].strip()
    if environ.get("BEARER_TOKEN_FILE"):
        path = Path(environ["BEARER_TOKEN_FILE"])
        try:
            return _read(path)
        except OSError as error:
            message = f"BEARER_TOKEN_FILE: {error}"
            raise NoTokenError(message) from error
    return None


def found_token(environ: Mapping[str, str] | None = None) -> str:
    """The token that lies where tools of the grid leave one, whomever it is for; or ""."""
    environ = os.environ if environ is None else environ
    name = f"bt_u{os.geteuid()}"
    folder = Path(environ["XDG_RUNTIME_DIR"]) if environ.get("XDG_RUNTIME_DIR") else FALLBACK
    with suppress(OSError):
        # In a folder of everybody's, somebody else could have put one there to learn what is sent with it.
        if (folder / name).lstat().st_uid == os.geteuid():
            return _read(folder / name)
    return ""


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(LONGEST).strip()
