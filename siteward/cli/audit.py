"""`siteward audit`: who changed what, when, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, one_or_all, reads, shows_all, tell_change
from siteward.server.auth import Permission
from siteward.server.auth.roles import EVERY

if TYPE_CHECKING:
    from siteward.server.auth.audit import Audit

commands = typer.Typer(help="Who changed what, when, and how it ended.", **PLAIN)
COLUMNS: Final = ("number", "at", "subject", "issuer", "token", "action", "vos", "outcome", "of", "before", "after")


@commands.callback(invoke_without_command=True)
@shows_all(Permission.ADMINISTER, vos=one_or_all)
def audit(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    subject: Annotated[str, typer.Option(help="Only what this one did.")] = "",
    issuer: Annotated[str, typer.Option(help="Only of tokens of this one; as the settings call it, too.")] = "",
    token: Annotated[str, typer.Option(help="Only what was done with this token, its `jti`.")] = "",
    action: Annotated[str, typer.Option(help="Only what begins so: `POST /v1/denied`, `siteward token`.")] = "",
    vo: Annotated[str, typer.Option(help="Only what is about this VO, or about all.")] = "",
    since: Annotated[str, typer.Option(help="First instant: 2026-10-01, -7d …")] = "",
    until: Annotated[str, typer.Option(help="First instant after it.")] = "",
    after: Annotated[int, typer.Option(help="The last number of the page before.", min=0, max=2**63 - 1)] = 0,
    limit: Annotated[int, typer.Option(help="Entries, the newest first.", min=1, max=1000)] = 100,
) -> None:
    """List who changed what: each change as it was asked for, and how it ended, with what it was and became."""
    from siteward.query_window import parse_time  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.records import microseconds  # noqa: PLC0415  # as above.
    from siteward.server.auth.door import issuer_named  # noqa: PLC0415  # as above.

    if context.invoked_subcommand is not None:
        return
    now = datetime.now(UTC)
    start, end = (microseconds(parse_time(text, now)) if text else 0 for text in (since, until))
    # One that is trusted no more has entries all the same.
    with suppress(ValueError):
        issuer = issuer and issuer_named(options(context).settings, issuer)
    with _opened(context) as entries:
        found = entries.find(
            issuer=issuer,
            subject=subject,
            token=token,
            action=action,
            vo=vo,
            since=start,
            until=end,
            after=after,
            limit=limit,
        )
    rows = [
        (
            each.number,
            datetime.fromtimestamp(each.at / 1_000_000, UTC).isoformat(timespec="seconds"),
            each.subject,
            each.issuer,
            each.token,
            each.action,
            ", ".join(each.vos),
            each.outcome,
            each.of or None,
            _told(each.before),
            _told(each.after),
        )
        for each in found
    ]
    show(COLUMNS, rows, options(context).output)


@commands.command()
@reads(Permission.ADMINISTER)
def verify(
    context: typer.Context,
    number: Annotated[int, typer.Option(help="Of an entry whose digest you have noted.", min=0, max=2**63 - 1)] = 0,
    digest: Annotated[str, typer.Option(help="That digest.")] = "",
    file: Annotated[
        list[Path] | None, typer.Option(help="A file of `siteward audit archive`; all of them go on from one another.")
    ] = None,
) -> None:
    """Compute the digests of all entries again; ends with 1 where one was changed, put in or taken away.

    Note the last number and digest elsewhere: given again, they prove that nothing up to it is another.
    """
    from siteward.server.auth.audit_files import Kept, digest_in, verified  # noqa: PLC0415  # `--help` needs none of it.

    if bool(number) != bool(digest):
        message = "--number and --digest belong together: those of one entry"
        raise typer.BadParameter(message)
    files = file or []
    kept = sorted(map(verified, files), key=lambda each: each.begin.number)
    with _opened(context) as entries:
        found = entries.verify()
        known = {entries.digest_at(number), *(digest_in(each, number) for each in files)} if digest else set()
    begin = found.begin
    parts = [*kept, Kept("the database", begin, found.entries, found.number, found.digest, found.wrong)]
    is_wrong = False
    for part in parts:
        tell(f"{part.file}: {part.entries} entries, up to number {part.number}, digest {part.digest or 'none'}")
        if part.wrong is not None:
            tell(f"from number {part.wrong} on, something was changed, put in or taken away")
            is_wrong = True
    for part, after in pairwise(parts):
        if (part.number, part.digest) != (after.begin.number, after.begin.digest):
            tell(f"{after.file} does not go on where {part.file} ends: something between them is missing, or another")
            is_wrong = True
    if begin.number and not kept:
        tell(f"entries up to number {begin.number}, digest {begin.digest}, are in files; --file looks at them, too")
    known |= {each.digest for each in (begin, *(part.begin for part in kept)) if each.number == number}
    if digest and digest not in known:
        is_elsewhere = number < begin.number and not any(each.begin.number <= number <= each.number for each in kept)
        tell(
            f"number {number} is in a file; give it with --file"
            if is_elsewhere
            else f"the digest of number {number} is not the one that was noted: entries up to it are others"
        )
        # What nobody has looked at is not as it was noted, either.
        is_wrong = True
    if is_wrong:
        raise typer.Exit(1)


@commands.command()
@changes(Permission.PLATFORM)
def archive(
    context: typer.Context,
    until: Annotated[str, typer.Option(help="Entries before this instant: 2026-01-01, -400d; a day ago at least.")],
    folder: Annotated[Path | None, typer.Option(help="For the file; by default `audit` in the data folder.")] = None,
) -> None:
    """Put old entries into a file and take them out of the database; digests go on from the file's.

    Keep the files as long as somebody may ask who did what, and delete them then: nothing else needs them. It may be
    killed at any moment: run it again.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # `--help` needs none of it.

    from siteward.query_window import parse_time  # noqa: PLC0415  # as above.
    from siteward.records import microseconds  # noqa: PLC0415  # as above.
    from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # as above.
    from siteward.server.database import Conflict  # noqa: PLC0415  # as above.

    now = datetime.now(UTC)
    end = parse_time(until, now)
    if end > now - timedelta(days=1):
        message = f"{until!r} is less than a day ago; what was changed today is looked for in the database"
        raise typer.BadParameter(message)
    place = folder or options(context).settings.folder / "audit"
    with _opened(context) as entries:
        try:
            kept = entries.archive(place, microseconds(end), local_person())
            if kept is None:
                tell("no entry is that old")
            else:
                told = {"file": kept.file, "number": kept.number, "digest": kept.digest}
                tell_change(context, {"entries": kept.entries}, told, (EVERY,))
                where = place / kept.file
                tell(f"{where}: {kept.entries} entries, up to number {kept.number}, digest {kept.digest}")
        except (ValueError, SQLAlchemyError, Conflict) as error:
            tell(f"siteward audit archive: {error}")
            raise typer.Exit(1) from error
        try:
            # Also where it was left to do by an earlier run.
            entries.scrub()
        except (SQLAlchemyError, Conflict) as error:
            tell(
                "siteward audit archive: entries that were taken out are safe in their files, but may be left in those "
                f"of the database, too ({error}); run the same command again"
            )
            raise typer.Exit(1) from error


@contextmanager
def _opened(context: typer.Context) -> Iterator[Audit]:
    from siteward.server.resources import Resources  # noqa: PLC0415  # `--help` needs none of it.

    with closing(Resources(options(context).settings)) as resources:
        yield resources.audit


def _told(state: object) -> str:
    return "" if state is None else msgspec.json.encode(state).decode()
