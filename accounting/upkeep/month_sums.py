"""What the buckets of whole months come to, kept beside them, so that a year is read from twelve rows a series.

The sums of a month hold as long as they are marked; whoever changes a bucket takes the mark away in the same
transaction, and the next round sums the month again. A question takes unmarked months from their buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, case, delete, func, literal_column, select
from sqlalchemy.exc import DBAPIError

from accounting.booking.buckets import DAY, SECOND
from accounting.ledger import Ledger
from accounting.tables import CARRIED, SERIES, START, KindTables
from accounting.upkeep.month_marks import marked_months
from accounting.upkeep.months import month_end, month_of
from siteward.log import get_logger
from siteward.server.database import Conflict, Misfit

LATE_DAYS: Final = 8
"""Days after a month's end in which so much still comes that its sums would not hold."""
TRIES: Final = 10
log = get_logger(__name__)


def sum_months(ledger: Ledger) -> int:
    """Sum the months whose sums are not there or do not hold; their number.

    Who books records of the kind waits while one of its months is summed, some seconds for millions of buckets.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer; what was done is done.
    """
    count = 0
    for tables in ledger.tables.values():
        for buckets, sums in tables.months:
            for month in list(_waiting(ledger, buckets)):
                count += _summed(ledger, tables, buckets, sums, month)
    return count


def _waiting(ledger: Ledger, buckets: Table) -> Iterator[int]:
    with ledger.database.read() as connection:
        marked = set(marked_months(connection, ledger.common.summed, buckets))
        start, begin = buckets.c[START], None
        while True:
            earliest = select(func.min(start)) if begin is None else select(func.min(start)).where(start >= begin)
            found = connection.execute(earliest).scalar()
            if found is None:
                return
            month = month_of(int(found))
            begin = month_end(month)
            if (begin + LATE_DAYS * DAY) * SECOND > ledger.clock():
                return
            if month not in marked:
                yield month


def _summed(ledger: Ledger, tables: KindTables, buckets: Table, sums: Table, month: int) -> int:
    """Sum one month; 1 where it could be."""
    for _ in range(TRIES):
        try:
            with ledger.database.write() as connection:
                ledger.check(connection, tables.kind.name, alone=True)
                connection.execute(delete(sums).where(sums.c[START] == month))
                _insert(connection, buckets, sums, month)
                mark: dict[str, Any] = {"bucket_table": buckets.name, "month": month}
                row = {name: [value] for name, value in mark.items()}
                ledger.database.dialect.insert_new(connection, ledger.common.summed, row)
        except Conflict as conflict:
            log.debug("summing again", reason=str(conflict))
        except (Misfit, DBAPIError) as error:
            # Beyond 64 bits; its buckets answer.
            log.warning("a month cannot be summed", table=buckets.name, month=month, reason=ledger.database.told(error))
            return 0
        else:
            return 1
    return 0


def _insert(connection: Connection, buckets: Table, sums: Table, month: int) -> None:
    question = month_question(buckets, sums, month)
    connection.execute(sums.insert().from_select([column.name for column in question.selected_columns], question))


def month_question(buckets: Table, sums: Table, month: int) -> Select[Any]:
    """What the buckets of a month come to, in the columns of its sums."""
    names = [column.name for column in sums.c if column.name not in {START, SERIES}]
    start = buckets.c[START]
    # Who was running when the month began is in its first buckets; later ones tell of the same again.
    added = [
        func.sum(case((start == month, buckets.c[name]), else_=0) if name == CARRIED else buckets.c[name]).label(name)
        for name in names
    ]
    return (
        select(literal_column(str(month)).label(START), buckets.c[SERIES], *added)
        .where(start >= month, start < month_end(month))
        .group_by(buckets.c[SERIES])
    )
