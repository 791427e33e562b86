"""How far property tests search: a few examples, always the same, with every change; many others in `make soak`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings

TIMES: Final = int(os.environ.get("SEARCH", "1"))
"""How many times as many examples; more than one: of a chance of their own, so that each run searches elsewhere."""
Test = TypeVar("Test", bound=Callable[..., object])


def search(examples: int, **more: Any) -> settings:
    """How far one search goes, for tests marked `searched` that search within themselves.

    Args:
        examples: with every change.
        more: settings of Hypothesis.
    """
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        **more,
    )


def searched(examples: int, **more: Any) -> Callable[[Test], Test]:
    """A property test that takes a while, and searches further in `make soak`.

    Args:
        examples: with every change.
        more: settings of Hypothesis.
    """
    chosen = search(examples, **more)

    def decorated(test: Test) -> Test:
        marked: Test = pytest.mark.searched(chosen(test))
        return marked

    return decorated
