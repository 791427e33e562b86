"""The exact way for what a cluster cannot compute exactly: fetch the records and ask a DuckDB of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from monitoring.stores.opensearch.conditions import Clause, all_of
from monitoring.stores.opensearch.defaults import value_of
from monitoring.stores.opensearch.documents import microseconds_of
from monitoring.stores.opensearch.view import MOST_HITS, View
from monitoring.stores.questions import factors_of
from siteward.query import Answer, Query, QueryError
from siteward.records import Kind, Shape, Type
from siteward.settings import MonitoringSettings
from siteward.sinks import Batch

MOST_RECORDS: Final = 2_000_000
"""Records that are fetched for one question."""


def ask_streamed(view: View, query: Query, clauses: Sequence[Clause]) -> Answer:
    """Answer a checked question from the records themselves.

    Args:
        view: of the kind's records.
        query: the question.
        clauses: which records it needs; all of the window where it asks for cycles.

    Raises:
        QueryError: it needs more than MOST_RECORDS, or a sum does not fit 128 bits.
        ClusterError: the cluster does not answer.
        StoreError: there is no room for the records.
    """
    from monitoring.stores.duckdb.store import DuckStore  # noqa: PLC0415  # only where it is needed.

    wanted = all_of(clauses)
    _refuse_too_many(_count(view, wanted))
    kind = view.kind
    fields = _fields(kind, query)
    with (
        TemporaryDirectory(prefix="siteward-question-") as folder,
        closing(DuckStore(Path(folder) / "records.duckdb", MonitoringSettings(), {kind.name: kind})) as store,
        closing(view.hits(wanted, fields)) as hits,
    ):
        count = 0
        while part := list(islice(hits, MOST_HITS)):
            count += len(part)
            _refuse_too_many(count)
            store.write(_batch(kind, fields, part))
        return store.query(query)


def may_stream(view: View, clauses: Sequence[Clause]) -> bool:
    """Whether the records that meet all clauses are few enough."""
    return _count(view, all_of(clauses)) <= MOST_RECORDS


def _count(view: View, wanted: Clause) -> int:
    return sum(bucket["doc_count"] for bucket in view.buckets(wanted, (), {}))


def _refuse_too_many(count: int) -> None:
    if count > MOST_RECORDS:
        message = (
            f"an exact answer needs {count} records one by one, because sums in doubles would round or values may be "
            f"negative, and at most {MOST_RECORDS} are fetched; ask for a shorter window, or filter"
        )
        raise QueryError(message)


def _fields(kind: Kind, query: Query) -> list[str]:
    """The fields that the question looks at; of snapshots all dimensions, by which series are told apart."""
    names = {kind.time, *query.by, *(condition.field for condition in query.filters)}
    for wanted in query.wanted:
        names.update(factors_of(kind, wanted.measure) if wanted.measure else ())
    if kind.shape is Shape.SNAPSHOT:
        names.update(column.name for column in kind.dimensions)
        names.add("cycle_size")
    return [name for name in kind.names if name in names]


def _batch(kind: Kind, fields: Sequence[str], hits: Sequence[Mapping[str, Any]]) -> Batch:
    """Hits as a batch; what was not asked for is unknown in it."""
    columns: dict[str, list[Any]] = {name: [None] * len(hits) for name in kind.names}
    columns["revision"] = [0] * len(hits)
    sources = [hit["_source"] for hit in hits]
    for name in fields:
        columns[name] = list(_read(kind, name, sources))
    return Batch(
        kind=kind,
        ids=[bytes.fromhex(hit["_id"]) for hit in hits],
        columns=columns,
        producers=[""] * len(hits),
        messages=[b""] * len(hits),
        received=0,
    )


def _read(kind: Kind, name: str, sources: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    if kind.column[name].type is Type.TIME:
        return (microseconds_of(source[name]) for source in sources)
    return (value_of(kind, name, source) for source in sources)
