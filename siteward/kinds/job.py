"""The kind `job`: one finished payload job."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from siteward.records import Dimension, Interval, Measure, Product

JobState = Literal["completed", "failed", "cancelled", "timeout", "evicted", "unknown"]
"""How a job ended: by itself with success or error, by a person, by a limit, by the site, or nobody knows."""


class Job(
    Interval,
    kind="job",
    identity=("site", "submit_host", "local_job_id", "end"),
    retention=timedelta(days=400),
):
    """One finished payload job: where it ran, for whom, how it ended and what it used."""

    site: Annotated[str, Dimension("site where it ran")]
    compute_element: Annotated[str, Dimension("gateway (compute element, cluster or partition) it came through")] = ""
    queue: Annotated[str, Dimension("batch queue it ran in")] = ""
    node: Annotated[str, Dimension("worker node it ran on", bucketed=False)] = ""
    submit_host: Annotated[str, Dimension("host that submitted it; makes the local job id unique")] = ""
    local_job_id: Annotated[str, Dimension("its id in the batch system", bucketed=False)]
    user: Annotated[str, Dimension("who ran it", personal=True)] = ""
    group: Annotated[str, Dimension("user's group or role within the VO")] = ""
    project: Annotated[str, Dimension("project or activity it is booked on")] = ""
    application: Annotated[str, Dimension("program or job type")] = ""
    state: Annotated[JobState, Dimension("how it ended")] = "unknown"
    exit_status: Annotated[int | None, Dimension("exit status; None where it never started or nobody knows")] = None
    wall_time: Annotated[int, Measure("elapsed while running", unit="s")]
    cpu_time: Annotated[int | None, Measure("processor time used, all processors together", unit="s")] = None
    processors: Annotated[int, Measure("processors allocated", unit="1")] = 1
    memory: Annotated[int | None, Measure("largest memory in use", unit="B")] = None
    queue_time: Annotated[int | None, Measure("waited before it started", unit="s")] = None

    core_time = Product("wall_time", "processors", unit="s", doc="wall time times processors")
