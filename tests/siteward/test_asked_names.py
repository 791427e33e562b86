"""What the audit keeps of a question: never whom it may be about."""

from __future__ import annotations

import pytest

from siteward.kinds import load_kinds
from siteward.server.auth.asked_names import Fields, without_names

FIELDS = Fields.of(load_kinds().values())


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("where", "site=CH", "site=CH"),
        ("where", "wall_time>=3600", "wall_time>=3600"),
        ("where", " site.country!=CH", " site.country!=CH"),
        ("where", "user=jane doe", "user=hidden"),
        ("where", "user!~jane.*", "user!~hidden"),
        # What nobody can read may name anybody.
        ("where", "usr=jane doe", "hidden"),
        ("where", "User=jane", "hidden"),
        ("where", "jane", "hidden"),
        ("where", "user jane", "hidden"),
        ("where", "", "hidden"),
        ("reason", "jane was here", "hidden"),
        ("kind", "job", "job"),
    ],
)
def test_no_name_is_kept(name: str, value: str, kept: str) -> None:
    """Of a condition, what a field that names people is to be; of one that cannot be read, all of it."""
    assert without_names(name, value, FIELDS) == kept


def test_what_names_people_in_one_kind_does_so_in_all() -> None:
    """A question says its kind elsewhere."""
    assert "user" in FIELDS.personal
    assert not FIELDS.personal & FIELDS.others
