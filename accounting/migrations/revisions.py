"""The tables that all kinds share follow Alembic's revisions, in `versions` beside this file."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from accounting import LedgerError

VERSION_TABLE: Final = "accounting_version"
"""Other rooms may keep theirs in the same database."""
FOLDER: Final = Path(__file__).parent
_one_at_a_time: Final = Lock()
"""Revisions find their database in a variable of the whole process."""


def newest() -> str:
    """The revision that this Siteward wants."""
    return str(_scripts().get_current_head())


def present(connection: Connection) -> str:
    """The revision that a database has; "" for an empty one.

    Raises:
        LedgerError: a newer Siteward made it.
    """
    found = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision() or ""
    known = {script.revision for script in _scripts().walk_revisions()}
    if found and found not in known:
        message = (
            f"the ledger's database was made by a newer Siteward (revision {found}; this one knows up to {newest()}); "
            "install that version, or a later one"
        )
        raise LedgerError(message)
    return found


def advance(connection: Connection) -> None:
    """Run every revision that the database does not have yet, within the caller's transaction.

    Raises:
        LedgerError: a newer Siteward made it.
    """
    if present(connection) == newest():
        return
    scripts = _scripts()
    # What an env.py would do; nobody but us runs these revisions.
    environment = EnvironmentContext(
        Config(),
        scripts,
        fn=lambda revision, _: scripts._upgrade_revs("head", revision),  # noqa: SLF001  # as Alembic's own `upgrade` does.
    )
    with _one_at_a_time, environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE)
        environment.run_migrations()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(FOLDER))
