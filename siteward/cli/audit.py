"""`siteward audit`: who changed what, when, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import one_or_all, reads, shows_all
from siteward.server.auth import Permission

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
) -> None:
    """Compute the digests of all entries again; ends with 1 where one was changed, put in or taken away.

    Note the last number and digest elsewhere: given again, they prove that nothing up to it is another.
    """
    with _opened(context) as entries:
        found = entries.verify()
        is_another = bool(digest) and entries.digest_at(number) != digest
    tell(f"{found.entries} entries, up to number {found.number}, digest {found.digest or 'none'}")
    if found.wrong is not None:
        tell(f"from number {found.wrong} on, something was changed, put in or taken away")
    if is_another:
        tell(f"the digest of number {number} is not the one that was noted: entries up to it are others")
    if found.wrong is not None or is_another:
        raise typer.Exit(1)


@contextmanager
def _opened(context: typer.Context) -> Iterator[Audit]:
    from siteward.server.resources import Resources  # noqa: PLC0415  # `--help` needs none of it.

    with closing(Resources(options(context).settings)) as resources:
        yield resources.audit


def _told(state: object) -> str:
    return "" if state is None else msgspec.json.encode(state).decode()
