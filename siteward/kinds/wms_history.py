"""The kind `wms-history`: the jobs that a workload management system held at one instant."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from siteward.records import Dimension, Measure, Snapshot


class WmsHistory(Snapshot, kind="wms-history", retention=timedelta(days=420)):
    """How many jobs of one sort a workload management system held at one instant; one record for each sort."""

    site: Annotated[str, Dimension("site they run at or are bound for")] = ""
    tier: Annotated[str, Dimension("tier of that site, such as 1 or 2")] = ""
    infrastructure: Annotated[str, Dimension("sort of resource, such as grid, cloud or hpc")] = ""
    user: Annotated[str, Dimension("whose they are", personal=True)] = ""
    group: Annotated[str, Dimension("user's group or role within the VO")] = ""
    job_group: Annotated[str, Dimension("production, task or bulk submission they belong to", live=False)] = ""
    job_type: Annotated[str, Dimension("sort of work, such as simulation, merging or analysis")] = ""
    status: Annotated[str, Dimension("their status, such as waiting, matched, running or done")]
    minor_status: Annotated[str, Dimension("their status more precisely", live=False)] = ""
    application_status: Annotated[str, Dimension("what their program says it is doing", max_length=256, live=False)] = (
        ""
    )
    jobs: Annotated[int, Measure("jobs", unit="1", limit=10**9)]
    reschedules: Annotated[int, Measure("times these jobs were started over", unit="1", limit=10**9)] = 0
