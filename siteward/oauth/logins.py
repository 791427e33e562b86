"""Where the tokens of `siteward login` are kept: in the desktop's keyring, or in a file for their owner only."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from siteward.private_files import make_private, read_private
from siteward.settings import SettingsError

SERVICE: Final = "siteward"
"""Under which the keyring keeps them."""
MARGIN: Final = 60.0
"""Seconds before its end from which on a token is not sent any more, but a new one asked for."""


class Login(msgspec.Struct, frozen=True):
    """One log-in at one app. Never shown.

    Attributes:
        issuer: whose tokens.
        client: the name by which they were asked for.
        access: what is sent.
        refresh: gets a new one; "" without.
        ends: second since 1970 UTC at which `access` is over; 0 where that is not known.
    """

    issuer: str
    client: str
    access: str
    refresh: str
    ends: float

    def __repr__(self) -> str:
        """Nothing of its tokens."""
        return f"{type(self).__name__}(issuer={self.issuer!r}, …)"


class Keeper(Protocol):
    """Keeps log-ins by the app's address."""

    def find(self, url: str) -> Login | None:
        """That of an app; None without."""

    def keep(self, url: str, login: Login) -> None:
        """Keep one in place of any older one."""

    def forget(self, url: str) -> None:
        """Keep none of an app any more."""


class FileKeeper:
    """In one file, mode 0600."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first log-in."""
        self.path = path

    def find(self, url: str) -> Login | None:
        """That of an app.

        Raises:
            SettingsError: others may read the file, or it is not ours.
        """
        return self._read().get(url)

    def keep(self, url: str, login: Login) -> None:
        """Keep one."""
        self._write(self._read() | {url: login})

    def forget(self, url: str) -> None:
        """Keep none of an app any more."""
        self._write({each: login for each, login in self._read().items() if each != url})

    def _read(self) -> dict[str, Login]:
        try:
            return msgspec.json.decode(read_private(self.path), type=dict[str, Login])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            message = f"{self.path}: not what was written there: {error}"
            raise SettingsError(message) from error

    def _write(self, logins: Mapping[str, Login]) -> None:
        make_private(self.path, msgspec.json.encode(logins), replacing=True)


class KeyringKeeper:
    """In the keyring that the desktop offers."""

    def __init__(self, keyring: Any) -> None:  # noqa: ANN401  # the library is optional.
        """Take the library."""
        self._keyring = keyring

    def find(self, url: str) -> Login | None:
        """That of an app; None where the keyring is locked, too: whoever never logged in is not held up by it."""
        from keyring.errors import KeyringError  # noqa: PLC0415  # only where there is one.

        try:
            found = self._keyring.get_password(SERVICE, url)
            return msgspec.json.decode(found, type=Login) if found else None
        except (KeyringError, msgspec.DecodeError):
            return None

    def keep(self, url: str, login: Login) -> None:
        """Keep one.

        Raises:
            SettingsError: the keyring is locked.
        """
        from keyring.errors import KeyringError  # noqa: PLC0415  # as above.

        try:
            self._keyring.set_password(SERVICE, url, msgspec.json.encode(login).decode())
        except KeyringError as error:
            message = f"the keyring takes nothing: {error}; unlock it"
            raise SettingsError(message) from error

    def forget(self, url: str) -> None:
        """Keep none of an app any more."""
        if self._keyring.get_password(SERVICE, url) is not None:
            self._keyring.delete_password(SERVICE, url)


def folder_of(environ: Mapping[str, str]) -> Path:
    """Where this user's programs keep what is theirs (XDG Base Directory Specification)."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "siteward"


def keeper(environ: Mapping[str, str] | None = None) -> Keeper:
    """The keyring, where the library is installed and has one that is safe to use; else the file."""
    environ = os.environ if environ is None else environ
    ring = _keyring()
    return KeyringKeeper(ring) if ring is not None else FileKeeper(folder_of(environ) / "logins.json")


def _keyring() -> Any:  # noqa: ANN401  # the library is optional.
    try:
        import keyring  # noqa: PLC0415  # optional, and slow to load.
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        # Those that keep nothing, or keep it in the clear, say so by their priority.
        return keyring if keyring.get_keyring().priority >= 1 else None
    except (KeyringError, RuntimeError):
        return None


def keep(url: str, login: Login, environ: Mapping[str, str] | None = None) -> None:
    """Keep a log-in in place of any older one, whatever other commands keep at this moment."""
    with _alone(folder_of(os.environ if environ is None else environ)):
        keeper(environ).keep(url, login)


def forget(url: str, environ: Mapping[str, str] | None = None) -> Login | None:
    """Keep none of an app any more; the one that there was."""
    with _alone(folder_of(os.environ if environ is None else environ)):
        kept = keeper(environ)
        found = kept.find(url)
        if found is not None:
            kept.forget(url)
    return found


def kept_token(
    url: str,
    renew: Callable[[Login], Login],
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """The token of the log-in at an app, renewed at need; "" where there is none.

    Args:
        url: the app's address, without a slash at its end.
        renew: gets a log-in with new tokens from the issuer.
        environ: the environment.
        clock: seconds since 1970 UTC.

    Raises:
        SettingsError: the file is not for its owner only.
        siteward.oauth.client.IssuerRefuses, siteward.oauth.fetching.FetchError: it is over, and cannot be renewed.
    """
    kept = keeper(environ)
    login = kept.find(url)
    if login is None or _is_fresh(login, clock):
        return login.access if login else ""
    # A refresh token may be good for one use: of several commands at once one renews, and all send what it got.
    with _alone(folder_of(os.environ if environ is None else environ)):
        login = kept.find(url)
        if login is not None and not _is_fresh(login, clock):
            login = renew(login)
            kept.keep(url, login)
    return login.access if login else ""


def _is_fresh(login: Login, clock: Callable[[], float]) -> bool:
    return not login.ends or clock() < login.ends - MARGIN


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "logins.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
