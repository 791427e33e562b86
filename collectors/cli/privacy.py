"""`siteward privacy`: what is kept of a person, given out or taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show_object, tell
from siteward.cli.verbs import notes_itself
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from siteward.server.resources import Change, Resources

commands = typer.Typer(help="Who people are: give out, erase, or admit a name.", no_args_is_help=True, **PLAIN)

Subject = Annotated[str, typer.Argument(help="The name, exactly as records give it.")]
Dimensions = Annotated[
    list[str] | None,
    typer.Option("--dimension", help="Only as this one, such as user; may be repeated. By default as every one."),
]


@commands.command("export")
@notes_itself(Permission.PLATFORM)
def export_person(context: typer.Context, subject: Subject, dimension: Dimensions = None) -> None:
    """Give out what is kept of a person beside the records, as JSON, with the pseudonyms that records hold; in UTC.

    The figures themselves are answers: `siteward account job --where user=NAME`.
    """
    from collectors.privacy import export, known_document  # noqa: PLC0415  # `--help` needs none of it.

    with _about(context, subject, dimension, "export") as (resources, people, _):
        show_object(known_document(export(resources, subject, people)))


@commands.command()
@notes_itself(Permission.PLATFORM)
def erase(context: typer.Context, subject: Subject, dimension: Dimensions = None) -> None:
    """Take a person's identity away for good; no total, original or signed digest changes.

    Records keep the pseudonym, behind which nobody is found any more, and records that come later do not bring the
    name back. Log-ins end, and refused records keep the pseudonym, too. The audit keeps who changed what. It may be
    killed at any moment: run it again.
    """
    from collectors.privacy import erase as take_away  # noqa: PLC0415  # as above.

    with _about(context, subject, dimension, "erase") as (resources, people, change):
        change.before = _standing(resources, people)
        erased = take_away(resources, subject, people)
        change.after = {"pseudonyms": sorted(people), "erased": erased}
    tell(
        f"erased: {_counted(erased.names, 'name')}, {_counted(erased.dead_letters, 'refused record')}, "
        f"{_counted(erased.sessions, 'log-in')}; "
        "later records do not bring the name back"
    )


@commands.command()
@notes_itself(Permission.PLATFORM)
def allow(context: typer.Context, subject: Subject, dimension: Dimensions = None) -> None:
    """Let a name that was erased come in again, with the records that come from now on."""
    with _about(context, subject, dimension, "allow") as (resources, people, change):
        change.before = _standing(resources, people)
        found = resources.people.allow(people)
        change.after = {"pseudonyms": sorted(people), "allowed": found}
    if not found:
        message = "no name like that was erased"
        raise typer.BadParameter(message)
    tell("allowed; collectors that run take it within ten minutes")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@contextmanager
def _about(
    context: typer.Context, subject: str, dimensions: list[str] | None, command: str
) -> Iterator[tuple[Resources, Mapping[str, str], Change]]:
    """The installation and the person's pseudonyms, while it is noted; the audit has no name that may be erased."""
    from collectors.privacy import pseudonyms_of  # noqa: PLC0415  # as above.
    from siteward.server.auth.local_person import local_person  # noqa: PLC0415  # as above.
    from siteward.server.resources import Resources  # noqa: PLC0415  # as above.

    with closing(Resources(options(context).settings)) as resources:
        try:
            people = pseudonyms_of(resources, subject, dimensions or ())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        noted = {"pseudonyms": sorted(people)}
        with resources.audited(local_person(), f"siteward privacy {command}", noted) as change:
            yield resources, people, change


def _standing(resources: Resources, people: Mapping[str, str]) -> dict[str, str]:
    """How each pseudonym stands that is known, for the audit: without the name."""
    found = resources.people.find(people)
    return {each.pseudonym: "named" if each.erased is None else "erased" for each in found}
