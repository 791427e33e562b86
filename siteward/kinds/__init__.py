"""All record kinds of this installation: our own, those of extensions, those declared in the settings file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siteward import extensions
from siteward.records import DeclarationError, Kind, kind_from_table, kind_of

Kinds = Mapping[str, Kind]
"""Kinds by name."""


def load_kinds(tables: Mapping[str, Any] | None = None) -> dict[str, Kind]:
    """Compile every kind once.

    Args:
        tables: `[kinds.NAME]` of the settings file.

    Raises:
        DeclarationError: a declaration contradicts itself, or a name is taken twice, `-` and `_` being one.
        siteward.extensions.ExtensionError: an extension's kind does not load.
    """
    kinds: dict[str, Kind] = {}
    for name, entry in extensions.found("siteward.kinds").items():
        kind = kind_of(entry.load())
        if kind.name != name:
            message = f"entry point {name!r} of {entry.distribution} declares the kind {kind.name!r}; use one name"
            raise DeclarationError(message)
        kinds[name] = kind
    for name, table in (tables or {}).items():
        if name in kinds:
            owner = extensions.found("siteward.kinds")[name].distribution
            message = f"kind {name!r} of the settings file exists already, from {owner}"
            raise DeclarationError(message)
        kinds[name] = kind_from_table(name, table)
    _check_apart(kinds)
    return kinds


def _check_apart(kinds: Kinds) -> None:
    """Refuse two names that differ in `-` and `_` only: stores have one table for both."""
    names: dict[str, str] = {}
    for name in kinds:
        other = names.setdefault(name.replace("-", "_"), name)
        if other != name:
            message = f"kinds {other!r} and {name!r} would share their tables; give one of them another name"
            raise DeclarationError(message)
