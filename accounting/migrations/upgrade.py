"""Bringing the ledger's tables up to the kinds, when it is opened or by a person.

Tables that all kinds share follow Alembic's revisions. Those of a kind follow its declaration: the database remembers
what each column means, and is compared with that, since a default or a formula cannot be read from a table.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, MetaData, select

from accounting import LedgerError
from accounting.migrations import revisions, standing
from accounting.migrations.changing import change_tables, is_moved, recompute
from accounting.migrations.differences import Change, Step, differences
from accounting.migrations.meaning import Place, digest_of, meanings_of
from accounting.migrations.refusing import refuse_lost, refuse_missing
from accounting.snapshot_tables import Tables, tables_for
from accounting.tables import PREVIOUS, CommonTables
from siteward.log import get_logger
from siteward.records import Kind
from siteward.server.database import Database

ALONE: Final = "siteward accounting"
SHOWN: Final = 5
"""Differences that an error names."""
log = get_logger(__name__)


def prepare(database: Database, kinds: Mapping[str, Kind]) -> dict[str, bytes]:
    """Make what is missing, as far as that takes no time and nobody's decision. Any number of processes may do so.

    Args:
        database: where the ledger is.
        kinds: that are booked.

    Returns:
        A digest for each kind. A writer finds it in the database as long as its declaration is the one in force.

    Raises:
        LedgerError: something differs that waits for a person, or the database is a newer Siteward's.
        Conflict: another process is at it, or long questions are in the way. Do it again.
    """
    with database.alone(ALONE) as connection:
        # Asked before anything is changed: the Siteward of before still opens what waits.
        revisions.present(connection)
        found = {name: _differences(connection, kind) for name, kind in kinds.items()}
        waiting = [each for changes in found.values() for each in changes if each.step is not Step.AT_START]
        if waiting:
            raise LedgerError(_refusal(waiting))
        revisions.advance(connection)
        for name, changes in found.items():
            _bring(connection, database, kinds[name], changes)
    return {name: digest_of(meanings_of(kind)) for name, kind in kinds.items()}


def upgrade(database: Database, kinds: Mapping[str, Kind], *, dry_run: bool = False) -> list[Change]:
    """Make every difference go away that can, and say what there was.

    A kind with a difference that cannot is left alone. Whoever writes records of a kind waits while its sums are
    computed anew.

    Raises:
        LedgerError: the database is a newer Siteward's, or sums cannot be computed anew, of archived records or of
            closed months whose sums a kind has lost; nothing is changed then.
        Conflict: another process is at it. Do it again.
    """
    with database.alone(ALONE) as connection:
        before = revisions.present(connection)
        found: list[Change] = []
        if before != revisions.newest():
            found.append(Change("ledger", "revision", before, revisions.newest(), Step.AT_START))
        differing = {name: _differences(connection, kind) for name, kind in kinds.items()}
        possible = {
            name: changes
            for name, changes in differing.items()
            if not dry_run and all(change.step is not Step.NEVER for change in changes)
        }
        for name, changes in possible.items():
            _refuse(connection, kinds[name], changes)
        if not dry_run:
            revisions.advance(connection)
        for name, changes in possible.items():
            _bring(connection, database, kinds[name], changes)
    return [*found, *(change for changes in differing.values() for change in changes)]


def _differences(connection: Connection, kind: Kind) -> list[Change]:
    known = standing.standing_in(connection, kind.name)
    return differences(kind, known, is_empty=not known or _is_empty(connection, tables_for(kind, MetaData())))


def _is_empty(connection: Connection, tables: Tables) -> bool:
    # By their keys: other columns may be missing still.
    keys = (table.primary_key for table in (tables.series, tables.records, tables.bucket_tables[-1]))
    return all(connection.execute(select(*key.columns).limit(1)).first() is None for key in keys)


def _refuse(connection: Connection, kind: Kind, changes: Iterable[Change]) -> None:
    """Ask whether what is to be computed anew can be, before anything is changed."""
    computed = [change for change in changes if change.spot and change.step is Step.BY_UPGRADE]
    is_anew = any(map(is_moved, computed))
    if not is_anew and not any(_is_computed(each) or _is_linked(each) for each in computed):
        return
    # Whoever writes has ended, so that what is booked and what is there are of one state.
    standing.digest_in(connection, kind.name, mine=True)
    refuse_missing(connection, tables_for(kind, MetaData()))
    if is_anew:
        refuse_lost(connection, kind)


def _bring(connection: Connection, database: Database, kind: Kind, changes: Iterable[Change]) -> None:
    changes, wanted = list(changes), meanings_of(kind)
    digest = digest_of(wanted)
    if not changes and standing.digest_in(connection, kind.name) == digest:
        return
    tables = tables_for(kind, MetaData())
    standing.begin(connection, kind.name)
    change_tables(connection, database.dialect, tables, changes)
    anew = {change.spot[1] for change in changes if change.spot and _is_computed(change)}
    all_anew = any(map(is_moved, changes))
    if anew or all_anew:
        summed, names = CommonTables(MetaData()).summed, None if all_anew else anew
        count = recompute(connection, database.dialect, tables, summed, names, time.time_ns() // 1000)
        log.info("sums computed anew", kind=kind.name, sums=sorted(anew), records=count)
    standing.settle(connection, kind.name, wanted, digest)


def _is_computed(change: Change) -> bool:
    assert change.spot is not None
    return change.spot[0] is Place.SUMS and change.step is Step.BY_UPGRADE and bool(change.wanted)


def _is_linked(change: Change) -> bool:
    assert change.spot is not None
    return change.spot[1] == PREVIOUS and bool(change.wanted)


def _refusal(waiting: list[Change]) -> str:
    told = [
        f"{each.where}, {each.what}: there is {each.present or 'nothing'}, wanted is {each.wanted or 'nothing'}"
        for each in waiting[:SHOWN]
    ]
    more = f"; and {len(waiting) - SHOWN} more" if len(waiting) > SHOWN else ""
    if any(each.step is Step.NEVER for each in waiting):
        remedy = "that cannot be changed: declare the kind as it was, and give what is changed a new name"
    else:
        remedy = "look with `siteward ledger upgrade --dry-run`, then run it without"
    return f"the ledger differs from the kinds: {'; '.join(told)}{more}. {remedy}"
