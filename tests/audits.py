"""The audit on an empty database of each sort, with a clock to move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from issuer import Clock
from ledger_databases import Place

from siteward.server.auth.audit import Audit
from siteward.server.database import Database


@pytest.fixture
def clock() -> Clock:
    """A clock to move."""
    return Clock()


@pytest.fixture
def open_audit(ledger_place: Place, clock: Clock) -> Iterator[Callable[[], Audit]]:
    """Opens the audit, as often as processes would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Audit(Database(ledger_place.url, ledger_place.password), clock)))
