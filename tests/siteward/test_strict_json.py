"""JSON that two readers cannot take for different things."""

from __future__ import annotations

import pytest

from siteward.strict_json import strict_json


def test_what_is_plain_is_read() -> None:
    """As any reader would."""
    assert strict_json('{"a": [1, 2.5, null, true, "x"], "b": {"a": {}}}') == {
        "a": [1, 2.5, None, True, "x"],
        "b": {"a": {}},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 1}', "'a' occurs twice"),
        ('{"b": {"a": 1, "a": 2}}', "'a' occurs twice"),
        ('[{"\\u0061": 1, "a": 2}]', "'a' occurs twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting"),
        ("1 2", "Extra data"),
    ],
)
def test_what_could_mean_two_things_is_refused(text: str, why: str) -> None:
    """Wherever it stands."""
    with pytest.raises(ValueError, match=why):
        strict_json(text)
