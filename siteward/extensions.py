"""The only reader of entry points: what Siteward and its extensions bring, by group and name."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

GROUPS: Final[dict[str, str]] = {
    "siteward.kinds": "record kinds: a class derived from Event, Snapshot or Interval",
    "siteward.brokers": "brokers by URL scheme: `open(url, settings) -> Broker`",
    "siteward.stores": "monitoring stores by URL scheme: `open(url, settings, kinds) -> Store`",
    "siteward.services": "what `siteward up` supervises: `run(settings, stop) -> None`",
    "siteward.sources": "importers: a Source (see collectors.sources)",
    "siteward.probes": "probes: a Probe (see collectors.probes)",
    "siteward.steps": "enrichments: a function from Batch to Batch, applied by every collector in order of their names",
    "siteward.sinks": "sinks by queue name: `open(settings, kinds) -> Sink`",
    "siteward.routers": "HTTP routes: `router(settings) -> APIRouter`",
    "siteward.tasks": "periodic tasks: a Task (see siteward.server.schedule)",
    "siteward.commands": "commands of the CLI: a function or a Typer app",
}
"""Every extension point, with the contract in a line. Siteward's own parts register here as an extension's do."""

OWN: Final = "siteward"
"""The name of our own distribution."""
PACKAGES: Final = ("siteward", "collectors", "monitoring", "accounting", "resource_status", "dashboards")
"""Import names that belong to Siteward."""


class ExtensionError(RuntimeError):
    """An extension that cannot be used: a name taken twice, code that does not load, a package from elsewhere."""


class Found(msgspec.Struct, frozen=True):
    """One entry point and the distribution that brings it."""

    group: str
    name: str
    value: str
    distribution: str
    version: str

    def load(self) -> Any:  # noqa: ANN401  # what it is depends on the group.
        """Import the object.

        Raises:
            ExtensionError: naming the entry point, its distribution and what went wrong.
        """
        try:
            return EntryPoint(self.name, self.value, self.group).load()
        except Exception as error:
            message = f"{self.group}: {self.name!r} of {self.distribution} {self.version} does not load: {error}"
            raise ExtensionError(message) from error


@cache
def found(group: str) -> dict[str, Found]:
    """What is installed under a group, by name.

    Raises:
        ExtensionError: a name is taken twice; both distributions are named.
    """
    if group not in GROUPS:
        message = f"no extension point is called {group!r}; there are {', '.join(GROUPS)}"
        raise ExtensionError(message)
    by_name: dict[str, Found] = {}
    for entry in _entries():
        if entry.group != group:
            continue
        other = by_name.get(entry.name)
        if other is not None:
            message = (
                f"{group}: the name {entry.name!r} is taken twice, by {other.distribution} ({other.value}) "
                f"and by {entry.distribution} ({entry.value}); uninstall one of them"
            )
            raise ExtensionError(message)
        by_name[entry.name] = entry
    return dict(sorted(by_name.items()))


def foreign(group: str) -> list[Found]:
    """What others than Siteward itself have installed under a group.

    Raises:
        ExtensionError: a name is taken twice.
    """
    return [entry for entry in found(group).values() if entry.distribution != OWN]


def load(group: str, name: str) -> Any:  # noqa: ANN401  # what it is depends on the group.
    """The object registered under a name.

    Raises:
        ExtensionError: nothing of that name is installed, or it does not load.
    """
    entry = found(group).get(name)
    if entry is None:
        message = f"{group}: nothing is called {name!r}; installed are {', '.join(found(group)) or 'none'}"
        raise ExtensionError(message)
    return entry.load()


@cache
def _entries() -> tuple[Found, ...]:
    """Every entry point of ours and our extensions, each distribution once: a path listed twice lists it twice."""
    described: dict[int, tuple[str, str]] = {}
    entries: list[Found] = []
    installed = entry_points()
    for entry in (entry for group in GROUPS for entry in installed.select(group=group)):
        distribution = entry.dist
        assert distribution is not None, "it was found installed"
        # Asked for once, and of nobody else: to tell it, a distribution's description is parsed, README included.
        if id(distribution) not in described:
            described[id(distribution)] = _name(distribution), distribution.version
        entries.append(Found(entry.group, entry.name, entry.value, *described[id(distribution)]))
    return tuple(entries)


def _name(distribution: Distribution) -> str:
    return distribution.name.lower().replace("_", "-")


def check_packages() -> None:
    """Refuse to run when one of our packages would be imported from somewhere else.

    `monitoring` or `collectors` are names that another distribution, or a file in the working directory, may have.

    Raises:
        ExtensionError: naming both places.
    """
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        spec = sys.modules[package].__spec__ if package in sys.modules else find_spec(package)
        if spec is None:
            continue
        place = (
            Path(spec.origin).resolve().parent
            if spec.origin
            else Path(next(iter(spec.submodule_search_locations or ["?"])))
        )
        if place != home / package:
            message = (
                f"the package {package!r} comes from {place}, but Siteward's own is in {home / package}; "
                "remove the other one or start elsewhere"
            )
            raise ExtensionError(message)
