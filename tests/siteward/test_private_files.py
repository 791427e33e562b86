"""Files that hold secrets: for their owner, whole or not at all."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import pytest
from at_once import all_at_once

from siteward.private_files import make_private, read_private
from siteward.settings import SettingsError


def mode_of(path: Path) -> int:
    """Its rights."""
    return stat.S_IMODE(path.stat().st_mode)


def test_they_are_for_their_owner_only(tmp_path: Path) -> None:
    """The file and the folder that is made for it, whatever the process's mask."""
    path = tmp_path / "folder" / "secret"
    make_private(path, b"secret")
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    assert read_private(path) == b"secret"
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_the_first_of_many_makers_is_everybodys(tmp_path: Path) -> None:
    """Sixteen processes that start together end with one key."""
    path = tmp_path / "secret"
    assert not all_at_once(partial(make_private, path, bytes([number])) for number in range(16))
    first = read_private(path)
    make_private(path, b"later")
    assert read_private(path) == first
    make_private(path, b"later", replacing=True)
    assert read_private(path) == b"later"
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666, 0o777])
def test_one_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    """It may be no secret any more; the message says what to do."""
    path = tmp_path / "secret"
    make_private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_its_group_may_read_it(tmp_path: Path, mode: int) -> None:
    """So Kubernetes hands secrets out."""
    path = tmp_path / "secret"
    make_private(path, b"secret")
    path.chmod(mode)
    assert read_private(path) == b"secret"


def test_one_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    """Whoever reads says what to do about it."""
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "secret")
