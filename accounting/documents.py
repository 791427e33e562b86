"""Corrections and closed months as they travel; pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

import msgspec

from accounting.booking.buckets import SECOND
from accounting.corrections.correction import Correction
from accounting.corrections.figures import Figures
from accounting.periods.adjusted import Adjustment
from accounting.periods.closed_months import ClosedMonth
from accounting.upkeep.months import month_name
from siteward.records import moment


class Decision(msgspec.Struct, frozen=True):
    """Who did something to a correction or a period, when, and why; by "" where names are not shown."""

    by: str
    at: datetime
    reason: str = ""


class Difference(msgspec.Struct, frozen=True):
    """What a correction changes in one total; the members are those of `accounting.corrections.figures.Figure`."""

    month: str
    attribution: str
    group: dict[str, str | int | float | bool | None]
    measure: str
    difference: int


class CorrectionDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A correction.

    Attributes:
        number: by which people name it.
        kind: whose records.
        action: `change`, `move` or `void`.
        where: conditions on the records.
        start: first partition time of the records; None where they are selected by their ids alone.
        end: first partition time after them.
        ids: of single records.
        given: new values by field.
        state: how far it is.
        records: how many it selects, or has selected.
        proposed: by whom, when and why.
        decided: approved or rejected.
        reversed: taken back.
        differences: what it would change, or has changed.
    """

    number: int
    kind: str
    action: str
    where: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    ids: tuple[str, ...]
    given: dict[str, str | int | float | bool | None]
    state: str
    records: int
    proposed: Decision
    decided: Decision | None
    reversed: Decision | None
    differences: tuple[Difference, ...]


class PeriodDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A month that was closed at some time.

    Attributes:
        kind: whose.
        month: such as `2026-10`.
        vo: whose; "*" of all that have no period of their own for the month.
        without: those that have, as far as they may be seen.
        state: `closed`, `signed` or `reopened`.
        closed: by whom and when.
        signed: by whom and when.
        digest: SHA-256 of the figures as of closing; "" where it is not signed.
        dimensions: by which the figures are told apart.
        sums: what they add up.
    """

    kind: str
    month: str
    vo: str
    without: tuple[str, ...]
    state: str
    closed: Decision
    signed: Decision | None
    digest: str
    dimensions: tuple[str, ...]
    sums: dict[str, str]


class AdjustmentDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a closed period.

    Attributes:
        at: when.
        entry: under which it came.
        cause: why.
        action: of the entry, such as `received` or `move 7`.
        author: of the entry; "" for records that came in, and where names are not shown.
        reason: of the entry; "" where names are not shown, since it may hold some.
        day: UTC day in which the records end.
        group: values of the period's dimensions.
        differences: of the number of records and of each measure, other than nothing.
    """

    at: datetime
    entry: int
    cause: str
    action: str
    author: str
    reason: str
    day: date
    group: dict[str, str | int | float | None]
    differences: dict[str, int]


def correction_document(correction: Correction) -> CorrectionDocument:
    """A correction as its document."""
    selection = correction.selection
    return CorrectionDocument(
        number=correction.number,
        kind=correction.kind,
        action=str(correction.action),
        where=selection.where,
        start=None if selection.start is None else moment(selection.start),
        end=None if selection.end is None else moment(selection.end),
        ids=selection.ids,
        given=correction.given,
        state=str(correction.state),
        records=correction.figures.records,
        proposed=Decision(correction.author, moment(correction.proposed_at), correction.reason),
        decided=_decision(correction.decided_by, correction.decided_at, correction.decided_reason),
        reversed=_decision(correction.reversed_by, correction.reversed_at, correction.reversed_reason),
        differences=differences_of(correction.figures),
    )


def period_document(period: ClosedMonth, *, names: bool, is_visible: Callable[[str], bool]) -> PeriodDocument:
    """A closed month as its document.

    Args:
        period: the month.
        names: who closed and signed it is told.
        is_visible: whether a VO may be named.
    """
    return PeriodDocument(
        kind=period.kind,
        month=period.name,
        vo=period.vo,
        without=tuple(filter(is_visible, period.without)),
        state=str(period.state),
        closed=Decision(period.closed_by if names else "", moment(period.closed_at)),
        signed=_decision(period.signed_by if names else "", period.signed_at),
        digest=period.digest,
        dimensions=period.meaning.dimensions,
        sums=period.meaning.sums,
    )


def adjustment_document(
    adjustment: Adjustment, *, names: bool, shown: Callable[[str, str | int | float | None], str | int | float | None]
) -> AdjustmentDocument:
    """A change of a closed month as its document.

    Args:
        adjustment: the change.
        names: who made it, and why, is told.
        shown: what of a dimension's value is shown.
    """
    return AdjustmentDocument(
        at=moment(adjustment.at),
        entry=adjustment.entry,
        cause=adjustment.cause,
        action=adjustment.action,
        author=adjustment.author if names else "",
        reason=adjustment.reason if names else "",
        day=moment(adjustment.day * SECOND).date(),
        group={name: shown(name, value) for name, value in adjustment.group.items()},
        differences=adjustment.shown,
    )


def _decision(by: str, at: int | None, reason: str = "") -> Decision | None:
    return None if at is None else Decision(by, moment(at), reason)


def differences_of(figures: Figures) -> tuple[Difference, ...]:
    """What changes in each total."""
    return tuple(
        Difference(
            month_name(each.month),
            str(each.attribution),
            dict(zip(figures.by, each.group, strict=True)),
            each.measure.removeprefix("_"),
            each.difference,
        )
        for each in figures.changes
    )
