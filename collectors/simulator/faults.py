"""The catalogue of faults: what can be injected, how it is written, and the labels that say what was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from collectors.simulator.chance import generator
from collectors.simulator.grid import Grid
from collectors.simulator.load import DAY, HOUR, SECOND
from siteward.records import microseconds, moment
from siteward.records.doors import nearest

Target = Literal["site", "node", "user", "storage", "producer"]


class FaultError(ValueError):
    """A fault that cannot be injected; the message says what is possible."""

    permanent = True


class Entry(msgspec.Struct, frozen=True):
    """One line of the catalogue.

    Attributes:
        doc: what happens.
        target: what it happens to.
        shortest: shortest duration drawn at random, hours.
        longest: longest duration drawn at random, hours.
    """

    doc: str
    target: Target
    shortest: int
    longest: int


CATALOGUE: Final[dict[str, Entry]] = {
    "site-outage": Entry("running jobs are evicted, then no job finishes and every transfer fails", "site", 3, 24),
    "black-hole-node": Entry("one node takes job after job and fails each within seconds", "node", 2, 12),
    "failing-user": Entry("one user submits many jobs everywhere and all of them fail", "user", 4, 24),
    "slow-decay": Entry("CPU efficiency of a site falls steadily to a third of what it was", "site", 168, 504),
    "partial-doors": Entry("half of the doors of a storage refuse connections", "storage", 3, 48),
    "flapping": Entry("a site is good for an hour, then fails every job for an hour, and again", "site", 6, 36),
    "silent-producer": Entry(
        "nothing is heard: of a site's jobs, or of the storages that one producer reports; the work goes on",
        "producer",
        3,
        24,
    ),
    "downtime-announced": Entry("a downtime is announced two days ahead and held", "site", 4, 24),
    "downtime-changed": Entry("a downtime is moved by six hours one day before it begins", "site", 4, 24),
    "downtime-withdrawn": Entry(
        "a downtime is withdrawn one day before it would begin; nothing is down", "site", 4, 24
    ),
}


class Fault(msgspec.Struct, frozen=True):
    """One injected fault: the ground truth.

    Attributes:
        fault: its name in the catalogue.
        target: name of the site, node, user, storage or producer.
        start: when it begins, microseconds since 1970 UTC.
        end: when it is over.
        details: what else there is to know, such as the node's site.
    """

    fault: str
    target: str
    start: int
    end: int
    details: dict[str, str] = {}

    def holds(self, time: int) -> bool:
        """Whether it is going on at an instant."""
        return self.start <= time < self.end

    def label(self) -> bytes:
        """The line of the file of labels: JSON, with times as RFC 3339."""
        return msgspec.json.encode(
            {
                "fault": self.fault,
                "target": self.target,
                "start": moment(self.start),
                "end": moment(self.end),
                "details": self.details,
            }
        )


class Faults:
    """All faults of a simulation, found by name and target."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        """Take them in any order."""
        self.all = tuple(sorted(faults, key=lambda fault: (fault.start, fault.fault, fault.target)))

    def during(self, hour: int, *names: str) -> list[Fault]:
        """Those of these names that hold at some instant of an hour since 1970."""
        start = hour * HOUR
        return [f for f in self.all if f.fault in names and f.start < start + HOUR and f.end > start]


def space_producer(vo: str) -> str:
    """Name of the producer that reports a community's storages."""
    return f"sim-space@{vo}"


def make_fault(name: str, target: str, start: int, end: int, grid: Grid) -> Fault:
    """A fault with its details filled in.

    Args:
        name: one of CATALOGUE.
        target: name of what it happens to; for black-hole-node a node, or a site, of which the first node is taken.
        start: microseconds since 1970 UTC.
        end: later than start.
        grid: where it happens.

    Raises:
        FaultError: nothing has that name.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        message = f"no fault is called {name!r}; there are {', '.join(CATALOGUE)}"
        raise FaultError(message)
    if end <= start:
        message = f"fault {name}: lasts no time"
        raise FaultError(message)
    known = _targets(grid, entry.target)
    if target not in known:
        message = f"fault {name}: no {entry.target} is called {target!r}{nearest(target, tuple(known))}"
        raise FaultError(message)
    resolved, details = known[target]
    if name == "partial-doors":
        details = details | {"doors": ", ".join(broken_doors(grid, resolved))}
    return Fault(name, resolved, start, end, details)


def _targets(grid: Grid, kind: Target) -> dict[str, tuple[str, dict[str, str]]]:
    """What may be named as a target of a kind: the full name and the details it brings."""
    match kind:
        case "site":
            return {site.name: (site.name, {}) for site in grid.sites}
        case "node":
            nodes = {node: (node, {"site": site.name}) for site in grid.sites for node in site.nodes}
            return nodes | {site.name: (site.nodes[0], {"site": site.name}) for site in grid.sites}
        case "user":
            return {user: (user, {"vo": vo.name}) for vo in grid.vos for user in vo.users.items}
        case "storage":
            return {storage.name: (storage.name, {"site": storage.site}) for storage in grid.storages if storage.doors}
        case "producer":
            names = [*(site.name for site in grid.sites), *dict.fromkeys(space_producer(s.vo) for s in grid.storages)]
            return {name: (name, {}) for name in names}


def broken_doors(grid: Grid, storage: str) -> list[str]:
    """The doors that `partial-doors` breaks."""
    doors = next(place.doors for place in grid.storages if place.name == storage)
    return [door for door, _ in doors[: len(doors) // 2]]


def parse_fault(text: str, grid: Grid, now: int) -> Fault:
    """Read `NAME:TARGET:START:DURATION`, such as `site-outage:SIM-T1-DE-1:-3d:8h`.

    Args:
        text: START is an RFC 3339 time or date (UTC where it says no offset), or relative to now, such as `-36h`.
        grid: where it happens.
        now: microseconds since 1970 UTC.

    Raises:
        FaultError: with the part that cannot be read.
    """
    name, _, rest = text.partition(":")
    target, _, rest = rest.partition(":")
    begin, _, duration = rest.rpartition(":")
    if not (name and target and begin and duration):
        message = f"fault {text!r}: expected NAME:TARGET:START:DURATION, such as site-outage:SITE:-3d:8h"
        raise FaultError(message)
    start = _start(begin, now)
    return make_fault(name, target, start, start + _duration(duration), grid)


_UNITS: Final = {"s": SECOND, "m": 60 * SECOND, "h": HOUR, "d": DAY, "w": 7 * DAY}


def _duration(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII)
    if found is None:
        message = f"duration {text!r}: expected a number and one of s, m, h, d, w, such as 8h"
        raise FaultError(message)
    return int(found[1]) * _UNITS[found[2]]


def _start(text: str, now: int) -> int:
    if text[0] in "+-":
        distance = _duration(text[1:])
        return now - distance if text[0] == "-" else now + distance
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"start {text!r}: expected a time such as 2026-11-01T10:00Z, or one relative to now such as -3d"
        raise FaultError(message) from error
    return microseconds(at if at.tzinfo else at.replace(tzinfo=UTC))


def random_faults(count: int, grid: Grid, start: int, end: int) -> list[Fault]:
    """Draw faults of all names in turn, somewhere in a window; equal arguments draw equal faults."""
    chance = generator(grid.seed, "faults", start, end)
    names = sorted(CATALOGUE)
    chance.shuffle(names)
    drawn: list[Fault] = []
    for number in range(count):
        name = names[number % len(names)]
        entry = CATALOGUE[name]
        targets = sorted(_targets(grid, entry.target))
        if not targets:
            continue
        length = min(chance.randint(entry.shortest, entry.longest) * HOUR, max(end - start, HOUR))
        begin = start + int(chance.random() * max(end - start - length, 0))
        drawn.append(make_fault(name, chance.choice(targets), begin, begin + length, grid))
    return drawn


def labels(faults: Sequence[Fault]) -> bytes:
    """The file of labels: one JSON object per line."""
    return b"".join(fault.label() + b"\n" for fault in faults)
