"""The kind `pilot`: one finished pilot, which held a slot and ran jobs in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from siteward.kinds.job import LONGEST, OVERCOMMITTED, RESTARTED, TOGETHER
from siteward.records import Bound, Combine, Dimension, Interval, Measure, Product, Ratio

PilotState = Literal["done", "failed", "aborted", "deleted", "unknown"]
"""How a pilot ended: by itself with success or error, before it ran, by a person or a limit, or nobody knows."""
_SECONDS: Final = 400 * 86_400
_PROCESSORS: Final = 100_000


class Pilot(
    Interval,
    kind="pilot",
    identity=("site", "compute_element", "reference", "end"),
    retention=timedelta(days=400),
    longest=LONGEST,
):
    """One finished pilot: where it ran, who sent it, how it ended and how many jobs it ran.

    It lasts from when it started to when it ended; one that never ran has both at the instant it was given up.
    """

    site: Annotated[str, Dimension("site where it ran")]
    compute_element: Annotated[str, Dimension("gateway (compute element) it was sent to")] = ""
    queue: Annotated[str, Dimension("batch queue it ran in")] = ""
    reference: Annotated[str, Dimension("its id at the gateway", bucketed=False)]
    node: Annotated[str, Dimension("worker node it ran on", bucketed=False)] = ""
    user: Annotated[str, Dimension("whose credential it had", personal=True)] = ""
    group: Annotated[str, Dimension("group or role of that credential within the VO")] = ""
    submitter: Annotated[str, Dimension("service that sent it: a factory, director or broker")] = ""
    middleware: Annotated[str, Dimension("software it came through, such as htcondor-ce or arc")] = ""
    state: Annotated[PilotState, Dimension("how it ended")] = "unknown"
    status: Annotated[str, Dimension("final status in the words of the system that ran it", live=False)] = ""
    reason: Annotated[str, Dimension("why it ended so, in free words", max_length=1000, bucketed=False)] = ""
    jobs: Annotated[int, Measure("jobs it ran", unit="1", limit=1_000_000)] = 0
    wall_time: Annotated[int, Measure("elapsed while running", unit="s", limit=_SECONDS)] = 0
    cpu_time: Annotated[
        int | None,
        Measure("processor time used, all processors together", unit="s", limit=_SECONDS * _PROCESSORS),
    ] = None
    busy_time: Annotated[
        int | None,
        Measure("core time in which its processors had a job", unit="s", limit=_SECONDS * _PROCESSORS, live=False),
    ] = None
    processors: Annotated[int, Measure("processors allocated", unit="1", limit=_PROCESSORS)] = 1
    gpus: Annotated[int, Measure("GPUs allocated", unit="1", limit=10_000)] = 0
    memory: Annotated[int | None, Measure("largest memory in use", unit="B", combine=Combine.MAX, limit=2**50)] = None
    queue_time: Annotated[int | None, Measure("waited before it started", unit="s", limit=_SECONDS)] = None

    core_time = Product("wall_time", "processors", unit="s", doc="wall time times processors")

    efficiency = Ratio("cpu_time", "core_time", unit="1", doc="processor time used per core time allocated")
    occupancy = Ratio("busy_time", "core_time", unit="1", doc="core time with a job per core time allocated")

    # By how long they last: wall time is nought where nobody told it.
    wall_time_bound = Bound("wall_time", lasting=True, factor=TOGETHER, slack=RESTARTED)
    cpu_time_bound = Bound("cpu_time", "processors", lasting=True, factor=OVERCOMMITTED, slack=RESTARTED)
    busy_time_bound = Bound("busy_time", "processors", lasting=True, factor=OVERCOMMITTED, slack=RESTARTED)
