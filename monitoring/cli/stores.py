"""`siteward stores`: what a store keeps beside records: templates, mappings, policies."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.verbs import changes, reads, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from monitoring.stores.opensearch.differences import Change
    from siteward.settings import Settings

commands = typer.Typer(
    help="What a store keeps beside records: templates, mappings, policies.", no_args_is_help=True, **PLAIN
)
COLUMNS: Final = ("place", "what", "present", "wanted", "changed")
SCHEMES: Final = frozenset({"opensearch", "opensearchs"})


@commands.command(short_help="Bring index templates and indices up to the kinds.")
@changes(Permission.PLATFORM)
def upgrade(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
) -> None:
    """Bring index templates and indices up to the kinds, and show what differed.

    Ends with 1 where something differs that cannot be changed.
    """
    chosen = options(context)
    if not _is_opensearch(chosen.settings):
        tell("this store follows the kinds whenever it is opened; there is nothing to upgrade")
        return
    changes = _upgrade(chosen.settings, dry_run=dry_run)
    if not dry_run:
        made = [each for each in changes if each.step != "never"]
        before, after = (
            {f"{each.place} {each.what}": getattr(each, n) for each in made} for n in ("present", "wanted")
        )
        tell_change(context, before, after)
    rows = [(each.place, each.what, each.present, each.wanted, each.step) for each in changes]
    show(COLUMNS, rows, chosen.output)
    impossible = sum(1 for each in changes if each.step == "never")
    if not changes:
        tell("everything is as it should be")
    if impossible:
        tell(
            f"{impossible} differences cannot be changed, so that their kinds were left alone: give each changed field "
            "a new name, or start anew under another monitoring.prefix"
        )
        raise typer.Exit(1)


@commands.command(short_help="Print the ISM policies that would delete old indices.")
@reads(Permission.PLATFORM)
def policy(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="Only this kind's, ready to be sent.")] = "",
) -> None:
    """Print the ISM policies that would delete old indices, as JSON: of one kind, or of all by the policy's name.

    Siteward deletes old indices itself; this is for clusters whose owners want the plugin to do so.
    """
    from monitoring.stores.opensearch.policy import policy_of  # noqa: PLC0415  # `--help` needs none of it.
    from monitoring.stores.opensearch.templates import family  # noqa: PLC0415  # as above.
    from monitoring.stores.questions import known_kind  # noqa: PLC0415  # as above.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.

    settings = options(context).settings
    kinds = load_kinds(settings.kinds)
    prefix = settings.monitoring.prefix
    if not kind:
        policies = {family(prefix, each): policy_of(each, prefix) for each in kinds.values()}
        show_object({name: made for name, made in policies.items() if made is not None})
        return
    made = policy_of(known_kind(kinds, kind), prefix)
    if made is None:
        tell(f"records of the kind {kind!r} are kept for ever; it has no policy")
        raise typer.Exit(1)
    show_object(made)


def _is_opensearch(settings: Settings) -> bool:
    return settings.monitoring_url.partition("://")[0] in SCHEMES


def _upgrade(settings: Settings, *, dry_run: bool) -> list[Change]:
    """Every kind's differences; put right where all of the kind's can be."""
    from monitoring.stores.opensearch import upgrading  # noqa: PLC0415  # `--help` needs none of it.
    from monitoring.stores.opensearch.addresses import address_of, client_of  # noqa: PLC0415  # as above.
    from monitoring.stores.opensearch.differences import Step, differences  # noqa: PLC0415  # as above.
    from monitoring.stores.opensearch.templates import check_names  # noqa: PLC0415  # as above.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.

    kinds = load_kinds(settings.kinds)
    check_names(kinds, settings.monitoring.prefix)
    address = address_of(settings.monitoring_url, settings.monitoring)
    found: list[Change] = []
    with closing(client_of(address, settings.monitoring)) as client:
        for kind in kinds.values():
            present = upgrading.read_present(client, address.shown, settings.monitoring, kind)
            changes = differences(kind, settings.monitoring, present)
            if not dry_run and not any(change.step is Step.NEVER for change in changes):
                upgrading.apply(client, address.shown, settings.monitoring, kind, present, changes)
            found += changes
    return found
