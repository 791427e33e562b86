"""Where the tokens of `siteward login` are kept: in the desktop's keyring, or in a file for their owner only."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from siteward.log import get_logger
from siteward.oauth.keyrings import Ring, RingError, safe_ring
from siteward.private_files import make_private, read_private
from siteward.settings import SettingsError

MARGIN: Final = 60.0
"""Seconds before its end from which on a token is not sent any more, but a new one asked for."""
log = get_logger(__name__)


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


class Forgotten(msgspec.Struct, frozen=True):
    """What is kept no more of an app.

    Attributes:
        logins: those that there were, as far as they could be read.
        remains: why the keyring may keep one all the same; "" where it keeps none.
    """

    logins: tuple[Login, ...]
    remains: str = ""


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


class Keeper:
    """In the keyring, where there is one that does what it says; else in the file.

    What the file holds of an app is the newer one: it comes there only when the keyring does not take it. The addresses
    of which the keyring has something are noted beside the file, so that who has no keyring at the moment, such as over
    SSH, is told so, and who never logged in is not.
    """

    def __init__(self, folder: Path, ring: Ring | None) -> None:
        """Take where the file and the notes are, and the keyring."""
        self._ring = ring
        self._file = FileKeeper(folder / "logins.json")
        self._notes = folder / "keyring.json"

    def find(self, url: str) -> Login | None:
        """That of an app; None without, and where the keyring does not tell it, which is logged.

        Raises:
            SettingsError: others may read the file, or it is not ours.
        """
        found = self._file.find(url)
        if found is not None:
            return found
        try:
            return self._decoded(self._answering().read(url))
        except RingError as error:
            if url in self._noted():
                log.warning("the keyring does not tell the log-in that it keeps", address=url, error=str(error))
            return None

    def keep(self, url: str, login: Login) -> None:
        """Keep one in place of any older one; where the keyring does not take it, that is logged.

        Raises:
            SettingsError: others may read the file, or it is not ours.
            OSError: it cannot be written.
        """
        if self._ring is not None:
            # Before it is there: what is not noted would be forgotten nowhere.
            self._note(self._noted() | {url})
            try:
                self._ring.write(url, msgspec.json.encode(login).decode())
            except RingError as error:
                message = "the keyring takes nothing; the log-in is kept in a file that only you may read"
                log.warning(message, file=str(self._file.path), error=str(error))
            else:
                self._file.forget(url)
                return
        self._file.keep(url, login)

    def forget(self, url: str) -> Forgotten:
        """Keep none of an app any more; what there was, and whether the keyring may keep something all the same.

        Raises:
            SettingsError, OSError: as `keep`; nothing is forgotten then.
        """
        # Before anything is forgotten: what there was is told to the issuer by whoever gets it from here only.
        noted = self._noted()
        in_file = self._file.find(url)
        if in_file is not None:
            self._file.forget(url)
        in_ring, remains = None, ""
        try:
            ring = self._answering()
            in_ring = self._decoded(ring.read(url))
            ring.remove(url)
            if url in noted:
                self._note(noted - {url})
        except RingError as error:
            # Without a keyring, nothing is there but what was noted.
            remains = str(error) if self._ring is not None or url in noted else ""
        except OSError as error:
            remains = f"it is noted to, and that cannot be changed: {error}"
        return Forgotten(tuple(each for each in (in_file, in_ring) if each is not None), remains)

    def _answering(self) -> Ring:
        if self._ring is None:
            message = "there is none here that is safe to use"
            raise RingError(message)
        return self._ring

    @staticmethod
    def _decoded(text: str) -> Login | None:
        """A log-in as the keyring keeps it; None where that is something else, which is of no use."""
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=Login)
        return None

    def _noted(self) -> set[str]:
        """The addresses of which the keyring may have something."""
        with suppress(FileNotFoundError, msgspec.DecodeError):
            return msgspec.json.decode(read_private(self._notes), type=set[str])
        return set()

    def _note(self, urls: set[str]) -> None:
        make_private(self._notes, msgspec.json.encode(sorted(urls)), replacing=True)


def folder_of(environ: Mapping[str, str]) -> Path:
    """Where this user's programs keep what is theirs (XDG Base Directory Specification)."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "siteward"


def keeper(environ: Mapping[str, str] | None = None) -> Keeper:
    """What keeps this user's log-ins."""
    return Keeper(folder_of(os.environ if environ is None else environ), safe_ring())


def keep(url: str, login: Login, environ: Mapping[str, str] | None = None) -> None:
    """Keep a log-in in place of any older one, whatever other commands keep at this moment."""
    with _alone(folder_of(os.environ if environ is None else environ)):
        keeper(environ).keep(url, login)


def forget(url: str, environ: Mapping[str, str] | None = None) -> Forgotten:
    """Keep none of an app any more; what there was, and what may remain."""
    with _alone(folder_of(os.environ if environ is None else environ)):
        return keeper(environ).forget(url)


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
