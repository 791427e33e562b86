"""`siteward config`: the settings in force, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import reads
from siteward.hiding import HIDDEN, without_password
from siteward.kinds import load_kinds
from siteward.kinds.booked import booked_kinds
from siteward.server.auth import Permission
from siteward.settings import PREFIX, SECRET_NAMES, Settings, load_settings, told_passwords

commands = typer.Typer(help="The settings in force.", **PLAIN)


@commands.callback()
def config() -> None:
    """The settings in force."""


@commands.command(short_help="Check all settings and show where each comes from.")
@reads(Permission.PLATFORM)
def check(context: typer.Context) -> None:
    """Check all settings and show each with where it comes from; secrets stay hidden."""
    chosen = options(context)
    settings = chosen.quiet_settings
    booked_kinds(settings, load_kinds(settings.kinds))
    _check_databases(settings)
    for said in told_passwords(settings):
        tell(said)
    path = settings_file(chosen.config)
    tell(f"settings file: {path.resolve() if path else 'none'}")
    in_file = dict(_flat(load_settings(path, environ={}))) if path else {}
    stands_for = _in_force(settings)
    rows = [
        (key, _shown(key, value or stands_for.get(key, value)), _origin(key, value, in_file))
        for key, value in _flat(settings)
    ]
    show(("setting", "value", "from"), rows, chosen.output)


def _check_databases(settings: Settings) -> None:
    """Where what opens them is installed; who only emits has no databases."""
    try:
        from siteward.server.databases import check_databases  # noqa: PLC0415  # as the docstring says.
    except ModuleNotFoundError:
        return
    check_databases(settings)


def settings_file(chosen: Path | None) -> Path | None:
    """The file that is read: the chosen one, SITEWARD_CONFIG, or ./siteward.toml where it is there."""
    if chosen is not None:
        return chosen
    if os.environ.get(f"{PREFIX}CONFIG"):
        return Path(os.environ[f"{PREFIX}CONFIG"])
    usual = Path("siteward.toml")
    return usual if usual.is_file() else None


def _flat(section: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            yield from _flat(value, f"{prefix}{name}.")
        elif name == "kinds" and not prefix:
            yield from ((f"kinds.{kind}", "declared") for kind in value)
        else:
            yield f"{prefix}{name}", value


def _in_force(settings: Settings) -> dict[str, str]:
    """What an empty setting stands for."""
    return {
        "data": str(settings.folder),
        "broker.url": settings.broker_url,
        "monitoring.url": settings.monitoring_url,
        "accounting.url": settings.accounting_url,
        "emitter.spool": str(settings.spool),
    }


def _shown(key: str, value: Any) -> Any:  # noqa: ANN401  # a setting of any type.
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return {name: _shown(name, each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown("", each) for each in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if value and key.rpartition(".")[2] in SECRET_NAMES else without_password(value)


def _origin(key: str, value: Any, in_file: dict[str, Any]) -> str:  # noqa: ANN401  # a setting of any type.
    variable = PREFIX + key.upper().replace(".", "__")
    for name in (variable, f"{variable}_FILE"):
        if name in os.environ:
            return f"environment ({name})"
    return "file" if key in in_file and value != dict(_flat(Settings())).get(key) else "default"
