"""The three shapes of a record, as classes that a kind derives from: Event, Snapshot, Interval."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, dataclass_transform

import msgspec

from siteward.records.fields import Combine, Dimension, Measure

Tier = tuple[timedelta | None, timedelta]
"""Up to which age records lie in buckets of which width; None is everything older."""
NO_OPTIONS: Final[dict[str, Any]] = {}


class _RecordMeta(msgspec.StructMeta):
    """Takes the class arguments of a declaration (kind, identity …) out of msgspec's way."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **options: object,
    ) -> _RecordMeta:
        cls = super().__new__(mcls, name, bases, namespace, kw_only=True)
        cls.kind_options = options
        return cls

    kind_options: dict[str, Any]


@dataclass_transform(kw_only_default=True)
class Record(msgspec.Struct, metaclass=_RecordMeta):
    """What every record has, whatever its kind.

    A record is a plain value: building one checks nothing, the Emitter and every other door do.
    """

    kind_options: ClassVar[dict[str, Any]] = NO_OPTIONS

    vo: Annotated[str, Dimension("the community (VO) the record belongs to; `all` for shared infrastructure")]
    simulated: Annotated[bool, Dimension("made by the simulator, not measured")] = False
    revision: Annotated[
        int, Measure("a newer revision of the same record replaces the older", unit="1", combine=Combine.MAX)
    ] = 0

    def __init_subclass__(  # noqa: PLR0913  # a declaration has as many options as there are.
        cls,
        *,
        kind: str = "",
        identity: Sequence[str] | None = None,
        partition: str = "",
        retention: timedelta | None = None,
        ahead: timedelta | None = None,
        longest: timedelta | None = None,
        tiers: Sequence[Tier] | None = None,
        booked: bool = True,
        archived: bool = True,
        since: str = "",
        sent_by: str = "",
    ) -> None:
        """Say what a declaration may give; the metaclass takes it.

        Args:
            kind: the kind's name: lower case, words joined by `-`.
            identity: fields that, beside the VO, make two records the same. By default snapshots have instant,
                producer and all dimensions, other records none: each is a new one. Where all of them have a default,
                a record that leaves them all empty has no identity either.
            partition: the immutable time under which records are filed; by default `time`, or `end` of an interval.
            retention: how long the monitoring store keeps them; by default for ever.
            ahead: how far in the future times may lie; by default one day.
            longest: longest interval, or time since `since`, that is booked without a person looking at it; by
                default twenty years. A longer record is accepted, and set aside by the ledger.
            tiers: ages and widths of the ledger's buckets: by default by the hour for eight days, then by the day.
            booked: whether the accounting ledger takes its records; false for what nobody accounts for.
            archived: whether the ledger's records of it may leave the database for the archive; false for those that
                other answers are made of, and of which there are few.
            since: the time from which a snapshot's counters count; given where it has measures that are counters.
                Records that are the same but for their instant tell of the same counters.
            sent_by: the permission that, beside reporting, lets somebody send them over HTTP, in the VOs and for the
                sites where it is held: `operate`, for what people say, and no service.
        """


class Event(Record):
    """Something that happened at one instant: a status change, a transfer, a log line."""

    time: datetime


class Snapshot(Record):
    """What a producer saw at one instant, as one of the records of a cycle.

    A producer looks at the world again and again; each look is a cycle, and all records of one cycle carry
    the same `time`. `cycle_size` says how many they are, so that a cycle that arrived in part is known to be
    incomplete, and a series that is missing from a complete one is known to be zero.
    """

    time: datetime
    producer: Annotated[str, Dimension("who looked: one name for each independent series of cycles")]
    cycle_size: Annotated[
        int,
        Measure("records of this kind that the producer sent in this cycle", unit="1", combine=Combine.LAST, minimum=1),
    ] = 1


class Interval(Record):
    """Something that lasted from `start` to `end`, half-open: a job, a downtime."""

    start: datetime
    end: datetime


EARLIEST: Final = datetime.fromisoformat("1990-01-01T00:00:00+00:00")
"""No record is older: 1970 is what a missing time looks like."""
LATEST: Final = datetime.fromisoformat("2100-01-01T00:00:00+00:00")
"""No record is later, whatever its kind allows: 9999 is what an open end looks like."""
DEFAULT_AHEAD: Final = timedelta(days=1)
DEFAULT_LONGEST: Final = timedelta(days=20 * 366)
"""How far a record may lie in the future unless its kind says otherwise: clocks differ, but not by more."""
DEFAULT_TIERS: Final[tuple[Tier, ...]] = ((timedelta(days=8), timedelta(hours=1)), (None, timedelta(days=1)))
"""The ledger's buckets unless a kind says otherwise; never coarser than a UTC day, so that months stay exact."""
