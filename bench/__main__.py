"""Run measurements and write full figures down: `python -m bench [full|short] [SECTION …]`, as SECTIONS names them."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bench import commands, data_path, ledger, log_import, machine, servers, tokens
from bench.asked import Asked
from bench.emit import emit_microseconds
from bench.examples import FIELDS_GIVEN
from bench.latency import seconds_to_queryable


class Size(msgspec.Struct):
    """How much is measured."""

    name: str
    plain: int
    stored: int
    step: int
    backlog: int
    emits: int
    latency_seconds: int


SIZES: Final = {
    "full": Size("full", 500_000, 8_000_000, 1_000_000, 5_000_000, 300_000, 30),
    "short": Size("short", 100_000, 300_000, 100_000, 200_000, 50_000, 4),
}
Figure = TypeVar("Figure")
RESULTS: Final = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Measure, print, and write the full run's figures down; 1 where a figure is short, or a server is not there."""
    size, asked = SIZES[sys.argv[1] if len(sys.argv) > 1 else "full"], Asked()
    chosen = [name for name in SECTIONS if name in sys.argv[2:]]
    for name in chosen:
        title, measure = SECTIONS[name]
        lines = list(map(_said, measure(size.name, asked)))
        # Read when it is measured: that takes long enough for somebody else to measure another one.
        before, after = _around(title)
        _write(size, [*before, *lines, *after])
    if not chosen:
        _write(size, list(_report(size, asked)))
    failures = [*asked.failures(full=size.name == "full")]
    for each in failures:
        print(each, file=sys.stderr)
    return 1 if failures else 0


def _write(size: Size, lines: list[str]) -> None:
    if size.name == "full":
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"\nwritten to {RESULTS.name}")


def _of_ledger(measure: Callable[[ledger.LedgerSize, Asked], Iterator[str]]) -> Callable[[str, Asked], Iterator[str]]:
    return lambda size, asked: measure(ledger.LEDGER_SIZES[size], asked)


def _engines(size: str, asked: Asked) -> Iterator[str]:
    return servers.report(servers.ENGINE_SIZES[size], asked)


SECTIONS: Final = {
    "ledger": (ledger.BOOKING, _of_ledger(ledger.booking)),
    "growth": (ledger.GROWTH, _of_ledger(ledger.growth)),
    "questions": (ledger.QUESTIONS, _of_ledger(ledger.questions)),
    "engines": (servers.TITLE, _engines),
    "tokens": (tokens.TITLE, tokens.report),
    "commands": (commands.TITLE, commands.report),
}
"""What can be measured by itself; its lines take the place of those of before."""


def _around(title: str) -> tuple[list[str], list[str]]:
    """The lines of the figures before a section and after it."""
    before, _, rest = RESULTS.read_text(encoding="utf-8").partition(f"\n{title}")
    after = rest.partition("\n## ")
    return before.rstrip().splitlines(), ["", f"## {after[2].rstrip()}"] if after[2] else []


def _report(size: Size, asked: Asked) -> Iterator[str]:
    yield _said(f"""# Figures

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} processors, Python {platform.python_version()},
{size.name} run. Only ratios within one run mean anything; the machine's own limits stand beside the figures.
Every job record has {FIELDS_GIVEN} fields given and validated; 2 % of what is emitted is a repetition.
""")
    limit = _in_folder(lambda folder: machine.plain_loop(folder, size.plain))
    yield _said("## The machine\n")
    yield _said("| limit | figure |\n|---|---|")
    yield _said(f"| 64 KiB forced to disk, median | {_in_folder(machine.fsync_milliseconds):.2f} ms |")
    yield _said(f"| plain validated, durable, deduplicating loop, one process | {limit:,.0f} records/s |\n")
    yield _said("## Emit\n\n| what | figure | asked |\n|---|---|---|")
    median, worst = _in_folder(lambda folder: emit_microseconds(folder, size.emits))
    yield _said(f"| one emit(), validation included, median | {median:.2f} µs | at most 5 µs |")
    yield _said(f"| one emit(), 99th percentile | {worst:.2f} µs | |\n")
    yield from _data_path(size, limit)
    yield from _latency(size)
    yield from _log()
    for _, measure in SECTIONS.values():
        yield from map(_said, measure(size.name, asked))


def _data_path(size: Size, limit: float) -> Iterator[str]:
    run = _in_folder(lambda folder: data_path.through(folder, size.stored, size.step))
    yield _said("## Emit → embedded broker → collector → DuckDB, durable, two processes\n")
    yield _said("| what | figure | asked |\n|---|---|---|")
    yield _said(
        f"| {size.stored:,} different records and 2 % repeated | {run.rate:,.0f} records/s | 100,000 (aim 150,000) |"
    )
    yield _said(f"| ratio to the plain loop | {run.rate / limit:.2f} | |")
    yield _said(f"| collector and store process, peak | {run.collector_megabytes:.0f} MB | under 400 MB |")
    yield _said(f"| emitting process, peak | {run.emitter_megabytes:.0f} MB | |\n")
    yield _said("| stored | records/s since the line before | collector MB |\n|---|---|---|")
    for point in run.points:
        yield _said(f"| {point.records:,} | {point.rate:,.0f} | {point.collector_megabytes:.0f} |")
    drained = _in_folder(lambda folder: data_path.backlog(folder, size.backlog))
    yield _said(f"\n## A backlog of {size.backlog:,} records\n\n| what | figure | asked |\n|---|---|---|")
    yield _said(f"| drained at | {drained.rate:,.0f} records/s | |")
    yield _said(f"| emitting process, peak | {drained.emitter_megabytes:.0f} MB | under 400 MB |")
    yield _said(f"| collector and store process, peak | {drained.collector_megabytes:.0f} MB | under 400 MB |\n")


def _latency(size: Size) -> Iterator[str]:
    delays = _in_folder(lambda folder: seconds_to_queryable(folder, 1000, size.latency_seconds))
    yield _said("## From emit() to queryable, at 1,000 records/s\n\n| what | figure | asked |\n|---|---|---|")
    yield _said(f"| median of {len(delays):,} records | {1000 * delays[len(delays) // 2]:.0f} ms | |")
    yield _said(f"| 99th percentile | {1000 * delays[len(delays) * 99 // 100]:.0f} ms | at most 1,000 ms |\n")


def _log() -> Iterator[str]:
    yield _said("## A real grid's log (LPC 2004, Parallel Workloads Archive; kindly provided by its owner there)\n")
    if not log_import.LOG.exists():
        yield _said("Not measured: the log is not on this machine.")
        return
    done = _in_folder(log_import.measure)
    yield _said("| what | figure | asked |\n|---|---|---|")
    yield _said(f"| {done.records:,} jobs read and emitted | {done.emitted_seconds:.1f} s | |")
    yield _said(f"| … and stored | {done.stored_seconds:.1f} s | under 10 s |")
    by_day = f"wall time by user and day, {done.rows:,} rows"
    yield _said(f"| {by_day}, asked of the store | {done.store_milliseconds:.1f} ms | under 25 ms |")
    yield _said(f"| … over HTTP | {done.http_milliseconds:.1f} ms | under 50 ms |")


def _in_folder(measure: Callable[[Path], Figure]) -> Figure:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="siteward-bench-") as folder:
        figure = measure(Path(folder))
    print(f"  ({time.perf_counter() - began:.1f} s)", file=sys.stderr)
    return figure


def _said(line: str) -> str:
    print(line, flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
