"""What values of dimensions belong to, and since when: the country of a site, its federation, its tier; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

import msgspec

from accounting.booking.buckets import DAY

_ALWAYS: Final = -(2**62)
_EVER: Final = 2**62
_DAYS: Final = "%Y-%m-%d"
Closed = Mapping[str, Sequence[tuple[int, int]]]
"""By dimension, the stretches of seconds of which figures by it are closed, in order."""
NONE_CLOSED: Final[Closed] = {}
Key = tuple[str, str, str]
"""Dimension, value, attribute."""


class TopologyError(ValueError):
    """A topology that says two things, or changes what was said of the past; the message names the entry."""

    permanent = True


class Entry(msgspec.Struct, frozen=True):
    """What one value of a dimension belongs to for some time.

    Attributes:
        dimension: such as `site`.
        value: of the dimension.
        attribute: such as `country`.
        attribute_value: what it is while this entry is valid.
        valid_from: first instant, seconds since 1970 UTC, the start of a UTC day; None is always.
        valid_to: first instant after it, the same; None is for ever.
    """

    dimension: str
    value: str
    attribute: str
    attribute_value: str
    valid_from: int | None = None
    valid_to: int | None = None

    @property
    def key(self) -> Key:
        """What of its kind only one entry may say at an instant."""
        return self.dimension, self.value, self.attribute

    @property
    def start(self) -> int:
        """First instant, seconds since 1970 UTC."""
        return _ALWAYS if self.valid_from is None else self.valid_from

    @property
    def end(self) -> int:
        """First instant after it."""
        return _EVER if self.valid_to is None else self.valid_to


class Topology:
    """Entries that do not contradict each other."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Order them.

        Raises:
            TopologyError: an entry ends before it starts, or not at a UTC midnight; or two entries are valid at once.
        """
        self._entries: dict[Key, list[Entry]] = {}
        for entry in sorted(entries, key=lambda entry: (entry.key, entry.start)):
            _check(entry)
            self._entries.setdefault(entry.key, []).append(entry)
        for known in self._entries.values():
            for one, other in pairwise(known):
                if other.start < one.end:
                    message = f"{_named(other)}: {one.attribute_value!r} is valid until {_day(one.end)} already"
                    raise TopologyError(message)

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """The attributes that each dimension has."""
        found: dict[str, dict[str, None]] = {}
        for dimension, _, attribute in self._entries:
            found.setdefault(dimension, {})[attribute] = None
        return {dimension: tuple(sorted(attributes)) for dimension, attributes in found.items()}

    def __iter__(self) -> Iterator[Entry]:
        """Entries in order."""
        return (entry for known in self._entries.values() for entry in known)

    def at(self, key: Key, second: int) -> str | None:
        """What a value belongs to at an instant; None where nobody said."""
        for entry in self._entries.get(key, ()):
            if entry.start <= second < entry.end:
                return entry.attribute_value
        return None

    def instants(self, key: Key) -> list[int]:
        """The instants at which entries of a key start and end, seconds since 1970 UTC."""
        return [instant for entry in self._entries.get(key, ()) for instant in (entry.start, entry.end)]

    def changes(self, dimension: str, attribute: str) -> list[int]:
        """The instants at which any value's attribute changes, seconds since 1970 UTC, ascending."""
        named = [entry for entry in self if (entry.dimension, entry.attribute) == (dimension, attribute)]
        instants = {instant for entry in named for instant in (entry.valid_from, entry.valid_to)}
        return sorted(instant for instant in instants if instant is not None)


def replaced(old: Topology, entries: Sequence[Entry]) -> Topology:
    """A topology with the attributes that new entries name said anew, and all others as they were.

    Raises:
        TopologyError: the new entries contradict each other.
    """
    named = {(entry.dimension, entry.attribute) for entry in entries}
    kept = [entry for entry in old if (entry.dimension, entry.attribute) not in named]
    return Topology([*kept, *entries])


def past_changes(old: Topology, new: Topology, now: int, closed: Closed = NONE_CLOSED) -> list[str]:
    """What a new topology says otherwise of the time before an instant than the old one did, in words.

    Where the old one said nothing, nothing is rewritten, but in closed months: what was unknown was a figure, too.
    """
    found = []
    for entry in old:
        within = [entry.start, *new.instants(entry.key)]
        for second in sorted(instant for instant in within if entry.start <= instant < min(entry.end, now)):
            said = new.at(entry.key, second)
            if said != entry.attribute_value:
                now_said = "unknown" if said is None else repr(said)
                found.append(f"{_named(entry)}: {entry.attribute_value!r} becomes {now_said} from {_day(second)} on")
                break
    for entry in new:
        first = next(_unknown_before(old, entry, closed.get(entry.dimension, ())), None)
        if first is not None:
            said = f"what was unknown becomes {entry.attribute_value!r} from {_day(first)} on, in a closed month"
            found.append(f"{_named(entry)}: {said}")
    return found


def _unknown_before(old: Topology, entry: Entry, stretches: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The seconds within stretches from which on a new entry says what was unknown."""
    for first, last in stretches:
        begin, end = max(first, entry.start), min(last, entry.end)
        for second in sorted({begin, *old.instants(entry.key)}):
            if begin <= second < end and old.at(entry.key, second) is None:
                yield second


def _check(entry: Entry) -> None:
    for name, instant in (("from", entry.valid_from), ("to", entry.valid_to)):
        if instant is not None and instant % DAY:
            message = (
                f"{_named(entry)}: {name} {datetime.fromtimestamp(instant, UTC).isoformat()} is not the start of a UTC "
                "day; buckets lie within days, so that a move takes effect at midnight only"
            )
            raise TopologyError(message)
    if entry.end <= entry.start:
        message = f"{_named(entry)}: is valid to {_day(entry.end)}, not after {_day(entry.start)}"
        raise TopologyError(message)


def _named(entry: Entry) -> str:
    return f"{entry.dimension} {entry.value!r}, {entry.attribute}"


def _day(second: int) -> str:
    if second in {_ALWAYS, _EVER}:
        return "always" if second == _ALWAYS else "ever"
    return datetime.fromtimestamp(second, UTC).strftime(_DAYS)
