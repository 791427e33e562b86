"""The first tables: entries, producers, topology, what was compacted and archived, what each kind's tables are for."""

from __future__ import annotations

from typing import Any, Final

from alembic import op

from siteward.server.database.columns import blob_column, bytes_column, integer_column, number_column, text_column

revision: Final = "r0001"
down_revision: Final = None
_STRICT: Final[dict[str, Any]] = {"sqlite_strict": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_BY_KEY: Final[dict[str, Any]] = {**_STRICT, "sqlite_with_rowid": False}


def upgrade() -> None:
    """Make them. MariaDB commits each: what a killed process has made is there already."""
    op.create_table(
        "accounting_entries",
        integer_column("_entry", key=True),
        text_column("kind", 255),
        text_column("action", 40),
        integer_column("at"),
        text_column("author", 255),
        text_column("reason", 4000),
        if_not_exists=True,
        **_BY_KEY,
    )
    op.create_table(
        "accounting_producers",
        number_column("_producer"),
        bytes_column("_digest", 16, unique=True),
        text_column("name", 1000),
        if_not_exists=True,
        **_STRICT,
    )
    op.create_table(
        "accounting_compacted",
        text_column("bucket_table", 255, key=True),
        integer_column("width", key=True),
        integer_column("until"),
        if_not_exists=True,
        **_BY_KEY,
    )
    op.create_table(
        "accounting_archived",
        text_column("kind", 255, key=True),
        integer_column("day", key=True),
        text_column("file", 255, key=True),
        text_column("digest", 64),
        integer_column("records"),
        integer_column("at"),
        blob_column("ids"),
        if_not_exists=True,
        **_BY_KEY,
    )
    op.create_table(
        "accounting_topology",
        bytes_column("_digest", 16, key=True),
        *(text_column(name, 255) for name in ("dimension", "value", "attribute", "attribute_value")),
        *(integer_column(name, optional=True) for name in ("valid_from", "valid_to")),
        if_not_exists=True,
        **_BY_KEY,
    )
    op.create_table(
        "accounting_kinds",
        text_column("kind", 255, key=True),
        bytes_column("digest", 16),
        if_not_exists=True,
        **_BY_KEY,
    )
    op.create_table(
        "accounting_columns",
        text_column("kind", 255, key=True),
        text_column("place", 20, key=True),
        text_column("name", 255, key=True),
        text_column("meaning", 4000),
        integer_column("lost", default=0),
        if_not_exists=True,
        **_BY_KEY,
    )


def downgrade() -> None:
    """Accounts are not thrown away by a step back."""
    raise NotImplementedError
