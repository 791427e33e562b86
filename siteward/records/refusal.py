"""Why a record was not accepted: the field, the value and the reason, always together."""

from __future__ import annotations

from typing import Final

SHOWN_CHARACTERS: Final = 80
"""A refused value is shown up to this length: it may be megabytes of somebody's mistake."""


class Refused(ValueError):  # noqa: N818  # reads as the answer it is.
    """A record that no retry can make acceptable.

    Attributes:
        kind: name of the record kind, or "" where it is not known.
        field: name of the offending field, or "" where the record as a whole is at fault.
        value: the offending value, shortened, as text.
        reason: what is wrong with it and what would be right.
        permanent: always true; sending the same record again gives the same answer.
    """

    permanent: Final = True

    def __init__(self, reason: str, *, kind: str = "", field: str = "", value: object = None) -> None:
        """Keep the parts apart, for programs, and join them in the message, for people."""
        self.kind = kind
        self.field = field
        self.value = shown(value)
        self.reason = reason
        where = f"{kind}.{field}" if kind and field else kind or field
        given = f" (got {self.value})" if value is not None else ""
        super().__init__(f"{where}: {reason}{given}" if where else f"{reason}{given}")

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the parts through pickling, which would otherwise rebuild from the joined message."""
        return (_restore, (self.reason, self.kind, self.field, self.value))


def _restore(reason: str, kind: str, field: str, value: str) -> Refused:
    refused = Refused(reason, kind=kind, field=field)
    refused.value = value
    return refused


def shown(value: object) -> str:
    """A value as text short enough for a log line."""
    if value is None:
        return ""
    text = repr(value[: SHOWN_CHARACTERS + 1]) if isinstance(value, (str, bytes)) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
