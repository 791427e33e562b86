"""`siteward kinds`: the record kinds of this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, show_object
from siteward.cli.verbs import reads
from siteward.kinds import load_kinds
from siteward.records import Dimension, Kind, Measure
from siteward.records.doors import nearest
from siteward.server.auth import Permission

commands = typer.Typer(help="The record kinds of this installation.", **PLAIN)
Name = Annotated[str, typer.Argument(metavar="KIND", help="Name of the kind, such as job.")]


@commands.callback(invoke_without_command=True)
@reads(Permission.PUBLIC)
def kinds(context: typer.Context) -> None:
    """List the record kinds of this installation, or show one."""
    if context.invoked_subcommand:
        return
    rows = [
        (
            kind.name,
            str(kind.shape),
            len(kind.dimensions),
            len(kind.measures),
            kind.retention.days if kind.retention else None,
            kind.doc,
        )
        for kind in _kinds(context).values()
    ]
    columns = ("kind", "shape", "dimensions", "measures", "retention_days", "description")
    show(columns, rows, options(context).output)


@commands.command("show")
@reads(Permission.PUBLIC)
def show_schema(context: typer.Context, kind: Name) -> None:
    """Show a kind as JSON Schema."""
    from siteward.records.schema import json_schema  # noqa: PLC0415  # of no use to the other commands.

    show_object(json_schema(find_kind(_kinds(context), kind)))


@commands.command()
@reads(Permission.PUBLIC)
def describe(context: typer.Context, kind: Name) -> None:
    """Show a kind's fields: type, role, unit, and what they mean."""
    found = find_kind(_kinds(context), kind)
    rows: list[tuple[object, ...]] = [
        (
            column.name,
            " | ".join(column.values) or str(column.type),
            "dimension" if isinstance(column.role, Dimension) else "measure" if column.role else "time",
            column.unit,
            str(column.role.combine) if isinstance(column.role, Measure) else "",
            column.required,
            column.name in {"vo", found.time, *found.identity} if found.identity else False,
            column.personal,
            column.doc,
        )
        for column in found.columns
    ]
    rows += [
        (name, "integer", "product", product.unit, "sum", False, False, False, product.doc)
        for name, product in found.products.items()
    ]
    rows += [
        (name, "number", "ratio", ratio.unit, "", False, False, False, ratio.doc)
        for name, ratio in found.ratios.items()
    ]
    columns = ("field", "type", "role", "unit", "combine", "required", "identity", "personal", "description")
    show(columns, rows, options(context).output)


def _kinds(context: typer.Context) -> dict[str, Kind]:
    return load_kinds(options(context).quiet_settings.kinds)


def find_kind(known: dict[str, Kind], name: str) -> Kind:
    """The kind of a name.

    Raises:
        typer.BadParameter: none is called that; the nearest one is named.
    """
    if name not in known:
        message = f"no kind is called {name!r}{nearest(name, tuple(known))}; see `siteward kinds`"
        raise typer.BadParameter(message)
    return known[name]
