"""Pseudonyms, and the key without which nobody can compute them."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from siteward.pseudonyms import is_pseudonym, pseudonym, pseudonym_key
from siteward.settings import AccessSettings, Settings, SettingsError

KEY = b"0123456789abcdef0123456789abcdef"


def test_a_pseudonym_is_that_of_its_key_dimension_and_value() -> None:
    """The same for the same three, in every process and version; another for any other."""
    assert pseudonym(KEY, "user", "alice") == "pseudonym-cb3672212cc144136a33"
    others = {pseudonym(KEY, "user", "alice"), pseudonym(KEY, "local_user", "alice"), pseudonym(KEY, "user", "Alice")}
    assert len(others | {pseudonym(KEY[::-1], "user", "alice")}) == 4
    assert all(map(is_pseudonym, others))
    assert not any(map(is_pseudonym, ["alice", "", "pseudonym-", "pseudonym-CB3672212CC144136A33", "\n".join(others)]))


def test_the_key_is_made_once(tmp_path: Path) -> None:
    """By whoever first needs one, for its owner's eyes; of many at once all have the same, and nothing else is left."""
    settings = Settings(data=str(tmp_path / "data"))
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: pseudonym_key(settings), range(32)))
    assert len(keys) == 1
    assert pseudonym_key(settings) in keys
    (file,) = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert pseudonym_key(Settings(data=str(tmp_path / "other"))) not in keys


def test_the_key_may_be_given(tmp_path: Path) -> None:
    """Then no file is made; it is shown nowhere."""
    given = Settings(data=str(tmp_path), access=AccessSettings(pseudonym_key=KEY.decode()))
    assert pseudonym_key(given) == KEY
    assert list(tmp_path.iterdir()) == []
    assert KEY.decode() not in repr(given)


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    """Wherever it comes from; the message says where, and not what."""
    with pytest.raises(SettingsError, match=r"access.pseudonym_key: expected at least 32 random characters"):
        pseudonym_key(Settings(data=str(tmp_path), access=AccessSettings(pseudonym_key="short")))
    (tmp_path / "pseudonym.key").write_text("short\n")
    (tmp_path / "pseudonym.key").chmod(0o600)
    with pytest.raises(SettingsError, match=r"pseudonym.key: expected at least 32"):
        pseudonym_key(Settings(data=str(tmp_path)))
