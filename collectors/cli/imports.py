"""`siteward import`: records from a file of another system."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from siteward.cli.options import options as global_options
from siteward.cli.output import show, tell
from siteward.cli.verbs import noted_sending, sends
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from collectors.sources import Options, Source
    from siteward.cli.verbs import Sent
    from siteward.emit import Emitter
    from siteward.records import Kind, Refused, Row

SHOWN_LINES: Final = 20
"""Malformed lines told one by one; the rest are only counted."""
INTERRUPTED: Final = 130


@sends(Permission.REPORT, vos=lambda given: (given.get("vo", ""),))
def import_file(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Format of the file, such as swf; see `siteward extensions`.")],
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The file, plain or compressed.")
    ],
    vo: Annotated[str, typer.Option(help="VO of the records.")],
    site: Annotated[str, typer.Option(help="Site where it happened.")],
    submit_host: Annotated[
        str, typer.Option(help="Keeps ids of different files apart; by default what the file says of its origin.")
    ] = "",
    resume: Annotated[
        bool,
        typer.Option(help="Go on where an interrupted import of the same file ended, or start from its beginning."),
    ] = True,
) -> None:
    """Import a file of records: malformed lines are reported, the rest is imported; importing again changes nothing."""
    from collectors.sources import Options, SourceError  # noqa: PLC0415  # only this command needs them.
    from collectors.sources.importing import ImportStopped  # noqa: PLC0415

    chosen = Options(vo=vo, site=site, submit_host=submit_host)
    try:
        code = _run(context, source, file, chosen, resume=resume)
    except SourceError as error:
        tell(f"siteward import: {file}: {error}")
        code = 1
    except ImportStopped as error:
        tell(f"siteward import: stopped: {error}\nThe same command goes on from there.")
        code = 1
    except KeyboardInterrupt:
        tell("siteward import: interrupted; the same command goes on from there")
        code = INTERRUPTED
    raise typer.Exit(code)


def _run(context: typer.Context, name: str, path: Path, chosen: Options, *, resume: bool) -> int:
    from collectors.cli.progress import progress  # noqa: PLC0415
    from collectors.sources.importing import Tally, checkpoint_of, import_rows  # noqa: PLC0415
    from siteward import extensions  # noqa: PLC0415
    from siteward.emit import Emitter  # noqa: PLC0415

    settings = global_options(context).settings
    source: Source = extensions.load("siteward.sources", name)
    started = time.monotonic()
    with path.open("rb") as file:
        checkpoint = checkpoint_of(settings.folder, name, chosen, file)
        if not resume:
            checkpoint.forget()
        before = checkpoint.load()
        if before.position:
            tell(f"going on after line {before.position}, where an import of this file was interrupted")
        with (
            progress(path.name, path.stat().st_size) as bar,
            Emitter(settings, producer=f"import:{name}", when_full="wait") as emitter,
            noted_sending(context, emitter.producer) as sent,
        ):
            reporter = _Reporter(before.malformed, sent)

            def advanced(tally: Tally) -> None:
                bar(file.tell(), f"{tally.imported:,} records")

            tally = import_rows(
                source,
                file,
                chosen,
                _Counted(emitter, sent),
                checkpoint,
                now=time.time_ns() // 1000,
                malformed=reporter.malformed,
                advanced=advanced,
            )
    reporter.finish(tally.malformed)
    show(
        ("file", "kind", "imported", "malformed", "passed", "seconds"),
        [
            (
                path.name,
                source.kind.name,
                tally.imported,
                tally.malformed,
                tally.passed,
                round(time.monotonic() - started, 2),
            )
        ],
        global_options(context).output,
    )
    return 1 if tally.malformed else 0


class _Counted:
    """An Emitter of which the audit is told what it has taken, however the import ends."""

    def __init__(self, emitter: Emitter, sent: Sent) -> None:
        self._emitter = emitter
        self._sent = sent

    def emit_row(self, kind: Kind, row: Row) -> Refused | None:
        refused = self._emitter.emit_row(kind, row)
        if refused is None:
            self._sent.add(kind.name, row.vo)  # type: ignore[attr-defined]  # every row has one.
        return refused

    def flush(self, timeout: float) -> bool:
        return self._emitter.flush(timeout)


class _Reporter:
    """Tells the first malformed lines, and at the end how many more there were."""

    def __init__(self, told: int, sent: Sent) -> None:
        self._told = told
        self._sent = sent

    def malformed(self, line: int, reason: str) -> None:
        self._told += 1
        self._sent.rejected += 1
        if self._told <= SHOWN_LINES:
            tell(f"line {line}: {reason}")

    def finish(self, total: int) -> None:
        if total > SHOWN_LINES:
            tell(f"and {total - SHOWN_LINES} more malformed lines")
