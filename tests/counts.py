"""What fault runs have counted: told by the tests, printed behind them whether they pass or fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import pytest

COUNTS: Final = "counts"


class Terminal(Protocol):
    """What is needed of pytest's reporter."""

    def getreports(self, name: str) -> list[pytest.TestReport]: ...

    def section(self, title: str, sep: str = "=") -> None: ...

    def write_line(self, line: str) -> None: ...


@pytest.fixture
def tell_counts(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a line that says what a test has counted."""
    return partial(record_property, COUNTS)


def pytest_terminal_summary(terminalreporter: Terminal) -> None:
    """Print all lines, in whichever process their tests ran."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [
        str(line)
        for report in reports
        if report.when == "call"
        for name, line in report.user_properties
        if name == COUNTS
    ]
    if lines:
        terminalreporter.section("what the fault runs counted")
        for line in lines:
            terminalreporter.write_line(line)
