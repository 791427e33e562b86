"""Corrections of records, and periods that are closed and signed."""

from __future__ import annotations

from typing import Any, Final

from alembic import op

from siteward.server.database.columns import blob_column, bytes_column, integer_column, number_column, text_column

revision: Final = "r0002"
down_revision: Final = "r0001"
_STRICT: Final[dict[str, Any]] = {"sqlite_strict": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_BY_KEY: Final[dict[str, Any]] = {**_STRICT, "sqlite_with_rowid": False}


def upgrade() -> None:
    """Make them. MariaDB commits each: what a killed process has made is there already."""
    op.create_table(
        "accounting_corrections",
        number_column("number"),
        *(text_column(name, length) for name, length in (("kind", 255), ("action", 40), ("state", 40))),
        blob_column("selection"),
        blob_column("given"),
        *(text_column(name, 255) for name in ("author", "decided_by", "reversed_by")),
        *(text_column(name, 4000) for name in ("reason", "decided_reason", "reversed_reason")),
        integer_column("proposed_at"),
        *(integer_column(name, optional=True) for name in ("decided_at", "reversed_at", "turn")),
        integer_column("entry"),
        bytes_column("reached", 16),
        blob_column("figures"),
        blob_column("undone"),
        if_not_exists=True,
        **_STRICT,
    )
    op.create_table(
        "accounting_periods",
        text_column("kind", 255, key=True),
        integer_column("month", key=True),
        text_column("state", 40),
        integer_column("closing"),
        integer_column("closed_at"),
        text_column("closed_by", 255),
        integer_column("signed_at", optional=True),
        text_column("signed_by", 255),
        text_column("digest", 64),
        blob_column("meaning"),
        if_not_exists=True,
        **_BY_KEY,
    )


def downgrade() -> None:
    """Accounts are not thrown away by a step back."""
    raise NotImplementedError
