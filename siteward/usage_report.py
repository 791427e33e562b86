"""Named reports of usage: questions that follow from what a kind declares, so that nobody has to make them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from siteward.query_text import find_named
from siteward.usage_text import UsageText

CHANGED: Final = ("by", "where", "window", "start", "end", "period", "top")
"""What of a report's question whoever asks may choose."""


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One report, of which only groups, conditions and window are missing.

    Attributes:
        name: the kind, what it is about, and what of it: `job/core_time/rate`, `job/efficiency`.
        title: what its figures are, in words.
        kind: name of the kind.
        measures: what is computed.
        units: of each of them.
        attribution: to which time usage belongs.
        period: a row for each.
        top: number of groups kept.
        by: what it may be grouped by.
    """

    name: str
    title: str
    kind: str
    measures: tuple[str, ...]
    units: tuple[str, ...]
    attribution: str
    period: str
    top: int
    by: tuple[str, ...]

    def question(self, **changes: object) -> UsageText:
        """Its question.

        Args:
            changes: what of CHANGED is chosen; what is empty or None stays as the report has it.
        """
        text = UsageText(
            kind=self.kind,
            measures=self.measures,
            attribution=self.attribution,
            period=self.period,
            top=self.top,
        )
        return msgspec.structs.replace(
            text, **{name: changes[name] for name in CHANGED if changes.get(name) not in {None, "", ()}}
        )


def find_report(name: str, reports: Mapping[str, UsageReport]) -> UsageReport:
    """The report of a name.

    Raises:
        siteward.query.QueryError: there is none; the nearest, or those of its kind, are given.
    """
    kind = name.partition("/")[0] + "/"
    of_kind = {known: report for known, report in reports.items() if known.startswith(kind)}
    return find_named(name, of_kind or reports, "report; `siteward account reports` lists them")
