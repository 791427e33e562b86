"""The command `siteward`: commands are found by entry point, and only the chosen one is imported."""

from __future__ import annotations

import ast
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from siteward import __version__
from siteward.cli.options import Options
from siteward.cli.output import FORMS, tell
from siteward.cli.verbs import declared
from siteward.extensions import PACKAGES, ExtensionError, Found, check_packages, found

GROUP = "siteward.commands"
PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""How our own Typer apps are made: help as plain text (rich costs more than most commands take)."""


class Listed(TyperCommand):
    """A command known by its entry point only: enough to be listed, not to be run."""

    def __init__(self, entry: Found) -> None:
        """Take the name; the line of help is read when it is shown."""
        super().__init__(entry.name)
        self._entry = entry

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002  # one sentence, whatever the width.
        """The first line of the command's docstring, read from the source without importing it."""
        line = first_line(self._entry.value).removeprefix(f"`siteward {self.name}`: ")
        return line[:1].upper() + line[1:]


class Commands(TyperGroup):
    """Our own and our extensions' commands, by name."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401  # Typer's, passed on.
        """List what is installed."""
        super().__init__(**attributes)
        self._entries = found(GROUP)
        self.commands = {name: Listed(entry) for name, entry in self._entries.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # click's classes have moved.
        """Import the chosen command."""
        entry = self._entries.get(args[0])
        return (args[0], command_of(entry), args[1:]) if entry else super().resolve_command(ctx, args)


def command_of(entry: Found) -> Any:  # noqa: ANN401  # click's classes have moved.
    """The runnable command of an entry point: a function, or a Typer app with commands of its own.

    Raises:
        ExtensionError: it does not load, or declares no permission.
    """
    loaded = entry.load()
    if isinstance(loaded, typer.Typer):
        return declared(get_group(loaded), entry.name)
    single = typer.Typer(**PLAIN)
    single.command(entry.name)(loaded)
    return declared(get_command(single), entry.name)


def first_line(value: str) -> str:
    """The first docstring line of what an entry point names, or of its module; "" where its source is not there."""
    module, _, name = value.partition(":")
    path = _source(module)
    if path is None:
        return ""
    tree = ast.parse(path.read_bytes())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    text = ast.get_docstring(next(functions, tree)) or ast.get_docstring(tree) or ""
    return text.partition("\n")[0]


def _source(module: str) -> Path | None:
    """Where a module's source is, found without importing the packages above it."""
    places: list[str] | None = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


application = typer.Typer(cls=Commands, no_args_is_help=True, **PLAIN)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"siteward {__version__}")
        raise typer.Exit


def _form(output: str) -> str:
    if output not in FORMS:
        message = f"{output!r} is not one of {', '.join(FORMS)}"
        raise typer.BadParameter(message)
    return output


@application.callback()
def siteward(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file (TOML). By default SITEWARD_CONFIG, else ./siteward.toml if it is there."),
    ] = None,
    output: Annotated[
        str, typer.Option(callback=_form, metavar="FORM", help="How to answer: table, json or csv.")
    ] = "table",
    version: Annotated[  # noqa: ARG001  # its callback answers.
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Monitoring, accounting and resource status for distributed computing."""
    context.obj = Options(config, output)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 refused or failed, 2 wrong usage or settings.

    Expected errors are one line on standard error; a reader that closes its end of the pipe ends us in silence.
    """
    try:
        check_packages()
        get_group(application).main(args=arguments, prog_name="siteward")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in PACKAGES:
            raise
        tell(f"siteward: this needs {error.name}, which the base install leaves out: pip install 'siteward[server]'")
        sys.exit(1)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        tell(f"siteward: {error}")
        sys.exit(code)
    finally:
        _flush()


def exit_code(error: Exception) -> int | None:
    """The exit code of an expected error: 2 for usage and settings, 1 for files and anything else; None if unexpected.

    Our own errors say whether they are permanent; that is how those of extensions and other rooms are known.
    """
    from siteward.query import QueryError  # noqa: PLC0415  # only a failing command needs these.
    from siteward.records import DeclarationError  # noqa: PLC0415
    from siteward.settings import SettingsError  # noqa: PLC0415

    if isinstance(error, (SettingsError, DeclarationError, ExtensionError, QueryError)):
        return 2
    return 1 if hasattr(error, "permanent") or isinstance(error, OSError) else None


def _flush() -> None:
    """Write out what is left, or nothing where nobody reads: Python itself would complain at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
