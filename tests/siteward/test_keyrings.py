"""A log-in is kept where it can be, found again, and never said to be forgotten while a keyring may have it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from servers import REPOSITORY

from siteward.oauth.keyrings import Ring
from siteward.oauth.logins import FileKeeper, Forgotten, Keeper, Login
from siteward.private_files import make_private
from siteward.settings import SettingsError

APP = "https://app.example"
OURS = "rings.FileRing"
TOKEN = "the-access-token-of-this-log-in"
ERRORS = ("KeyringLocked", "NoKeyringError", "PasswordSetError", "InitError", "RuntimeError", "OSError", "DBusError")
"""What backends were seen to raise: the library's own errors, and those of what lies below."""
NO_RING = (
    "keyring.backends.fail.Keyring",
    "keyring.backends.null.Keyring",
    "keyring.backends.SecretService.Keyring",
    "keyring.backends.chainer.ChainerBackend",
    "keyring.backends.gone.Keyring",
    "no_such_module.Keyring",
    "nonsense",
)
"""Backends that keep nothing, that find no D-Bus, or that there are not."""


class Machine:
    """One user's machine; each command is a process of its own."""

    def __init__(self, folder: Path) -> None:
        """With nothing on it."""
        self.ring = folder / "ring.json"
        self.file = folder / "siteward" / "logins.json"
        self._environ = {
            name: value for name, value in os.environ.items() if "DBUS" not in name and "TOKEN" not in name
        }
        self._environ |= {
            "XDG_CONFIG_HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": str(REPOSITORY / "tests"),
            "RING": str(self.ring),
        }

    def run(self, *command: str, backend: str = OURS, **fails: str) -> subprocess.CompletedProcess[str]:
        """Run Python with a backend of which operations fail."""
        environ = self._environ | {"PYTHON_KEYRING_BACKEND": backend}
        environ |= {f"RING_{operation.upper()}": how for operation, how in fails.items()}
        done = subprocess.run(
            [sys.executable, *command], env=environ, capture_output=True, text=True, check=False, cwd=self.ring.parent
        )
        assert "Traceback" not in done.stderr
        assert TOKEN not in done.stderr
        return done

    def keep(self, token: str = TOKEN, *, backend: str = OURS, **fails: str) -> str:
        """As at the end of `siteward login`; what was told."""
        login = msgspec.json.encode(Login("https://iam.example", "cli", token, "", 0.0)).decode()
        done = self.run("-m", "rings", APP, login, backend=backend, **fails)
        assert done.returncode == 0
        return done.stderr

    def token(self, url: str = APP, *, backend: str = OURS, **fails: str) -> tuple[str, str]:
        """What commands send to an app, and what is told."""
        done = self.run("-m", "rings", url, backend=backend, **fails)
        assert done.returncode == 0
        return done.stdout, done.stderr

    def logout(self, *, backend: str = OURS, **fails: str) -> tuple[int, str]:
        """How `siteward logout` ends, and what is told."""
        done = self.run("-m", "siteward", "logout", APP, backend=backend, **fails)
        return done.returncode, done.stderr

    def holds(self) -> tuple[bool, bool]:
        """Whether the token is in the keyring, and in the file."""
        held = [file.exists() and TOKEN in file.read_text() for file in (self.ring, self.file)]
        return held[0], held[1]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A user who has never logged in."""
    return Machine(tmp_path)


def test_a_keyring_that_does_what_it_says_keeps_log_ins(machine: Machine) -> None:
    """And nothing else does; after log-out it keeps none, and there is nothing more to forget."""
    assert machine.keep() == ""
    assert machine.holds() == (True, False)
    assert machine.token() == (TOKEN, "")
    assert machine.logout() == (0, f"logged out at {APP}\n")
    assert machine.holds() == (False, False)
    assert machine.logout() == machine.logout(backend=NO_RING[0]) == (0, f"nobody is logged in at {APP}\n")


@pytest.mark.parametrize("backend", NO_RING)
def test_without_a_keyring_the_file_keeps_them(machine: Machine, backend: str) -> None:
    """For its owner only, whatever the reason; nobody is told of a keyring that they do not have."""
    assert machine.keep(backend=backend) == ""
    assert machine.holds() == (False, True)
    assert stat.S_IMODE(machine.file.stat().st_mode) == 0o600
    assert machine.token(backend=backend) == (TOKEN, "")
    assert machine.logout(backend=backend) == (0, f"logged out at {APP}\n")
    assert machine.holds() == (False, False)


@pytest.mark.parametrize("how", [*ERRORS, "silent"])
def test_what_a_keyring_does_not_take_is_kept_in_the_file(machine: Machine, how: str) -> None:
    """Which is told, without what was to be kept; it is found, and forgotten, as long as the keyring answers."""
    told = machine.keep(set=how)
    assert "the keyring takes nothing; the log-in is kept in a file that only you may read" in told
    assert str(machine.file) in told
    assert machine.holds() == (False, True)
    assert stat.S_IMODE(machine.file.stat().st_mode) == 0o600
    assert machine.token() == machine.token(get="KeyringLocked") == (TOKEN, "")
    assert machine.logout() == (0, f"logged out at {APP}\n")
    assert machine.holds() == (False, False)


@pytest.mark.parametrize("how", ERRORS)
def test_a_keyring_that_does_not_tell_is_as_none(machine: Machine, how: str) -> None:
    """Who has logged in there is told why no token is sent, and who never did is not held up."""
    machine.keep()
    token, told = machine.token(get=how)
    assert token == ""
    assert "the keyring does not tell the log-in that it keeps" in told
    assert (APP in told, how in told) == (True, True)
    assert machine.token("https://other.example", get=how) == ("", "")
    assert machine.token(backend=NO_RING[0])[0] == ""
    assert "the keyring does not tell" in machine.token(backend=NO_RING[0])[1]


@pytest.mark.parametrize(
    "fails",
    [
        {"get": "KeyringLocked"},
        {"get": "DBusError"},
        {"delete": "PasswordDeleteError"},
        {"delete": "OSError"},
        {"delete": "silent"},
        *({"backend": each} for each in NO_RING),
    ],
    ids=str,
)
def test_what_a_keyring_may_have_still_is_not_said_to_be_forgotten(machine: Machine, fails: dict[str, str]) -> None:
    """Log-out fails and says what to do, as often as it is tried; once the keyring does it, it is done."""
    machine.keep()
    for _ in range(2):
        code, told = machine.logout(**fails)
        assert code == 1
        assert f"not logged out: the keyring may keep tokens for {APP} still" in told
        assert "logged out at" not in told
        assert machine.holds() == (True, False)
    assert machine.logout() == (0, f"logged out at {APP}\n")
    assert machine.holds() == (False, False)


def test_the_newer_log_in_is_the_one_that_is_sent(machine: Machine) -> None:
    """Where the keyring kept the older one and did not take the newer; log-out forgets both."""
    machine.keep("the-token-of-the-older-log-in")
    machine.keep(set="KeyringLocked")
    assert machine.token() == (TOKEN, "")
    code, told = machine.logout(delete="KeyringLocked")
    assert (code, machine.holds()) == (1, (False, False))
    assert "not logged out" in told
    assert "the-token-of-the-older-log-in" in machine.ring.read_text()
    assert machine.logout() == (0, f"logged out at {APP}\n")
    assert machine.ring.read_text() == "{}"


def test_a_keyring_that_takes_again_is_used_again(machine: Machine) -> None:
    """The file then holds nothing of that app any more."""
    machine.keep(set="KeyringLocked")
    assert machine.keep() == ""
    assert machine.holds() == (True, False)


def test_what_is_forgotten_is_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The issuer is to hear of it: nothing is forgotten where notes cannot be read.

    Where they cannot be written, that is said beside what there was.
    """
    held: dict[str, str] = {}
    library = SimpleNamespace(
        get_password=lambda _, name: held.get(name),
        set_password=lambda _, name, text: held.update({name: text}),
        delete_password=lambda _, name: held.pop(name),
    )
    keeper, file = Keeper(tmp_path, Ring(library)), FileKeeper(tmp_path / "logins.json")
    older, newer = (Login("https://iam.example", "cli", TOKEN, refresh, 0.0) for refresh in ("older", "newer"))
    keeper.keep(APP, older)
    file.keep(APP, newer)
    notes = tmp_path / "keyring.json"
    notes.chmod(0o644)
    with pytest.raises(SettingsError, match="others may read"):
        keeper.forget(APP)
    assert (file.find(APP), list(held)) == (newer, [APP])
    notes.chmod(0o600)

    def read_only(path: Path, content: bytes, *, replacing: bool) -> None:
        if path == notes:
            message = "read-only"
            raise OSError(message)
        make_private(path, content, replacing=replacing)

    with monkeypatch.context() as patch:
        patch.setattr("siteward.oauth.logins.make_private", read_only)
        forgotten = keeper.forget(APP)
    assert forgotten.logins == (newer, older)
    assert "read-only" in forgotten.remains
    assert (file.find(APP), held) == (None, {})
    assert keeper.forget(APP) == Forgotten(())
    assert notes.read_bytes() == b"[]"
