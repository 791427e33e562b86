"""A backend of the library `keyring` that keeps in a file, and fails as a test says; and what keeps log-ins in it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keyring.errors
import msgspec
from keyring.backend import KeyringBackend

from siteward.oauth.logins import Login, keep, kept_token

SILENT = "silent"
"""How an operation fails that does nothing, and says nothing."""


class DBusError(Exception):
    """One that no base class of the library's knows."""


class FileRing(KeyringBackend):
    """In the file that RING names. RING_GET, RING_SET and RING_DELETE say by which error each operation fails."""

    priority = 5.0

    def get_password(self, service: str, username: str) -> str | None:
        """What is kept."""
        return None if _fails("GET") else _kept().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep it."""
        if not _fails("SET", password):
            _keep(_kept() | {f"{service} {username}": password})

    def delete_password(self, service: str, username: str) -> None:
        """Keep it no more."""
        name = f"{service} {username}"
        if name not in _kept():
            message = "No such password!"
            raise keyring.errors.PasswordDeleteError(message)
        if not _fails("DELETE"):
            _keep({each: text for each, text in _kept().items() if each != name})


def _fails(operation: str, told: str = "the bus is gone") -> bool:
    """Fail as the environment says; whether it fails in silence."""
    name = os.environ.get(f"RING_{operation}", "")
    if name and name != SILENT:
        kinds = {"OSError": OSError, "RuntimeError": RuntimeError, "DBusError": DBusError}
        raise (kinds.get(name) or getattr(keyring.errors, name))(told)
    return bool(name)


def _kept() -> dict[str, str]:
    file = Path(os.environ["RING"])
    kept: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return kept


def _keep(kept: dict[str, str]) -> None:
    Path(os.environ["RING"]).write_text(json.dumps(kept), encoding="utf-8")


def main() -> None:
    """Keep the log-in, or tell the token of the one, that the arguments say."""
    url, *given = sys.argv[1:]
    if given:
        keep(url, msgspec.json.decode(given[0], type=Login))
    else:
        sys.stdout.write(kept_token(url, lambda login: login))


if __name__ == "__main__":
    main()
