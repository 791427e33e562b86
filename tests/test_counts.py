"""What fault runs count is seen in the output of every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from counts import COUNTS, pytest_terminal_summary


class Paper:
    """A terminal that keeps what is written."""

    def __init__(self, *reports: pytest.TestReport) -> None:
        self.reports = reports
        self.lines: list[str] = []

    def getreports(self, name: str) -> list[pytest.TestReport]:
        return [report for report in self.reports if report.outcome == name]

    def section(self, title: str, sep: str = "=") -> None:
        self.lines.append(sep + title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def _report(outcome: str, when: str, *lines: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid="test",
        location=(str(Path(__file__)), 1, "test"),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]  # one of pytest's words.
        longrepr=None,
        when=when,  # type: ignore[arg-type]  # as above.
        user_properties=[(COUNTS, line) for line in lines] + [("other", "nothing")],
    )


def test_counts_are_printed_once_whether_tests_pass_or_fail() -> None:
    """Each line that a test has told stands at the end, without any option; nothing where none was told."""
    paper = Paper(
        _report("failed", "call", "3 lost"),
        _report("passed", "call", "1", "2"),
        _report("passed", "teardown", "1", "2"),
    )
    pytest_terminal_summary(paper)
    assert paper.lines == ["=what the fault runs counted", "1", "2", "3 lost"]
    silent = Paper(_report("passed", "call"))
    pytest_terminal_summary(silent)
    assert silent.lines == []


def test_what_a_test_tells_is_with_its_report(
    tell_counts: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    """The fixture leaves a line where the summary looks for it."""
    tell_counts("this test has counted to one")
    assert (COUNTS, "this test has counted to one") in request.node.user_properties
    request.node.user_properties.clear()
