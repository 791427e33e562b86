"""`siteward token`: tokens of this installation's own issuer, and which ones are denied."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import notes_itself, shows_all
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from siteward.server.auth.roles import Grant
    from siteward.server.resources import Change, Resources

commands = typer.Typer(help="Tokens of this installation's own issuer.", no_args_is_help=True, **PLAIN)
SHOWN: Final = ("sub", "aud", "jti", "exp", "siteward.grants")
"""Claims of a new token that are noted; it itself is not."""
DENIED: Final = ("issuer", "subject", "token", "before", "by", "reason")
"""What is shown of an entry; `before`: only tokens that were issued before are refused."""


@commands.command()
@notes_itself(Permission.PLATFORM)
def create(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="Whom it names: a person as records call them, or a service.")],
    role: Annotated[
        str,
        typer.Option(
            help="reader, user, reporter, operator, site-operator, accountant, admin of the VOs; or platform-admin."
        ),
    ],
    vo: Annotated[list[str], typer.Option(help="A VO in which the role holds; may be given again.")] = [],  # noqa: B006  # Typer copies it.
    site: Annotated[list[str], typer.Option(help="Only of this site; may be given again.")] = [],  # noqa: B006
    days: Annotated[float, typer.Option(help="For which it is valid, at most 366.")] = 30,
    file: Annotated[
        Path | None, typer.Option(help="Write it there, for you only to read, in place of showing it.")
    ] = None,
) -> None:
    """Make a token for this installation, valid where its app trusts its own issuer."""
    from siteward.private_files import make_private  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.server.auth.door import is_own_trusted  # noqa: PLC0415
    from siteward.server.auth.local_issuer import LocalIssuer  # noqa: PLC0415
    from siteward.server.auth.token_text import read_token  # noqa: PLC0415

    grant = _grant(role, tuple(vo), tuple(site))
    settings = options(context).settings
    try:
        token = LocalIssuer(settings.issuer_file).token(subject, (grant,), days)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    claims = {name: value for name, value in read_token(token).claims.items() if name in SHOWN}
    # Noted before anybody has it.
    with _changing(context, "token create", claims, grant.vos):
        pass
    if not is_own_trusted(settings):
        tell(
            "the settings name other issuers only, so that no server that has them takes this token: add "
            '[issuers.local] with profile = "local"'
        )
    if file is None:
        sys.stdout.write(f"{token}\n")
        return
    make_private(file, f"{token}\n".encode(), replacing=True)
    tell(f"written to {file}; programs send it with BEARER_TOKEN_FILE={file}")


@commands.command()
@notes_itself(Permission.PLATFORM)
def deny(
    context: typer.Context,
    issuer: Annotated[
        str, typer.Argument(help="Whose: as the settings call it, `local` for our own, or its exact name.")
    ],
    reason: Annotated[str, typer.Option(help="Why, for those who come later.")],
    subject: Annotated[str, typer.Option(help="All tokens of this subject.")] = "",
    token: Annotated[str, typer.Option(help="Or one token, by its `jti`.")] = "",
) -> None:
    """Refuse a subject, or a token, although its issuer vouches for it; effective within seconds."""
    from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # `--help` needs none of it.

    name = _issuer(context, issuer)
    entry = {"issuer": name, "subject": subject, "token": token, "reason": reason}
    with _changing(context, "token deny", entry) as (resources, change):
        by = f"{local_person().identity.subject} (at this machine)"
        try:
            change.before = resources.denied.deny(name, subject=subject, token=token, by=by, reason=reason)
            resources.sessions.end_all(name, subject=subject, token=token)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


@commands.command()
@notes_itself(Permission.PLATFORM)
def allow(
    context: typer.Context,
    issuer: Annotated[str, typer.Argument(help="As it was denied.")],
    subject: Annotated[str, typer.Option(help="As it was denied.")] = "",
    token: Annotated[str, typer.Option(help="As it was denied.")] = "",
) -> None:
    """Take a denial back."""
    name = _issuer(context, issuer)
    with _changing(context, "token allow", {"issuer": name, "subject": subject, "token": token}) as (resources, change):
        change.before = resources.denied.allow(name, subject=subject, token=token)
        if change.before is None:
            message = "nothing like that is denied; `siteward token denied` lists what is"
            raise typer.BadParameter(message)


@commands.command()
@shows_all(Permission.PLATFORM)
def denied(context: typer.Context) -> None:
    """List every token and subject that is denied, the newest first."""
    from siteward.records import moment  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.server.resources import Resources  # noqa: PLC0415  # as above.

    with closing(Resources(options(context).settings)) as resources:
        entries = resources.denied.all()
    rows = [
        (each.issuer, each.subject, each.token, moment(each.before) if each.before else None, each.by, each.reason)
        for each in entries
    ]
    show(DENIED, rows, options(context).output)


@contextmanager
def _changing(
    context: typer.Context, command: str, after: object, vos: Collection[str] = ()
) -> Iterator[tuple[Resources, Change]]:
    """What a change needs, and what is noted of it in the audit."""
    from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.server.resources import Resources  # noqa: PLC0415

    with (
        closing(Resources(options(context).settings)) as resources,
        resources.audited(local_person(), f"siteward {command}", after, vos) as change,
    ):
        yield resources, change


def _issuer(context: typer.Context, name: str) -> str:
    from siteward.server.auth.door import issuer_named  # noqa: PLC0415  # `--help` needs none of it.

    try:
        return issuer_named(options(context).settings, name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _grant(name: str, vos: tuple[str, ...], sites: tuple[str, ...]) -> Grant:
    from siteward.query_text import find_named  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.server.auth.roles import Role, grant  # noqa: PLC0415

    role = find_named(name, {str(each): each for each in Role}, "role")
    try:
        return grant(role, vos, sites)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
