"""A progress bar for long work: on a terminal only, on standard error, never mixed with data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(label: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """Show how far work is.

    Args:
        label: what is being done.
        total: the amount of work, in any unit.

    Yields:
        A function that takes the amount done so far and a short text shown behind the bar.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _text: None
        return
    from rich.console import Console  # noqa: PLC0415  # costs more than most commands take.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, text="")

        def advance(done: float, text: str) -> None:
            bar.update(task, completed=done, text=text)

        yield advance
