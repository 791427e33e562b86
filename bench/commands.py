"""What it costs to start a command, beside Python that imports no more than the base install's libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from bench.asked import Asked

TITLE: Final = "## Commands: to start one"
MOST: Final = 2.5
"""Times what its libraries take."""
TURNS: Final = {"full": 30, "short": 6}
LIBRARIES: Final = (sys.executable, "-c", "import typer, msgspec")
PROGRAM: Final = (sys.executable, "-c", "from siteward.cli import main; main()")
COMMANDS: Final = (("--version",), ("--help",), ("kinds",))


def report(size: str, asked: Asked) -> Iterator[str]:
    """Measure, by turns; the lines of the section."""
    yield f"\n{TITLE}\n"
    yield f"Made by `make bench ARGS=commands`, or within `make bench`, on {datetime.now(UTC):%Y-%m-%d}."
    yield "A process from its start to its end, the quickest of many, beside one that imports Typer and msgspec only.\n"
    yield "| command | figure | its libraries alone | ratio | asked |\n|---|---|---|---|---|"
    for command in COMMANDS:
        ours, bare = _quickest(TURNS[size], (*PROGRAM, *command), LIBRARIES)
        name = f"siteward {' '.join(command)}"
        cell = asked.judge(name, f"at most {MOST} times", met=ours <= MOST * bare)
        yield f"| `{name}` | {1000 * ours:.0f} ms | {1000 * bare:.0f} ms | {ours / bare:.2f} | {cell} |"


def _quickest(turns: int, *commands: Sequence[str]) -> list[float]:
    best = [float("inf")] * len(commands)
    with tempfile.TemporaryDirectory(prefix="siteward-bench-") as folder:
        surroundings = os.environ | {"SITEWARD_DATA": folder}
        for _ in range(turns):
            for place, command in enumerate(commands):
                began = time.perf_counter()
                subprocess.run(command, env=surroundings, stdout=subprocess.DEVNULL, check=True)
                best[place] = min(best[place], time.perf_counter() - began)
    return best
