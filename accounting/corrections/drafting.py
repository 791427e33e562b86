"""A correction as people type it, checked against its kind: conditions, a window or ids, new values; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final

import msgspec

from accounting.corrections.correction import Action, CorrectionError, Draft, Selection
from siteward.query_text import find_kind, find_named, parse_filters
from siteward.records import Column, Kind, Type, microseconds
from siteward.records.identity import ID_BYTES
from siteward.usage_window import parse_usage_window

MOST_IDS: Final = 1_000
"""Ids of one correction; more records are selected by conditions."""
_ID: Final = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}", re.ASCII)
_SET: Final = re.compile(r"([a-z][a-z0-9_]*)=(.*)", re.ASCII | re.DOTALL)
_TRUTH: Final = {"true": True, "false": False}
_LONGEST: Final = {"author": 255, "reason": 4000}


class DraftText(msgspec.Struct, frozen=True, kw_only=True):
    """A correction as it is typed.

    Attributes:
        kind: name of the kind.
        action: `change`, `move` or `void`.
        where: conditions on fields, as in questions.
        window: a calendar word, over the records' partition time; "" takes start and end.
        start: first instant.
        end: first instant after the window.
        ids: of single records.
        given: new values, `site=X`; nothing behind the sign makes a value unknown where it may be.
        author: who wants it.
        reason: why.
    """

    kind: str
    action: str
    where: tuple[str, ...] = ()
    window: str = ""
    start: str = ""
    end: str = ""
    ids: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    author: str
    reason: str


def parse_draft(text: DraftText, kinds: Mapping[str, Kind], now: datetime) -> Draft:
    """The correction that a text asks for.

    Args:
        text: as it was typed.
        kinds: every known kind by name.
        now: what relative times mean; aware.

    Raises:
        siteward.query.QueryError: the selection is at fault.
        CorrectionError: the new values are, or author or reason are missing.
    """
    kind = find_kind(text.kind, kinds)
    action = find_named(text.action, {str(each): each for each in Action}, "action")
    for name, longest in _LONGEST.items():
        if not 0 < len(getattr(text, name).strip()) <= longest:
            message = f"{name}: give one of 1 to {longest} characters; it stays with the correction"
            raise CorrectionError(message)
    given = dict(_given(each, kind, action) for each in text.given)
    if bool(given) is (action is Action.VOID):
        what = "a void record has no new values" if given else f"{action}: give at least one new value, FIELD=VALUE"
        raise CorrectionError(what)
    selection = _selection(text, kind, now)
    return Draft(
        kind=kind.name,
        action=action,
        selection=selection,
        given=given,
        author=text.author.strip(),
        reason=text.reason.strip(),
    )


def _selection(text: DraftText, kind: Kind, now: datetime) -> Selection:
    parse_filters(text.where, kind)
    for identifier in text.ids:
        if not _ID.fullmatch(identifier):
            message = f"id {identifier[:80]!r}: expected {2 * ID_BYTES} hexadecimal digits"
            raise CorrectionError(message)
    if len(text.ids) > MOST_IDS:
        message = f"{len(text.ids)} ids are more than {MOST_IDS}; select records by conditions and a window"
        raise CorrectionError(message)
    is_windowed = bool(text.window or text.start or text.end)
    if not (is_windowed or text.ids):
        message = f"give a window over the {kind.time} of the records, or the ids of single ones"
        raise CorrectionError(message)
    start = end = None
    if is_windowed:
        start, end = map(microseconds, parse_usage_window(text.window, text.start, text.end, now))
    return Selection(where=text.where, start=start, end=end, ids=tuple(sorted(set(text.ids))))


def _given(text: str, kind: Kind, action: Action) -> tuple[str, Any]:
    match = _SET.fullmatch(text)
    if match is None:
        message = f"{text[:80]!r}: write FIELD=VALUE"
        raise CorrectionError(message)
    name, value = match.groups()
    if name in kind.products:
        message = f"{name} is computed from {' and '.join(kind.products[name].factors)}; change these"
        raise CorrectionError(message)
    if name in {"vo", *kind.counted_by} and kind.since:
        message = f"{name} tells one counter of {kind.name} from another; void the records, and emit them as they are"
        raise CorrectionError(message)
    fields = kind.measures if action is Action.CHANGE else kind.dimensions
    what = f"{'measure' if action is Action.CHANGE else 'dimension'} of {kind.name} that {action} can set"
    column = find_named(name, {column.name: column for column in fields}, what)
    return name, _value(value, column)


def _value(text: str, column: Column) -> Any:  # noqa: ANN401  # of any column.
    found: Any = text
    try:
        if text == "" and column.optional:
            found = None
        elif column.type is Type.BOOLEAN:
            found = _TRUTH[text]
        elif column.type is Type.INTEGER:
            found = int(text)
        elif column.type is Type.NUMBER:
            found = float(text)
        checked = msgspec.convert(found, column.wire_type())
    except (ValueError, KeyError) as error:
        reason = str(error) if isinstance(error, msgspec.ValidationError) else f"expected {column.type}"
        message = f"{column.name}={text[:80]}: {reason[:1].lower()}{reason[1:]}"
        raise CorrectionError(message) from error
    if isinstance(checked, str) and ("\0" in checked or not _is_unicode(checked)):
        message = f"{column.name}: a text without NUL characters, in valid Unicode, is expected"
        raise CorrectionError(message)
    if isinstance(checked, float) and not isfinite(checked):
        message = f"{column.name}={text[:80]}: expected a finite number"
        raise CorrectionError(message)
    return checked


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
