"""The kind `data-operation`: one transfer, upload, download or removal of files."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from siteward.records import Bound, Dimension, Former, Interval, Measure, Ratio

_SECONDS: Final = 400 * 86_400
_MICROSECONDS: Final = _SECONDS * 10**6
_FILES: Final = 10**9


class DataOperation(
    Interval,
    kind="data-operation",
    identity=("reference",),
    retention=timedelta(days=180),
    longest=timedelta(days=400),
):
    """One operation on files: from where, to where, with which protocol, how much, and how it ended.

    With a reference, the same operation sent again is the same record; without one every record is a new one. Most
    take well below a second in catalogues, so how long it took is told in microseconds.
    """

    reference: Annotated[
        str, Dimension("its number in the system that ran it, such as an FTS file or a Rucio request", bucketed=False)
    ] = ""
    operation: Annotated[str, Dimension("what was done: transfer, upload, download, remove, register …")]
    user: Annotated[str, Dimension("who asked for it", personal=True)] = ""
    group: Annotated[str, Dimension("that user's group or role within the VO")] = ""
    activity: Annotated[str, Dimension("purpose, such as production or rebalancing")] = ""
    execution_site: Annotated[str, Dimension("site where the operation was run", max_length=256)] = ""
    source: Annotated[str, Dimension("storage read from")] = ""
    destination: Annotated[str, Dimension("storage written to")] = ""
    protocol: Annotated[str, Dimension("protocol used")] = ""
    state: Annotated[Literal["done", "failed", "cancelled"], Dimension("how it ended")]
    reason: Annotated[str, Dimension("class of failure; empty where it succeeded", bucketed=False)] = ""
    error_code: Annotated[int | None, Dimension("number of the error, in the protocol's own counting", live=False)] = (
        None
    )
    component: Annotated[str, Dimension("program that ran it, such as a file transfer service", live=False)] = ""
    host: Annotated[str, Dimension("host of that program", bucketed=False)] = ""
    file: Annotated[str, Dimension("logical name, where it was of one file", max_length=1000, bucketed=False)] = ""
    url: Annotated[str, Dimension("address of that file at the storage", max_length=2000, bucketed=False)] = ""
    size: Annotated[int, Measure("data moved", unit="B", limit=2**55)] = 0
    transfer_duration: Annotated[
        int,
        Measure("time spent moving data", unit="us", limit=_MICROSECONDS, former=Former("transfer_time", 10**6)),
    ] = 0
    registration_duration: Annotated[
        int,
        Measure("time spent in catalogues", unit="us", limit=_MICROSECONDS, former=Former("registration_time", 10**6)),
    ] = 0
    files_done: Annotated[int, Measure("files that succeeded", unit="1", limit=_FILES)] = 0
    files_total: Annotated[int, Measure("files attempted, at least those that succeeded", unit="1", limit=_FILES)] = 1
    registrations_done: Annotated[int, Measure("catalogue registrations that succeeded", unit="1", limit=_FILES)] = 0
    registrations_total: Annotated[int, Measure("catalogue registrations attempted", unit="1", limit=_FILES)] = 0
    queue_time: Annotated[int | None, Measure("waited before it started", unit="s", limit=_SECONDS)] = None

    efficiency = Ratio("files_done", "files_total", unit="1", doc="files that succeeded per files attempted")
    registration_efficiency = Ratio(
        "registrations_done", "registrations_total", unit="1", doc="registrations that succeeded per attempted"
    )
    throughput = Ratio("size", "transfer_duration", unit="B/s", times=10**6, doc="data moved per time spent moving it")

    files_done_bound = Bound("files_done", "files_total")
