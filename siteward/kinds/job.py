"""The kind `job`: one finished payload job."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from siteward.records import Bound, Combine, Dimension, Interval, Measure, Product, Ratio

RESTARTED: Final = 30 * 86_400
"""Seconds that wall time may exceed the interval by: of a job that was evicted and started again, some batch systems
tell the last start, and the wall time of all attempts."""
TOGETHER: Final = 256
"""How many times the interval wall time may be: what some sources call so is that of all processors together."""
OVERCOMMITTED: Final = 1000
"""How many times its core time a job may have used: where nobody says how many processors it had it is booked as having
one, and may have used all threads of the largest node; where nobody holds it to its share, it does."""
UNTIMED: Final = 86_400
"""Seconds of processor time that a job may have used whose wall time is told as nought, or in whole minutes."""
JobState = Literal["completed", "failed", "cancelled", "timeout", "evicted", "unknown"]
"""How a job ended: by itself with success or error, by a person, by a limit, by the site, or nobody knows."""
EnergyMethod = Literal["measured", "apportioned", "modelled", "unknown"]
"""How energy is known: measured on what one had to oneself, its share of what was measured on a whole machine, computed
from times and the power that such hardware takes, or nobody said."""
ENERGY_METHOD: Final = (
    "how the energy is known: measured on what it had to itself (whole nodes, counters of its own), apportioned from "
    "what a machine measured for all, or modelled from its times and the power that such hardware takes"
)
LONGEST: Final = timedelta(days=400)
"""No job runs longer; what says so has a mistaken clock."""
_SECONDS: Final = 400 * 86_400
_PROCESSORS: Final = 100_000
_PETABYTE: Final = 2**50


class Job(
    Interval,
    kind="job",
    identity=("site", "submit_host", "cluster", "local_job_id", "end"),
    retention=timedelta(days=400),
    longest=LONGEST,
):
    """One finished payload job: where it ran, for whom, how it ended and what it used.

    Scores are those of one core, in thousandths: 15300 for 15.3. Processor time times a score is work that was done,
    core time times a score is work that could have been done.
    """

    site: Annotated[str, Dimension("site where it ran")]
    compute_element: Annotated[str, Dimension("gateway (compute element, cluster or partition) it came through")] = ""
    queue: Annotated[str, Dimension("batch queue it ran in")] = ""
    node: Annotated[str, Dimension("worker node it ran on", bucketed=False)] = ""
    submit_host: Annotated[str, Dimension("host that submitted it; makes the local job id unique")] = ""
    cluster: Annotated[
        str, Dimension("batch system that ran it, where the site has several; makes the local job id unique")
    ] = ""
    local_job_id: Annotated[str, Dimension("its id in the batch system", bucketed=False)]
    user: Annotated[str, Dimension("who ran it", personal=True)] = ""
    group: Annotated[str, Dimension("user's group or role within the VO")] = ""
    project: Annotated[str, Dimension("project or activity it is booked on")] = ""
    application: Annotated[str, Dimension("program or job type")] = ""
    state: Annotated[JobState, Dimension("how it ended")] = "unknown"
    exit_status: Annotated[int | None, Dimension("exit status; None where it never started or nobody knows")] = None
    wall_time: Annotated[int, Measure("elapsed while running", unit="s", limit=_SECONDS)]
    cpu_time: Annotated[
        int | None,
        Measure("processor time used, all processors together", unit="s", limit=_SECONDS * _PROCESSORS),
    ] = None
    processors: Annotated[int, Measure("processors allocated", unit="1", limit=_PROCESSORS)] = 1
    memory: Annotated[int | None, Measure("largest memory in use", unit="B", combine=Combine.MAX, limit=_PETABYTE)] = (
        None
    )
    queue_time: Annotated[int | None, Measure("waited before it started", unit="s", limit=_SECONDS)] = None

    role: Annotated[str, Dimension("user's role within the group", live=False)] = ""
    local_user: Annotated[str, Dimension("account it ran under at the site", personal=True, bucketed=False)] = ""
    job_id: Annotated[str, Dimension("its id in the workload management system", bucketed=False)] = ""
    pilot: Annotated[str, Dimension("id of the pilot that ran it", bucketed=False)] = ""
    job_group: Annotated[str, Dimension("production, task or bulk submission it belongs to", live=False)] = ""
    job_type: Annotated[str, Dimension("sort of work, such as simulation, merging or analysis", live=False)] = ""
    job_class: Annotated[str, Dimension("class of jobs in the workload management system", live=False)] = ""
    processing_type: Annotated[
        str, Dimension("processing step or pass, such as a release", max_length=256, live=False)
    ] = ""
    status: Annotated[str, Dimension("final status in the words of the system that ran it", live=False)] = ""
    minor_status: Annotated[
        str, Dimension("final status more precisely, in that system's words", max_length=256, live=False)
    ] = ""
    reason: Annotated[str, Dimension("why it ended so, in free words", max_length=1000, bucketed=False)] = ""
    infrastructure: Annotated[str, Dimension("grid, local, cloud or hpc", live=False)] = ""
    middleware: Annotated[str, Dimension("software it came through, such as htcondor-ce or arc", live=False)] = ""
    cpu_model: Annotated[str, Dimension("model of the processors", bucketed=False)] = ""
    gpu_model: Annotated[str, Dimension("model of the GPUs; empty where it had none", live=False)] = ""
    energy_method: Annotated[EnergyMethod, Dimension(ENERGY_METHOD, live=False)] = "unknown"
    nodes: Annotated[int, Measure("nodes allocated", unit="1", limit=_PROCESSORS, live=False)] = 1
    virtual_memory: Annotated[
        int | None,
        Measure("largest virtual memory", unit="B", combine=Combine.MAX, limit=_PETABYTE, averaged=False),
    ] = None
    gpus: Annotated[int, Measure("GPUs allocated, whole or shared", unit="1", limit=10_000)] = 0
    gpu_fraction: Annotated[
        int,
        Measure(
            "share of each GPU in thousandths: 1000 for whole ones, 143 for a seventh",
            unit="m1",
            combine=Combine.MEAN,
            maximum=1000,
            averaged=False,
        ),
    ] = 1000
    gpu_active_time: Annotated[
        int | None,
        Measure("time in which its GPUs computed, all together", unit="s", limit=_SECONDS * 10_000, live=False),
    ] = None
    energy: Annotated[
        int | None, Measure("energy used; by energy_method, since sums mix them", unit="J", limit=10**12)
    ] = None
    hs06: Annotated[
        int | None,
        Measure(
            "HEP-SPEC06 of one core, in thousandths: 11400 for 11.4",
            unit="mHS06",
            combine=Combine.MEAN,
            limit=200_000,
        ),
    ] = None
    hs23: Annotated[
        int | None,
        Measure(
            "HEPscore23 of one core, in thousandths: 15300 for 15.3",
            unit="mHS23",
            combine=Combine.MEAN,
            limit=200_000,
        ),
    ] = None
    si2k: Annotated[
        int | None,
        Measure("SPECint2000 of one core", unit="si2k", combine=Combine.MEAN, limit=50_000, averaged=False),
    ] = None
    input_size: Annotated[int | None, Measure("input data read", unit="B", limit=_PETABYTE)] = None
    output_size: Annotated[int | None, Measure("output data written", unit="B", limit=_PETABYTE)] = None
    input_files: Annotated[int | None, Measure("input files read", unit="1", limit=10**7, live=False)] = None
    output_files: Annotated[int | None, Measure("output files written", unit="1", limit=10**7, live=False)] = None
    input_sandbox_size: Annotated[
        int | None, Measure("files sent along with it", unit="B", limit=_PETABYTE, live=False)
    ] = None
    output_sandbox_size: Annotated[
        int | None, Measure("files sent back with its logs", unit="B", limit=_PETABYTE, live=False)
    ] = None
    disk_space: Annotated[
        int | None, Measure("local disk in use when it ended", unit="B", limit=_PETABYTE, live=False)
    ] = None
    processed_events: Annotated[int | None, Measure("events processed", unit="1", limit=10**12, live=False)] = None

    core_time = Product("wall_time", "processors", unit="s", doc="wall time times processors")
    gpu_time = Product(
        "wall_time", "gpus", "gpu_fraction", unit="ms", doc="wall time times GPUs, shares counted as such"
    )
    cpu_hs06 = Product("cpu_time", "hs06", unit="mHS06.s", doc="processor time times HEP-SPEC06", live=False)
    cpu_hs23 = Product("cpu_time", "hs23", unit="mHS23.s", doc="processor time times HEPscore23", live=False)
    cpu_si2k = Product("cpu_time", "si2k", unit="si2k.s", doc="processor time times SPECint2000", live=False)
    core_hs06 = Product("wall_time", "processors", "hs06", unit="mHS06.s", doc="core time times HEP-SPEC06", live=False)
    core_hs23 = Product("wall_time", "processors", "hs23", unit="mHS23.s", doc="core time times HEPscore23")
    core_si2k = Product("wall_time", "processors", "si2k", unit="si2k.s", doc="core time times SPECint2000", live=False)

    efficiency = Ratio("cpu_time", "core_time", unit="1", doc="processor time used per core time allocated")
    power = Ratio("energy", "core_time", unit="W", doc="energy per core time")
    input_rate = Ratio("input_size", "cpu_time", unit="B/s", doc="input data per processor time")
    event_time = Ratio("cpu_time", "processed_events", unit="s", doc="processor time per event")

    wall_time_bound = Bound("wall_time", lasting=True, factor=TOGETHER, slack=RESTARTED)
    cpu_time_bound = Bound("cpu_time", "wall_time", "processors", factor=OVERCOMMITTED, slack=UNTIMED)
