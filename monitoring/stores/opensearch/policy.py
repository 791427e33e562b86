"""ISM policies for clusters that have the Index State Management plugin and rather delete by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from monitoring.stores.opensearch.templates import PRIORITY, index_patterns
from siteward.records import Kind

_DAY: Final = timedelta(days=1)
_LONGEST_MONTH: Final = 31


def policy_of(kind: Kind, prefix: str) -> dict[str, Any] | None:
    """The policy that deletes a kind's indices, as `PUT _plugins/_ism/policies/NAME` takes it.

    ISM counts an index's age from when it was made, which may be as early as the kind's records lie in the future,
    before its period begins; only a period later is its last record as old as the retention says. That is the longest
    period, whatever the retention: a kind keeps the months or days that it began with, and both may be there.

    Returns:
        None for a kind that is kept for ever.
    """
    if kind.retention is None:
        return None
    ahead = timedelta(microseconds=kind.ahead)
    days = -(-(kind.retention + ahead) // _DAY) + _LONGEST_MONTH
    return {
        "policy": {
            "description": f"Siteward keeps records of the kind {kind.name} for {kind.retention.days} days",
            "default_state": "kept",
            "states": [
                {
                    "name": "kept",
                    "actions": [],
                    "transitions": [{"state_name": "deleted", "conditions": {"min_index_age": f"{days}d"}}],
                },
                {"name": "deleted", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [{"index_patterns": index_patterns(prefix, kind), "priority": PRIORITY}],
        }
    }
