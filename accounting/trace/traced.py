"""What a figure, or a record, is found to be made of, as answers tell it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from siteward.query import Value

MOST_LISTED: Final = 10_000
"""Buckets, records, or adjustments, of one answer."""


class NamedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record whose own value tells a figure.

    Attributes:
        id: 32 hexadecimal digits.
        value: of the measure.
    """

    id: str
    value: Value


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the question.

    Attributes:
        name: as it is asked for.
        value: what it comes to.
        formula: how, from the sums that are followed, or from single records.
        records: those between which a percentile lies, the smallest, the largest, or the last; else none. At most a
            hundred, the smallest value first.
    """

    name: str
    value: Value
    formula: str
    records: tuple[NamedRecord, ...] = ()


class TracedCycles(msgspec.Struct, frozen=True, kw_only=True):
    """How often a producer of snapshots looked within the window.

    Attributes:
        producer: who.
        cycles: how often.
        complete: how often of them with all its records.
        last: the last time.
    """

    producer: str
    cycles: int
    complete: int
    last: datetime


class TracedBucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket that a figure is made of.

    Attributes:
        start: its first instant.
        width: seconds.
        series: its dimensions.
        amounts: what it holds of each measure.
        whole: all of it belongs to the figure; else the part that its records have within the window.
    """

    start: datetime
    width: int
    series: dict[str, Any]
    amounts: tuple[int, ...]
    whole: bool


class TracedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record that a figure is made of.

    Attributes:
        id: 32 hexadecimal digits.
        revision: the newest that was received.
        start: when it began; an event's instant.
        end: when it ended; an event's instant.
        parts: what of each of its measures belongs to the figure.
        producer: who sent it.
        message: id of the envelope that brought it, 32 hexadecimal digits.
        entry: number of the entry that booked it.
        received: when that was.
        file: of the archive, where it is archived.
    """

    id: str
    revision: int
    start: datetime
    end: datetime
    parts: tuple[int, ...]
    producer: str
    message: str
    entry: int
    received: datetime
    file: str = ""


class TracedAdjustment(msgspec.Struct, frozen=True, kw_only=True):
    """A change of closed months since their closing, of records that end on one day and are of one series.

    Attributes:
        at: when it was made.
        entry: number of the entry that made it.
        cause: such as `late record`, `newer revision`, `correction`, `reversal`.
        action: of the entry, such as `received`, or `move 7` of correction 7.
        day: on which the records end: its first instant.
        series: its dimensions.
        amounts: what it has added to each measure.
    """

    at: datetime
    entry: int
    cause: str
    action: str
    day: datetime
    series: dict[str, Any]
    amounts: tuple[int, ...]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure is made of.

    Attributes:
        kind: of the records.
        attribution: of the figure.
        start: first instant of the window.
        end: first instant after it.
        figures: what was asked for, and how it is computed from the sums that follow.
        measures: names of these sums; what adds up is its own.
        figure: what each of them comes to.
        present: the same as of now, of which buckets and records tell; the figure itself, unless that is as of closing.
        changes: what all adjustments since closing come to: `present` less these is the figure; () as of now.
        parts: `present` over all records that can be read; None where they are too many to add up.
        complete: these are `present`, and `present` less `changes` is the figure.
        why: they are not, in one sentence.
        as_of: `present`, or `closing`.
        of_records: what conditions are on that only records say: the figure is computed from these, and there are no
            buckets to be shown.
        buckets: some of those that the figure is made of, by start.
        more_buckets: where the next ones begin, to be given as `after_bucket`; "" at the end.
        records: some of the records, by id.
        more_records: where the next ones begin, to be given as `after_record`; "" at the end.
        adjustments: as of closing some of what has changed since, by entry.
        more_adjustments: where the next ones begin, to be given as `after_adjustment`; "" at the end.
        cycles: of snapshots, how often the producers of these records looked, by name.
    """

    kind: str
    attribution: str
    start: datetime
    end: datetime
    figures: tuple[Figure, ...]
    measures: tuple[str, ...]
    figure: tuple[int, ...]
    present: tuple[int, ...]
    changes: tuple[int, ...] = ()
    parts: tuple[int, ...] | None
    complete: bool
    why: str
    buckets: tuple[TracedBucket, ...]
    more_buckets: str
    records: tuple[TracedRecord, ...]
    more_records: str
    as_of: str = "present"
    of_records: tuple[str, ...] = ()
    adjustments: tuple[TracedAdjustment, ...] = ()
    more_adjustments: str = ""
    cycles: tuple[TracedCycles, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which buckets, records and adjustments are to be listed.

    Attributes:
        limit: of each.
        after_bucket: as the answer before said; "" from the first one on.
        after_record: the same.
        after_adjustment: the same.
    """

    limit: int = 100
    after_bucket: str = ""
    after_record: str = ""
    after_adjustment: str = ""


class BookedPart(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a record in one bucket.

    Attributes:
        attribution: of the bucket.
        start: its first instant; of several buckets that lie over each other, that of the widest.
        width: seconds.
        parts: what the record has in it, by measure; zeros are left out.
    """

    attribution: str
    start: datetime
    width: int
    parts: dict[str, int]


class RecordTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one record.

    Attributes:
        id: 32 hexadecimal digits.
        state: `booked`, `archived`, `void` by a correction, or `unknown`.
        why: what an unknown id means, or why less is known than could be.
        kind: of the record; "" where it is unknown.
        revision: the newest that was received.
        fields: its values; times as instants.
        producer: who sent it.
        message: id of the envelope that brought it, 32 hexadecimal digits.
        entry: number of the entry that booked it; 0 where it is not known.
        received: when that was.
        corrections: numbers of those that lie over it; of a booked record, its fields are as they make them.
        file: of the archive, where it is archived.
        buckets: where it is booked, by start; at most MOST_LISTED.
    """

    id: str
    state: str
    why: str = ""
    kind: str = ""
    revision: int = 0
    fields: dict[str, Any] = {}
    producer: str = ""
    message: str = ""
    entry: int = 0
    received: datetime | None = None
    corrections: tuple[int, ...] = ()
    file: str = ""
    buckets: tuple[BookedPart, ...] = ()
