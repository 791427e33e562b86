"""The kind `host`: what one machine was doing at one instant."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from siteward.records import Combine, Dimension, Measure, Snapshot


class Host(
    Snapshot,
    kind="host",
    identity=("producer", "time", "site", "host"),
    retention=timedelta(days=90),
    booked=False,
):
    """Processors, memory, disk and network of one machine at one instant."""

    site: Annotated[str, Dimension("site the machine belongs to")]
    host: Annotated[str, Dimension("name of the machine", bucketed=False)]
    processors: Annotated[int, Measure("logical processors", unit="1")]
    cpu_used: Annotated[
        float,
        Measure("fraction of all processors in use since the cycle before, 0 to 1", unit="1", combine=Combine.MEAN),
    ]
    load: Annotated[float, Measure("mean number of runnable processes over one minute", unit="1")]
    memory_total: Annotated[int, Measure("memory installed", unit="B")]
    memory_used: Annotated[int, Measure("memory in use and not reclaimable", unit="B")]
    swap_used: Annotated[int, Measure("swap in use", unit="B")] = 0
    disk_total: Annotated[int, Measure("size of local file systems", unit="B")]
    disk_used: Annotated[int, Measure("used on local file systems", unit="B")]
    network_received: Annotated[int, Measure("received since the cycle before, per second", unit="B/s")] = 0
    network_sent: Annotated[int, Measure("sent since the cycle before, per second", unit="B/s")] = 0
    processes: Annotated[int, Measure("processes alive", unit="1")] = 0
