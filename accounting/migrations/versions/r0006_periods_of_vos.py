"""Periods of single VOs; those that were closed before are of all VOs."""

from __future__ import annotations

from typing import Any, Final

from alembic import op
from sqlalchemy import inspect

from siteward.server.database.columns import blob_column, integer_column, text_column

revision: Final = "r0006"
down_revision: Final = "r0005"
_BY_KEY: Final[dict[str, Any]] = {
    "sqlite_strict": True,
    "sqlite_with_rowid": False,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
}


def upgrade() -> None:
    """Add whose a period is, and an entry about it. MariaDB commits each: what is done already is left out."""
    connection = op.get_bind()
    if "vo" not in _columns("accounting_entries"):
        op.add_column("accounting_entries", text_column("vo", 255, default=""))
    key = inspect(connection).get_pk_constraint("accounting_periods")
    if "vo" in key["constrained_columns"]:
        return
    if connection.dialect.name == "sqlite":
        _copy()
        return
    if "vo" not in _columns("accounting_periods"):
        op.add_column("accounting_periods", text_column("vo", 255, default="*"))
    # One statement: no table is ever seen without a key.
    drop = f'DROP CONSTRAINT "{key["name"]}"' if connection.dialect.name == "postgresql" else "DROP PRIMARY KEY"
    op.execute(f"ALTER TABLE accounting_periods {drop}, ADD PRIMARY KEY (kind, month, vo)")


def _columns(table: str) -> set[str]:
    return {str(column["name"]) for column in inspect(op.get_bind()).get_columns(table)}


def _copy() -> None:
    """SQLite changes no key: another table takes the place, all of it in one transaction."""
    op.create_table(
        "accounting_periods_of_vos",
        text_column("kind", 255, key=True),
        integer_column("month", key=True),
        text_column("vo", 255, key=True, default="*"),
        text_column("state", 40),
        integer_column("closing"),
        integer_column("closed_at"),
        text_column("closed_by", 255),
        integer_column("signed_at", optional=True),
        text_column("signed_by", 255),
        text_column("digest", 64),
        blob_column("meaning"),
        **_BY_KEY,
    )
    columns = "kind, month, state, closing, closed_at, closed_by, signed_at, signed_by, digest, meaning"
    op.execute(f"INSERT INTO accounting_periods_of_vos ({columns}) SELECT {columns} FROM accounting_periods")  # noqa: S608  # our own names.
    op.drop_table("accounting_periods")
    op.rename_table("accounting_periods_of_vos", "accounting_periods")


def downgrade() -> None:
    """Accounts are not thrown away by a step back."""
    raise NotImplementedError
