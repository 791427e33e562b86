"""What came from each producer, and how far a rebuild of buckets has come."""

from __future__ import annotations

from typing import Any, Final

from alembic import op

from siteward.server.database.columns import integer_column, text_column

revision: Final = "r0003"
down_revision: Final = "r0002"
_BY_KEY: Final[dict[str, Any]] = {
    "sqlite_strict": True,
    "sqlite_with_rowid": False,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
}


def upgrade() -> None:
    """Make both tables. MariaDB commits each: what a killed process has made is there already."""
    op.create_table(
        "accounting_rebuilds",
        text_column("kind", 255, key=True),
        *(integer_column(name) for name in ("number", "first", "last", "until")),
        if_not_exists=True,
        **_BY_KEY,
    )
    op.create_table(
        "accounting_arrivals",
        text_column("kind", 255, key=True),
        integer_column("hour", key=True),
        integer_column("_producer", key=True),
        *(integer_column(name) for name in ("records", "first", "last")),
        if_not_exists=True,
        **_BY_KEY,
    )


def downgrade() -> None:
    """Accounts are not thrown away by a step back."""
    raise NotImplementedError
