"""What tests need and may not find: skipped at home with a reason, failed in CI, where everything has to be there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

REPOSITORY: Final = Path(__file__).resolve().parent.parent
IN_CI: Final = os.environ.get("CI", "").lower() in {"1", "true"}
DATA: Final = Path(os.environ.get("SITEWARD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
"""Folder of real input, which is never committed; read once, before the surroundings of the tests are cleaned."""
LPC_LOG: Final = "LPC-EGEE-2004-1.2-cln.swf.gz"


def missing(what: str, remedy: str = "run tests/services.sh") -> NoReturn:
    """Leave a test whose server is not there: a skip at home, a failure in CI."""
    if IN_CI:
        pytest.fail(f"{what} is missing and CI may not go without; {remedy}")
    pytest.skip(f"{what} is missing; {remedy}")


def chromium_path() -> str:
    """The browser that Playwright is to drive, from the machine and not from a download."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    missing("a Chromium browser")


def data_file(name: str) -> Path:
    """A file of real input; its absence is a skip everywhere, since it may not be everywhere."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {DATA}; SITEWARD_TEST_DATA names another folder")
    return path
