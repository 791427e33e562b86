"""Months whose sums are kept."""

from __future__ import annotations

from typing import Any, Final

from alembic import op

from siteward.server.database.columns import integer_column, text_column

revision: Final = "r0004"
down_revision: Final = "r0003"
_BY_KEY: Final[dict[str, Any]] = {
    "sqlite_strict": True,
    "sqlite_with_rowid": False,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
}


def upgrade() -> None:
    """Make the table. MariaDB commits it: what a killed process has made is there already."""
    op.create_table(
        "accounting_summed",
        text_column("bucket_table", 255, key=True),
        integer_column("month", key=True),
        if_not_exists=True,
        **_BY_KEY,
    )


def downgrade() -> None:
    """Accounts are not thrown away by a step back."""
    raise NotImplementedError
