"""Which records a correction selects, and whether all of them are in the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archived_files import beside, listed, nearest_files
from accounting.archive.archived_ids import day_of, first_id, unpacked
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.parted import Parted
from accounting.booking.rows import Row, whole_rows
from accounting.corrections.correction import CorrectionError, Selection
from accounting.query.conditions import conditions_of
from accounting.snapshot_tables import Tables
from accounting.tables import ID, CommonTables, is_bucketed
from siteward.query_text import parse_filters
from siteward.records import Kind

_MILLISECOND = 1_000
VO = "vo"


def selected_rows(connection: Connection, tables: Tables, selection: Selection, after: bytes, most: int) -> list[Row]:
    """Some of the records that a correction selects, in order of their ids.

    Args:
        connection: of the transaction.
        tables: of the kind.
        selection: what they meet.
        after: the id after which to begin.
        most: how many at most.
    """
    question = whole_rows(tables, tables.records).where(tables.records.c[ID] > after, *_conditions(tables, selection))
    return [dict(row) for row in connection.execute(question.limit(most)).mappings()]


def _conditions(tables: Tables, selection: Selection, only: str = "") -> list[ColumnElement[bool]]:
    """What the records meet; of the conditions on fields those on one `only`, where it is named."""
    records = tables.records
    found: list[ColumnElement[bool]] = []
    for condition in parse_filters(selection.where, tables.kind):
        if only not in {"", condition.field}:
            continue
        table = tables.series if is_bucketed(tables.kind.column[condition.field]) else records
        found += conditions_of(table, [condition])
    if selection.ids:
        found.append(records.c[ID].in_([bytes.fromhex(each) for each in selection.ids]))
    time = records.c[tables.kind.time]
    if selection.start is not None:
        found += [records.c[ID] >= first_id(selection.start // _MILLISECOND), time >= selection.start]
    if selection.end is not None:
        found += [records.c[ID] < first_id(-(-selection.end // _MILLISECOND)), time < selection.end]
    return found


def check_ids(connection: Connection, tables: Tables, selection: Selection) -> None:
    """Refuse ids of which there is no record that counts.

    One of a VO that the conditions leave out is none: who corrects their own VO does not learn what others have.

    Raises:
        CorrectionError: it names them.
    """
    found: set[bytes] = set()
    for first in range(0, len(selection.ids), AT_ONCE):
        part = Selection(where=selection.where, ids=selection.ids[first : first + AT_ONCE])
        question = whole_rows(tables, tables.records).where(*_conditions(tables, part, only=VO))
        found |= {bytes(row[ID]) for row in connection.execute(question).mappings()}
    missing = [each for each in selection.ids if bytes.fromhex(each) not in found]
    if missing:
        message = (
            f"{tables.kind.name} has no record {listed(missing)} that counts: it never came, or is void; give the ids "
            "of others"
        )
        raise CorrectionError(message)


def refuse_archived(connection: Connection, common: CommonTables, kind: Kind, selection: Selection) -> None:
    """Refuse to correct what is, or may be, in the archive.

    Raises:
        CorrectionError: it names the files to restore.
    """
    if selection.ids:
        refuse_archived_ids(connection, common, kind, [bytes.fromhex(each) for each in selection.ids])
        return
    archived = common.archived
    assert selection.start is not None
    assert selection.end is not None
    first, last = day_of(first_id(selection.start // _MILLISECOND)), -(-selection.end // (_MILLISECOND * _MILLISECOND))
    within = (archived.c.kind == kind.name, archived.c.day >= first, archived.c.day < last)
    files = list(connection.execute(select(archived.c.file).where(*within).order_by(archived.c.file)).scalars())
    if files:
        message = (
            f"records of the window are archived in {listed(files)}; bring them back with `siteward ledger restore "
            "FILE`, or leave their days out"
        )
        raise CorrectionError(message)


def refuse_archived_ids(connection: Connection, common: CommonTables, kind: Kind, ids: Iterable[bytes]) -> None:
    """Refuse to correct records that are in the archive; of snapshots also those whose day is there in part.

    Raises:
        CorrectionError: it names the files to restore.
    """
    archived = common.archived
    wanted = set(ids)
    days = {day_of(each) for each in wanted}
    present = connection.execute(select(archived.c.day).where(archived.c.kind == kind.name).distinct()).scalars()
    files: list[str] = []
    for day in sorted(days.intersection(map(int, present))):
        of_day = select(archived.c.file, archived.c.ids).where(archived.c.kind == kind.name, archived.c.day == day)
        for file, packed in connection.execute(of_day):
            # What snapshots were last or least on a day is told by all of them.
            if kind.of_instants or wanted & unpacked(bytes(packed)).keys():
                files.append(file)
    if files:
        message = f"records of it are archived in {listed(files)}; bring them back with `siteward ledger restore FILE`"
        raise CorrectionError(message)


@contextmanager
def refused_beside_archived(connection: Connection, common: CommonTables, kind: Kind) -> Iterator[None]:
    """Refuse to correct records of counters where that would change archived ones.

    Raises:
        CorrectionError: it names the files to restore first.
    """
    try:
        yield
    except Parted as parted:
        identifier, missing = min(parted.missing.items())
        files = nearest_files(connection, common.archived, kind.name, missing)
        message = (
            f"record {identifier.hex()}: {beside(files)}; bring that back with `siteward ledger restore FILE`, or "
            "leave the record out"
        )
        raise CorrectionError(message) from parted
