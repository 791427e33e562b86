"""How far property tests search: a few examples, always the same, with every change; many others in `make soak`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from siteward.server.database import Database

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


def searched_on(few: int, many: int, **drawn: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Test]:
    """A property test of a database, whose first argument it is; it searches further in `make soak`.

    Args:
        few: examples with every change on a server, where each takes a while.
        many: the same on SQLite.
        drawn: the test's other arguments.
    """

    def decorated(test: Callable[..., None]) -> Any:  # as it is collected: by its fixtures.
        def on(database: Database) -> None:
            @search(many if database.engine.dialect.name == "sqlite" else few)
            @given(**drawn)
            def holds(**arguments: Any) -> None:
                test(database, **arguments)

            holds()

        # Without what it wraps, whose other arguments would be taken for fixtures.
        on.__name__, on.__qualname__, on.__doc__, on.__module__ = (
            test.__name__,
            test.__qualname__,
            test.__doc__,
            test.__module__,
        )
        return pytest.mark.searched(on)

    return decorated
