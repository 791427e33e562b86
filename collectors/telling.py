"""Dead letters as they are told over HTTP and on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collectors.dead_letters import DeadLetter, Decision
from siteward.records import moment

SHOWN_BYTES: Final = 4096
"""A dead letter's original bytes in a list, at most; shown alone it has all."""


def letter_json(letter: DeadLetter, decisions: Sequence[Decision]) -> dict[str, object]:
    """One dead letter with all its bytes and what was done with it."""
    audit = [
        {
            "at": time_text(each.at),
            "who": each.who,
            "action": str(each.action),
            "note": each.note,
            "submitted": None if each.submitted is None else _bytes_text(each.submitted),
        }
        for each in decisions
    ]
    return _told(letter, len(letter.original)) | {"audit": audit}


def letter_summary(letter: DeadLetter) -> dict[str, object]:
    """A dead letter as one of many."""
    return _told(letter, SHOWN_BYTES)


def _told(letter: DeadLetter, most: int) -> dict[str, object]:
    return {
        "number": letter.number,
        "queue": letter.queue,
        "record": letter.record.hex(),
        "stage": str(letter.stage),
        "kind": letter.kind,
        "vo": letter.vo,
        "producer": letter.producer,
        "message": letter.message.hex(),
        "field": letter.field,
        "value": letter.value,
        "reason": letter.reason,
        "original": _bytes_text(letter.original[:most]),
        "first_seen": time_text(letter.first_seen),
        "last_seen": time_text(letter.last_seen),
        "times": letter.times,
        "state": str(letter.state),
    }


def _bytes_text(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def time_text(at: int) -> str:
    """Microseconds since 1970 UTC as RFC 3339."""
    return moment(at).isoformat().replace("+00:00", "Z")
