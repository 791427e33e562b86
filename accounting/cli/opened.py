"""What the commands of the ledger share: it opened, and closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accounting.ledger import Ledger
    from siteward.settings import Settings


@contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    """The ledger of an installation, closed at the end."""
    from accounting.opening import open_ledger  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.

    with closing(open_ledger(settings, load_kinds(settings.kinds))) as ledger:
        yield ledger
