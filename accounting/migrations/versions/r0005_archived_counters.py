"""Records of counters may be archived: whoever does not know of that would book beside them as if they had never been.

What their tables hold for it follows their declaration; this revision keeps an older Siteward from opening the ledger.
"""

from __future__ import annotations

from typing import Final

revision: Final = "r0005"
down_revision: Final = "r0004"


def upgrade() -> None:
    """Nothing that all kinds share is changed."""


def downgrade() -> None:
    """Accounts are not thrown away by a step back."""
    raise NotImplementedError
