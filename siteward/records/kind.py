"""A kind compiled from its declaration: columns, validation, identity; what every room derives its own form from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from math import isfinite
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from siteward.records.declaration import Column, Declaration, Shape, Type, check_declaration
from siteward.records.fields import Dimension, Measure
from siteward.records.identity import microseconds, moment, record_id
from siteward.records.refusal import Refused
from siteward.records.shapes import DEFAULT_LONGEST, EARLIEST, LATEST, Record

_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
Row = msgspec.Struct
"""A validated record in columns order: times as integer microseconds, everything else as declared."""


class Kind:
    """One record kind and all that follows from its declaration.

    Attributes:
        name: such as `job`; lower case, words joined by `-`.
        doc: what a record of this kind is.
        shape: event, snapshot or interval.
        columns: every field: `vo`, the times, then dimensions and measures as declared, `simulated`, `revision`.
        times: names of the times: `time`, or `start` and `end`, then any others.
        time: name of the immutable time by which records are partitioned and windows are asked: `time`, `end`, or
            the one that the declaration names where revisions may move the end.
        identity: names of the fields that make two records the same, beside the VO; () where records have none.
        optional_identity: a record may leave all of these empty, and then has none.
        products: measures computed per record from others, by name.
        ratios: quotients of sums, by name.
        bounds: what measures are at most by others of the same record, for the ledger to book it unseen.
        ahead: how far in the future its times may lie, microseconds.
        retention: how long the monitoring store keeps records; None is for ever.
        longest: longest interval, or time that a counter has counted, that the ledger books without a person looking
            at it, microseconds; None of records that last no time.
        tiers: age up to which, and width with which, records lie in the ledger's buckets, both in seconds; the last
            age is None, for everything older.
        booked: whether the accounting ledger takes its records.
        archived: whether these may leave the ledger's database for the archive.
        sent_by: name of the permission that also lets somebody send its records; "" where only reporters do.
        since: name of the time from which counters count; "" where it has none.
        counters: measures that count up from record to record.
        counted_by: the fields that, beside the VO, tell one counter from another: the identity without the time.
        of_instants: records say how much there was at an instant, and nothing of what was used.
        record: the declaring class; None for a kind declared in TOML.
        row: struct type of a validated record.
    """

    def __init__(self, declaration: Declaration) -> None:
        """Derive everything once; raise DeclarationError where the declaration contradicts itself."""
        check_declaration(declaration)
        self.declaration = declaration
        self.name = declaration.name
        self.doc = declaration.doc
        self.shape = declaration.shape
        self.columns = declaration.columns
        self.identity = declaration.identity
        self.products = declaration.products
        self.ratios = declaration.ratios
        self.bounds = declaration.bounds
        self.retention = declaration.retention
        self.booked = declaration.booked
        self.archived = declaration.archived
        self.since = declaration.since
        self.sent_by = declaration.sent_by
        self.of_instants = self.shape is Shape.SNAPSHOT and not self.since
        self.record = declaration.record
        self.column = {column.name: column for column in self.columns}
        self.names = tuple(self.column)
        self.counters = tuple(
            column.name for column in self.columns if isinstance(column.role, Measure) and column.role.counter
        )
        self.times = tuple(column.name for column in self.columns if column.type is Type.TIME)
        self.time = declaration.time
        self.counted_by = tuple(name for name in self.identity if name != self.time) if self.since else ()
        self.row: type[Row] = msgspec.defstruct(
            f"{self.name}-row",
            [(column.name, column.wire_type()) for column in self.columns],
            array_like=True,
            gc=False,
            forbid_unknown_fields=True,
        )
        self.ahead = declaration.ahead // _MICROSECOND
        lasts = self.shape is Shape.INTERVAL or self.since
        self.longest = (declaration.longest or DEFAULT_LONGEST) // _MICROSECOND if lasts else None
        self.tiers = tuple(
            (None if age is None else age // _SECOND, width // _SECOND) for age, width in declaration.tiers
        )
        strings = [column.name for column in self.columns if column.type is Type.STRING and not column.values]
        self._strings = _picker([self.names.index(name) for name in strings])
        self._numbers = tuple(column.name for column in self.columns if column.type is Type.NUMBER)
        self._identity = _getter(self.identity)
        self.optional_identity = not any(
            self.column[name].required or self.column[name].type is Type.TIME for name in self.identity
        )
        self._values = _getter(self.names)
        self._after_times = 1 + len(self.times)
        vo, *middle, simulated, revision = self.names
        in_order = self.record and self.record.__struct_fields__ == (vo, simulated, revision, *middle)
        self._in_order = self.record if in_order else None
        self._is_interval = self.shape is Shape.INTERVAL

    def __repr__(self) -> str:
        """Name the kind; its columns would fill a page."""
        return f"<Kind {self.name}>"

    @property
    def dimensions(self) -> tuple[Column, ...]:
        """What records may be grouped and filtered by."""
        return tuple(column for column in self.columns if isinstance(column.role, Dimension))

    @property
    def measures(self) -> tuple[Column, ...]:
        """What may be summed or averaged; without `revision` and `cycle_size`, which describe the record."""
        return tuple(
            column
            for column in self.columns
            if isinstance(column.role, Measure) and column.name not in {"revision", "cycle_size"}
        )

    def row_of(self, record: Record, now: int) -> Row:
        """Validate a record made in Python.

        Args:
            record: an instance of this kind's class.
            now: microseconds since 1970 UTC, for the check against times in the future.

        Raises:
            Refused: with field, value and reason.
        """
        try:
            values = self._values_of(record)
        except (TypeError, AttributeError) as error:
            raise self._refused_time(record) from error
        return self.checked(values, now)

    def _values_of(self, record: Record) -> list[Any]:
        """A record's values in columns order, times as microseconds."""
        after = self._after_times
        if type(record) is not self._in_order:
            values = list(self._values(record))
            values[1:after] = map(microseconds, values[1:after])
            return values
        # A struct gives all its fields at once several times faster than one by one: first those that every record has.
        fields = astuple(record)
        return [
            fields[0],
            *map(microseconds, fields[3 : 2 + after]),
            *fields[2 + after :],
            fields[1],
            fields[2],
        ]

    def checked(self, values: Sequence[Any], now: int) -> Row:
        """Validate values in columns order, times as microseconds.

        Raises:
            Refused: with field, value and reason.
        """
        try:
            row = msgspec.convert(values, self.row)
        except msgspec.ValidationError as error:
            raise self.refused(error, values) from error
        except UnicodeEncodeError:
            # A half character where no text is wanted, which msgspec compares as UTF-8.
            self._refuse_string(values)
            raise
        times = values[1 : self._after_times]
        if self._is_interval and times[1] < times[0]:
            reason = f"ends before it starts ({moment(times[0]).isoformat()})"
            raise Refused(reason, kind=self.name, field="end", value=moment(times[1]).isoformat())
        if max(times) > now + self.ahead:
            reason = f"lies more than {self.declaration.ahead.days} d in the future"
            field = self.times[times.index(max(times))]
            raise Refused(reason, kind=self.name, field=field, value=moment(max(times)).isoformat())
        text = "".join(self._strings(values))
        if "\0" in text or not (text.isascii() or _is_unicode(text)):
            self._refuse_string(values)
        for name in self._numbers:
            value = getattr(row, name)
            if value is not None and not isfinite(value):
                reason = "is not a finite number"
                raise Refused(reason, kind=self.name, field=name, value=value)
        return row

    def id_of(self, row: Row, anonymous: bytes = b"") -> bytes:
        """The record id of a validated row; `anonymous` is the id to use where the record has no identity."""
        identity = self._identity(row)
        if self.optional_identity and not any(identity):
            return anonymous
        vo: str = row.vo  # type: ignore[attr-defined]  # every row has one.
        return record_id(getattr(row, self.time), self.name, vo, identity)

    def refused(self, error: msgspec.ValidationError, values: Sequence[Any]) -> Refused:
        """A msgspec error about a row, said in the words of the declaration."""
        text, _, path = str(error).partition(" - at `$")
        position = path.strip("[]`")
        if not position.isdigit() or int(position) >= len(self.columns):
            return Refused(_sentence(text), kind=self.name)
        column = self.columns[int(position)]
        value = values[int(position)] if int(position) < len(values) else None
        if column.type is Type.TIME and isinstance(value, int) and not isinstance(value, bool):
            text = f"lies outside {EARLIEST.year} to {LATEST.year}"
            value = _moment_text(value)
        elif column.values and isinstance(value, str):
            text = f"expected one of {', '.join(column.values)}"
        return Refused(_sentence(text), kind=self.name, field=column.name, value="None" if value is None else value)

    def _refused_time(self, record: Record) -> Refused:
        for name in self.times:
            value = getattr(record, name, None)
            if not isinstance(value, datetime):
                return Refused("expected a datetime", kind=self.name, field=name, value=value)
            if value.tzinfo is None:
                return Refused(
                    "is a naive datetime; give it a time zone", kind=self.name, field=name, value=value.isoformat()
                )
        return Refused(f"expected a record of class {self.record}", kind=self.name, value=type(record).__name__)

    def _refuse_string(self, values: Sequence[Any]) -> None:
        for column, value in zip(self.columns, values, strict=True):
            if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
                reason = "contains a NUL character" if "\0" in value else "is not valid Unicode text"
                raise Refused(reason, kind=self.name, field=column.name, value=value)


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """itemgetter, except that one place gives a sequence too, and none an empty one."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """attrgetter, except that one name gives a tuple too."""
    if not names:
        return lambda _: ()
    if len(names) == 1:
        get = attrgetter(names[0])
        return lambda row: (get(row),)
    return attrgetter(*names)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates, half of a character, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].replace("`", "")


def _moment_text(time: int) -> str:
    try:
        return moment(time).isoformat()
    except OverflowError:
        return f"{time} microseconds since 1970"
