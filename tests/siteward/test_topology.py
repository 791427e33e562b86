"""Routing keys and topic patterns: who gets what, the same on every broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siteward.broker.topology import matches, patterns_for, routing_key, split_key


@pytest.mark.parametrize(
    ("pattern", "key", "taken"),
    [
        ("#", "a.job", True),
        ("#", "job", True),
        ("#.job", "vo.example.org.job", True),
        ("#.job", "job", True),
        ("#.job", "vo.jobs", False),
        ("#.job", "vo.myjob", False),
        ("*.job", "a.job", True),
        ("*.job", "a.b.job", False),
        ("a.#", "a", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("a.#.b", "axb", False),
        ("a+.job", "aa.job", False),
    ],
)
def test_patterns_follow_amqp(pattern: str, key: str, taken: bool) -> None:  # noqa: FBT001  # a column of the table.
    """The embedded broker routes as RabbitMQ would: `*` is a word, `#` any number of them."""
    assert matches(pattern, key) is taken


def test_a_vo_with_dots_keeps_its_kind() -> None:
    """VO names are often host names; the kind is what follows the last dot."""
    assert split_key(routing_key("vo.example.org", "data-operation")) == ("vo.example.org", "data-operation")
    assert patterns_for(["job"]) == ("#.job",)
    wrong: Callable[[], object] = lambda: split_key("job")  # noqa: E731
    with pytest.raises(ValueError, match="not <vo>"):
        wrong()
