"""`siteward simulate`: records of a grid that does not exist."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from siteward.cli.options import options as global_options
from siteward.cli.output import show, tell
from siteward.cli.verbs import noted_sending, sends
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from collectors.simulator.faults import Fault
    from collectors.simulator.grid import Grid
    from collectors.simulator.timeline import Simulation
    from siteward.records import Record, Refused

INTERRUPTED: Final = 130
_CHECK: Final = 1000
"""Records between two looks at whether to stop."""


@sends(Permission.REPORT)
def simulate(  # noqa: PLR0917  # a command has as many parameters as it has options.
    context: typer.Context,
    sites: Annotated[int, typer.Option(min=1, help="Sites of the grid.")] = 150,
    vos: Annotated[int, typer.Option(min=1, help="Communities.")] = 5,
    days: Annotated[float, typer.Option(min=0, help="Days of history.")] = 30,
    seed: Annotated[int, typer.Option(help="Another seed is another grid.")] = 7,
    jobs_per_hour: Annotated[float, typer.Option(min=0, help="Finished jobs per site and hour, on average.")] = 10,
    space_interval: Annotated[int, typer.Option(min=1, help="Seconds between looks at every storage.")] = 3600,
    end: Annotated[
        datetime | None,
        typer.Option(help="End of the history, UTC; by default now.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Then go on as time passes, until interrupted.")] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="Inject NAME:TARGET:START:DURATION, such as site-outage:SIM-T0-CH-1:-3d:8h; repeatable."),
    ] = None,
    faults: Annotated[str, typer.Option(help="Inject random:N faults.")] = "",
    labels: Annotated[
        Path | None, typer.Option(help="File for the truth about faults; by default in the data folder.")
    ] = None,
) -> None:
    """Simulate a grid: the same options and seed give the same records, whenever and in whatever slices they are made.

    Records of an hour depend on the grid, the seed, the faults and the hour only. Give --end where the window, and
    what --faults and relative starts place in it, shall not move with the clock.
    """
    from collectors.simulator import faults as catalogue  # noqa: PLC0415  # only this command needs them.
    from collectors.simulator import timeline  # noqa: PLC0415
    from collectors.simulator.grid import build_grid  # noqa: PLC0415
    from collectors.simulator.load import DAY  # noqa: PLC0415
    from siteward.emit import Emitter  # noqa: PLC0415
    from siteward.records import microseconds  # noqa: PLC0415

    settings = global_options(context).settings
    until = time.time_ns() // 1000 if end is None else microseconds(end.replace(tzinfo=UTC))
    if live and end is not None:
        message = "--live goes on from now; it cannot be combined with --end"
        raise typer.BadParameter(message)
    start = until - int(days * DAY)
    grid = build_grid(sites, vos, seed, jobs_per_hour)
    try:
        injected = _injected(fault or [], faults, grid, start, until)
    except catalogue.FaultError as error:
        raise typer.BadParameter(str(error)) from error
    if injected:
        labels = labels or settings.folder / "simulated-faults.jsonl"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_bytes(catalogue.labels(injected))
        tell(f"the truth about {len(injected)} faults is in {labels}")
    simulation = timeline.Simulation(grid, injected, space_interval)
    with (
        _stopping() as stop,
        Emitter(settings, producer="simulate", when_full="wait") as emitter,
        noted_sending(context, emitter.producer) as sent,
    ):

        def emit(record: Record) -> Refused | None:
            refused = emitter.emit(record)
            if refused is None:
                sent.add(str(record.kind_options["kind"]), record.vo)
            else:
                sent.rejected += 1
            return refused

        started = time.monotonic()
        refused = _history(simulation, start, until, emit, stop)
        emitter.flush()
        if refused:
            tell(f"{refused} records were refused, the log says why")
        seconds = round(time.monotonic() - started, 2)
        stopped = stop.is_set()
        show(
            ("kind", "records", "seconds"),
            [(name, sum(of_vos.values()), seconds) for name, of_vos in sorted(sent.queued.items())],
            global_options(context).output,
        )
        if live and not stopped:
            tell("going on live; Ctrl-C ends it")
            timeline.live(simulation, until, emit, stop)
    if stopped:
        raise typer.Exit(INTERRUPTED)


def _injected(texts: list[str], drawn: str, grid: Grid, start: int, end: int) -> list[Fault]:
    """The faults that the options name.

    Raises:
        collectors.simulator.faults.FaultError: one cannot be read.
    """
    from collectors.simulator.faults import FaultError, parse_fault, random_faults  # noqa: PLC0415

    injected = [parse_fault(text, grid, end) for text in texts]
    if drawn:
        word, _, number = drawn.partition(":")
        if word != "random" or not number.isdecimal():
            message = f"--faults {drawn!r}: expected random:N, such as random:10"
            raise FaultError(message)
        injected += random_faults(int(number), grid, start, end)
    return injected


def _history(
    simulation: Simulation, start: int, end: int, emit: Callable[[Record], object], stop: threading.Event
) -> int:
    """Emit a window; how many records were refused."""
    from collectors.cli.progress import progress  # noqa: PLC0415

    refused = 0
    with progress("history", end - start) as bar:
        for number, emission in enumerate(simulation.between(start, end)):
            refused += emit(emission.record) is not None
            if number % _CHECK == 0:
                bar(emission.time - start, f"{number:,} records")
                if stop.is_set():
                    break
    return refused


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the emitter is closed in order."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
