"""What differs between the tables of a kind and its declaration, and who may change it; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from accounting.migrations.meaning import Meaning, Place, Spot, meanings_of, used_by
from accounting.tables import PREVIOUS
from siteward.records import Kind

FROM: Final = "in records as "
"""Before the name of the column from which another one is filled."""


class Step(StrEnum):
    """When a difference goes away."""

    AT_START = "at start"
    """Whoever opens the ledger next makes it, in no time."""
    BY_UPGRADE = "by upgrade"
    """`siteward ledger upgrade`: records are computed anew, or a process with an older declaration may want it back."""
    NEVER = "never"
    """What is booked would no longer mean what it says."""


class Change(msgspec.Struct, frozen=True):
    """One difference.

    Attributes:
        where: for people, such as `job series`.
        what: the column, with what of it differs.
        present: in the database; "" where it is not there.
        wanted: by the kind; "" where it wants none.
        step: when it goes away.
        spot: the column; None for what is not one.
    """

    where: str
    what: str
    present: str
    wanted: str
    step: Step
    spot: Spot | None = None


class Standing(msgspec.Struct, frozen=True):
    """A column as it is in the database.

    Attributes:
        meaning: what it holds.
        lost: its kind has not had it for a while; rows of that time hold the default.
    """

    meaning: Meaning
    lost: bool = False


def differences(kind: Kind, standing: Mapping[Spot, Standing], *, is_empty: bool) -> list[Change]:
    """What has to change for the tables to be the kind's.

    Args:
        kind: as it is declared now.
        standing: what its tables hold.
        is_empty: nothing of the kind is booked.
    """
    if not standing:
        return [Change(kind.name, "tables", "", "there", Step.AT_START)]
    wanted = meanings_of(kind)
    found: list[Change] = []
    for spot, meaning in wanted.items():
        known = standing.get(spot)
        if spot[0] is Place.SUMS:
            found += _of_sum(kind, standing, spot, meaning, is_empty=is_empty)
        elif known is None or known.lost:
            found += _gained(kind, standing, spot, meaning, is_empty=is_empty)
        if known is not None and spot[0] is not Place.SUMS:
            found += _changed(kind, known.meaning, spot, meaning, is_empty=is_empty)
    for spot, known in standing.items():
        if spot not in wanted and not known.lost:
            found.append(_change(kind, spot, str(known.meaning), "", Step.BY_UPGRADE))
    return found


def _change(kind: Kind, spot: Spot, present: str, wanted: str, step: Step, of: str = "") -> Change:
    place, name = spot
    return Change(f"{kind.name} {place}", f"{of} of {name}" if of else name, present, wanted, step, spot)


def source_of(kind: Kind, standing: Collection[Spot], spot: Spot) -> Spot | None:
    """The column of records from which a new one is filled: of a dimension that enters buckets, or a former field."""
    column = kind.column.get(spot[1])
    former = column.former if column and spot[0] is Place.RECORDS else None
    source = (Place.RECORDS, former.name if former else spot[1])
    return source if (former or spot[0] is Place.SERIES) and source in standing else None


def _gained(
    kind: Kind, standing: Mapping[Spot, Standing], spot: Spot, meaning: Meaning, *, is_empty: bool
) -> Iterator[Change]:
    known = standing.get(spot)
    source = None if known else source_of(kind, standing, spot)
    # Nobody knows what records of before would have said that are not filled from a field, or not all of them.
    is_filled = source is not None and not standing[source].meaning.optional
    is_missing = spot[1] in kind.column and kind.column[spot[1]].required and not is_filled and not is_empty
    wanted = f"{meaning} without a default, which records of before need" if is_missing else str(meaning)
    if source:
        step = Step.NEVER if is_missing else Step.AT_START if is_empty else Step.BY_UPGRADE
        yield Change(f"{kind.name} {spot[0]}", spot[1], f"{FROM}{source[1]}", wanted, step, spot)
        return
    if spot[1] == PREVIOUS:
        # Of each record the one before it has to be found.
        step = Step.AT_START if is_empty else Step.BY_UPGRADE
        yield _change(kind, spot, "", str(meaning), step)
        return
    present = "left" if known else ""
    yield _change(kind, spot, present, wanted, Step.NEVER if is_missing else Step.AT_START)


def _changed(kind: Kind, old: Meaning, spot: Spot, new: Meaning, *, is_empty: bool) -> Iterator[Change]:
    if old.type != new.type:
        yield _change(kind, spot, str(old), str(new), Step.NEVER, "type")
        return
    if old.length != new.length:
        step = Step.AT_START if new.length > old.length else Step.NEVER
        yield _change(kind, spot, str(old.length), str(new.length), step, "length")
    if old.optional != new.optional:
        step = Step.AT_START if new.optional or is_empty else Step.NEVER
        words = ("always known", "maybe unknown")
        yield _change(kind, spot, words[old.optional], words[new.optional], step, "knowledge")
    if (type(old.default), old.default) != (type(new.default), new.default):
        # Series whose value was the default are known by a digest without it: they would be taken for others.
        step = Step.AT_START if is_empty else Step.NEVER
        yield _change(kind, spot, repr(old.default), repr(new.default), step, "default")


def _of_sum(
    kind: Kind, standing: Mapping[Spot, Standing], spot: Spot, meaning: Meaning, *, is_empty: bool
) -> Iterator[Change]:
    known = standing.get(spot)
    if known is not None and not known.lost and known.meaning == meaning:
        return
    is_right = is_empty or (known is None and _is_nothing(kind, standing, spot[1]))
    present = "" if known is None else "left" if known.lost else str(known.meaning)
    yield _change(kind, spot, present, str(meaning), Step.AT_START if is_right else Step.BY_UPGRADE)


def _is_nothing(kind: Kind, standing: Mapping[Spot, Standing], name: str) -> bool:
    """Whether a new sum is zero over all records of before: they have nothing in a field that is new as well."""
    multiplied, known = used_by(kind, name)
    new = {
        each
        for each in (*multiplied, *known)
        if (spot := (Place.RECORDS, each)) not in standing and not source_of(kind, standing, spot)
    }
    if kind.of_instants:
        # What is zero was once the least; what is unknown was not.
        return any(kind.column[each].default is None for each in (*multiplied, *known) if each in new)
    return any(not kind.column[each].default for each in multiplied if each in new) or any(
        kind.column[each].default is None for each in known if each in new
    )
