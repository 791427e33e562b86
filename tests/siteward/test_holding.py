"""A file tells whether its writer still runs, also when that was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from siteward.cli.query import app_url
from siteward.holding import hold, is_held
from siteward.settings import Settings

HOLDER = """
import sys, time
from siteward.holding import hold
file = open(sys.argv[1], "w")
hold(file)
file.write("http://127.0.0.1:1")
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_a_file_is_held_until_its_writer_ends(tmp_path: Path) -> None:
    """Also by kill -9; whoever looks changes nothing."""
    path = tmp_path / "held"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for _ in range(3):
            with path.open() as file:
                assert is_held(file)
        holder.kill()
    with path.open() as file:
        assert not is_held(file)


def test_an_address_that_was_left_behind_is_nobodys(tmp_path: Path) -> None:
    """Another program may listen there by now, and wait for a token."""
    path = tmp_path / "run" / "app.url"
    path.parent.mkdir()
    path.write_text("http://127.0.0.1:8080")
    settings = Settings(data=str(tmp_path))
    assert app_url(settings) == ""
    with path.open("r+") as file:
        hold(file)
        assert app_url(settings) == "http://127.0.0.1:8080"
    assert app_url(settings) == ""
