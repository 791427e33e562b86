"""Parts of a message: its halves, where it is too large, and those of its records that are not taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from siteward.broker import Message
from siteward.compression import decompress
from siteward.envelope import MAX_BYTES, cut
from siteward.records import Refused


def halves(message: Message) -> list[Message]:
    """Two messages with the same records under the same ids, neither compressed; [] where it cannot be cut."""
    middle = message.count // 2
    runs = [range(middle), range(middle, message.count)]
    return _parts(message, runs) if middle else []


def with_only(message: Message, positions: Iterable[int]) -> list[Message]:
    """Messages with only the records at these positions, under the same ids; the whole where it cannot be cut."""
    chosen = sorted(positions)
    runs = [[place for _, place in run] for _, run in groupby(enumerate(chosen), lambda each: each[1] - each[0])]
    if [len(run) for run in runs] == [message.count]:
        return [message]
    return _parts(message, [range(run[0], run[-1] + 1) for run in runs]) or [message]


def _parts(message: Message, runs: Sequence[range]) -> list[Message]:
    try:
        plain = decompress(message.body, message.content_encoding, MAX_BYTES)
        bodies = cut(plain, message.content_type, runs)
    except Refused:
        # Nothing can be read from it here; whoever gets the whole says so.
        return []
    return [
        Message(message.key, body, len(run), message.content_type, id=message.id)
        for body, run in zip(bodies, runs, strict=True)
    ]
