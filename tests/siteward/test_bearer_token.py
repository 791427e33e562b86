"""The user's token is found where the WLCG bearer token discovery says, in its order, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from siteward import bearer_token
from siteward.bearer_token import NoTokenError, discovered_token

NAME = f"bt_u{os.geteuid()}"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token at each place."""
    (tmp_path / "runtime").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_text("of-the-file\n")
    (tmp_path / "runtime" / NAME).write_text("of-the-runtime\n")
    (tmp_path / "tmp" / NAME).write_text("of-tmp\n")
    monkeypatch.setattr(bearer_token, "FALLBACK", tmp_path / "tmp")


def test_the_first_place_counts(tmp_path: Path) -> None:
    """Variable, file, runtime folder, /tmp; a variable that is empty is none."""
    environ = {
        "BEARER_TOKEN": " of-the-variable \n",
        "BEARER_TOKEN_FILE": str(tmp_path / "file"),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    assert discovered_token(environ) == "of-the-variable"
    assert discovered_token(environ | {"BEARER_TOKEN": " "}) == "of-the-file"
    del environ["BEARER_TOKEN"], environ["BEARER_TOKEN_FILE"]
    assert discovered_token(environ) == "of-the-runtime"
    assert discovered_token({}) == "of-tmp"


def test_with_a_runtime_folder_tmp_is_not_looked_at(tmp_path: Path) -> None:
    """As the discovery has it."""
    (tmp_path / "runtime" / NAME).unlink()
    assert discovered_token({"XDG_RUNTIME_DIR": str(tmp_path / "runtime")}) == ""


def test_nowhere_is_no_token(tmp_path: Path) -> None:
    """And no error."""
    (tmp_path / "tmp" / NAME).unlink()
    assert discovered_token({}) == ""


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    """Else another token would be sent than the one that is meant."""
    with pytest.raises(NoTokenError, match="BEARER_TOKEN_FILE"):
        discovered_token({"BEARER_TOKEN_FILE": str(tmp_path / "none")})


def test_a_file_that_was_named_counts_whatever_is_in_it(tmp_path: Path) -> None:
    """An empty one is no token, and no reason to send another one."""
    (tmp_path / "file").write_text("\n")
    assert discovered_token({"BEARER_TOKEN_FILE": str(tmp_path / "file")}) == ""


def test_somebody_elses_file_in_tmp_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who put it there would see what is sent with it."""
    other = os.geteuid() + 1
    (tmp_path / "tmp" / f"bt_u{other}").write_text("of-the-one-who-waits-for-it")
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert discovered_token({}) == ""


def test_a_link_to_somebody_elses_file_is_judged_as_a_link(tmp_path: Path) -> None:
    """It is ours, and what it shows is read: like any file of ours."""
    (tmp_path / "tmp" / NAME).unlink()
    (tmp_path / "tmp" / NAME).symlink_to(tmp_path / "file")
    assert discovered_token({}) == "of-the-file"
