"""Ids and revisions of archived records, as few bytes: a duplicate of one is still a duplicate; pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from accounting.booking.arithmetic import Integers
from siteward.records.identity import HASH_BYTES, ID_BYTES

DAY_MILLISECONDS: Final = 86_400_000
_TIME_BYTES: Final = ID_BYTES - HASH_BYTES
_STEP_BYTES: Final = 4
"""Of milliseconds within a day."""


class _Packed(msgspec.Struct, array_like=True):
    """Times as differences, since they compress; hashes as they are, since they do not.

    Attributes:
        times: of each id after the one before it, in milliseconds: the lowest bytes of all, then the next ones.
        hashes: one after the other.
        revisions: by position, where they are not zero.
        first: time of the first id; earlier versions wrote none, and `times` as a MessagePack list from zero on.
    """

    times: bytes
    hashes: bytes
    revisions: dict[int, int]
    first: int | None = None

    def all_times(self) -> Integers:
        """Of each id, in milliseconds."""
        times = zlib.decompress(self.times)
        if self.first is None:
            return np.cumsum(np.array(msgspec.msgpack.decode(times), np.int64))
        steps = np.frombuffer(times, np.uint8).reshape(_STEP_BYTES, -1).T.copy().view("<u4").ravel()
        return self.first + np.cumsum(steps, dtype=np.int64)


def day_of(identifier: bytes) -> int:
    """First second of the UTC day of a record's partition time."""
    return int.from_bytes(identifier[:_TIME_BYTES], "big") // DAY_MILLISECONDS * 86_400


def days_of(identifiers: Sequence[bytes]) -> list[int]:
    """The same of many, each day once, in ascending order."""
    if not identifiers:
        return []
    times = _milliseconds(np.frombuffer(b"".join(identifiers), np.uint8).reshape(-1, ID_BYTES))
    days: list[int] = (np.unique(times // DAY_MILLISECONDS) * 86_400).tolist()
    return days


def packed(revisions: Mapping[bytes, int]) -> bytes:
    """Ids of one day with their revisions; about eleven bytes each."""
    ids = sorted(revisions)
    rows = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_BYTES)
    milliseconds = _milliseconds(rows)
    steps = np.diff(milliseconds, prepend=milliseconds[:1]).astype("<u4")
    body = _Packed(
        times=zlib.compress(steps.view(np.uint8).reshape(-1, _STEP_BYTES).T.tobytes()),
        hashes=rows[:, _TIME_BYTES:].tobytes(),
        revisions=_revised(ids, revisions) if any(revisions.values()) else {},
        first=int(milliseconds[0]) if ids else 0,
    )
    return msgspec.msgpack.encode(body)


def _milliseconds(rows: npt.NDArray[np.uint8]) -> Integers:
    """The partition times of ids, a row each."""
    times = np.zeros((len(rows), 8), np.uint8)
    times[:, 8 - _TIME_BYTES :] = rows[:, :_TIME_BYTES]
    return times.view(">i8").ravel().astype(np.int64)


def _revised(ids: Sequence[bytes], revisions: Mapping[bytes, int]) -> dict[int, int]:
    return {place: revisions[each] for place, each in enumerate(ids) if revisions[each]}


def unpacked(data: bytes) -> dict[bytes, int]:
    """The inverse of packed."""
    body = msgspec.msgpack.decode(data, type=_Packed)
    found: dict[bytes, int] = {}
    for place, time in enumerate(body.all_times().tolist()):
        tail = body.hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        found[time.to_bytes(_TIME_BYTES, "big") + tail] = body.revisions.get(place, 0)
    return found


def revisions_among(data: bytes, ids: Iterable[bytes]) -> dict[bytes, int]:
    """The revisions of those of some ids that are among packed ones, which are not unpacked."""
    body = msgspec.msgpack.decode(data, type=_Packed)
    times = body.all_times()
    found: dict[bytes, int] = {}
    for each in ids:
        time, tail = int.from_bytes(each[:_TIME_BYTES], "big"), each[_TIME_BYTES:]
        first, last = (int(np.searchsorted(times, time, side)) for side in ("left", "right"))
        for place in range(first, last):
            if body.hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES] == tail:
                found[each] = body.revisions.get(place, 0)
    return found


def id_range(day: int) -> tuple[bytes, bytes]:
    """The smallest id of a day, and the smallest of the day after it."""
    return first_id(day * 1000), first_id(day * 1000 + DAY_MILLISECONDS)


def first_id(millisecond: int) -> bytes:
    """The smallest id of a partition time, in milliseconds since 1970 UTC."""
    return max(millisecond, 0).to_bytes(_TIME_BYTES, "big") + bytes(HASH_BYTES)
