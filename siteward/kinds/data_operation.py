"""The kind `data-operation`: one transfer, upload, download or removal of files."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from siteward.records import Dimension, Interval, Measure


class DataOperation(Interval, kind="data-operation", identity=("reference",), retention=timedelta(days=180)):
    """One operation on files: from where, to where, with which protocol, how much, and how it ended.

    With a reference, the same operation sent again is the same record; without one every record is a new one.
    """

    reference: Annotated[
        str, Dimension("its number in the system that ran it, such as an FTS file or a Rucio request", bucketed=False)
    ] = ""
    operation: Annotated[str, Dimension("what was done: transfer, upload, download, remove, register …")]
    user: Annotated[str, Dimension("who asked for it", personal=True)] = ""
    activity: Annotated[str, Dimension("purpose, such as production or rebalancing")] = ""
    execution_site: Annotated[str, Dimension("site where the operation was run")] = ""
    source: Annotated[str, Dimension("storage read from")] = ""
    destination: Annotated[str, Dimension("storage written to")] = ""
    protocol: Annotated[str, Dimension("protocol used")] = ""
    state: Annotated[Literal["done", "failed", "cancelled"], Dimension("how it ended")]
    reason: Annotated[str, Dimension("class of failure; empty where it succeeded", bucketed=False)] = ""
    size: Annotated[int, Measure("data moved", unit="B")] = 0
    transfer_time: Annotated[int, Measure("time spent moving data", unit="s")] = 0
    registration_time: Annotated[int, Measure("time spent in catalogues", unit="s")] = 0
    files_done: Annotated[int, Measure("files that succeeded", unit="1")] = 0
    files_total: Annotated[int, Measure("files attempted", unit="1")] = 1
    registrations_done: Annotated[int, Measure("catalogue registrations that succeeded", unit="1")] = 0
    registrations_total: Annotated[int, Measure("catalogue registrations attempted", unit="1")] = 0
