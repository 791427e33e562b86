"""Whose records a correction is about, as far as its conditions say; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from accounting.booking.adjustments import ALL_VOS
from siteward.query_text import parse_filters
from siteward.records import Kind

VO: Final = "vo"


def concerned_vos(kind: Kind, where: Sequence[str], given: Mapping[str, Any]) -> frozenset[str]:
    """The VOs that a correction names, and the one to which it moves records; ALL_VOS alone where it names none.

    Args:
        kind: of the records.
        where: the conditions, as they are typed.
        given: the new values.

    Raises:
        siteward.query.QueryError: a condition cannot be read.
    """
    named = [
        set(map(str, each.values))
        for each in parse_filters(where, kind)
        if each.field == VO and not each.negated and not each.wildcard
    ]
    if not named:
        return frozenset({ALL_VOS})
    return frozenset(set.intersection(*named) | ({str(given[VO])} if VO in given else set()))
