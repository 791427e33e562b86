"""The kind `pilot`: one finished pilot, which held a slot and ran jobs in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from siteward.kinds.job import ENERGY_METHOD, LONGEST, OVERCOMMITTED, RESTARTED, TOGETHER, EnergyMethod
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

    It lasts from when it started to when it ended; one that never ran has both at the instant it was given up. Scores
    are those of one core, as pilots measure them where they run: core time times a score is what the slot could do.
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
    gpu_model: Annotated[str, Dimension("model of the GPUs; empty where it had none", live=False)] = ""
    energy_method: Annotated[EnergyMethod, Dimension(ENERGY_METHOD, live=False)] = "unknown"
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
    gpus: Annotated[int, Measure("GPUs allocated, whole or shared", unit="1", limit=10_000)] = 0
    gpu_fraction: Annotated[
        int,
        Measure(
            "share of each GPU in thousandths: 1000 for whole ones, 143 for a seventh",
            unit="m1",
            combine=Combine.MEAN,
            maximum=1000,
            live=False,
            averaged=False,
        ),
    ] = 1000
    memory: Annotated[int | None, Measure("largest memory in use", unit="B", combine=Combine.MAX, limit=2**50)] = None
    queue_time: Annotated[int | None, Measure("waited before it started", unit="s", limit=_SECONDS)] = None
    energy: Annotated[
        int | None, Measure("energy used; by energy_method, since sums mix them", unit="J", limit=10**12, live=False)
    ] = None
    hs06: Annotated[
        int | None,
        Measure(
            "HEP-SPEC06 of one core, in thousandths: 11400 for 11.4",
            unit="mHS06",
            combine=Combine.MEAN,
            limit=200_000,
            live=False,
        ),
    ] = None
    hs23: Annotated[
        int | None,
        Measure(
            "HEPscore23 of one core, in thousandths: 15300 for 15.3",
            unit="mHS23",
            combine=Combine.MEAN,
            limit=200_000,
            live=False,
        ),
    ] = None
    si2k: Annotated[
        int | None,
        Measure("SPECint2000 of one core", unit="si2k", combine=Combine.MEAN, limit=50_000, live=False, averaged=False),
    ] = None

    core_time = Product("wall_time", "processors", unit="s", doc="wall time times processors")
    gpu_time = Product(
        "wall_time",
        "gpus",
        "gpu_fraction",
        unit="ms",
        doc="wall time times GPUs, shares counted as such",
        live=False,
    )
    core_hs06 = Product("wall_time", "processors", "hs06", unit="mHS06.s", doc="core time times HEP-SPEC06", live=False)
    core_hs23 = Product("wall_time", "processors", "hs23", unit="mHS23.s", doc="core time times HEPscore23", live=False)
    core_si2k = Product("wall_time", "processors", "si2k", unit="si2k.s", doc="core time times SPECint2000", live=False)

    efficiency = Ratio("cpu_time", "core_time", unit="1", doc="processor time used per core time allocated")
    occupancy = Ratio("busy_time", "core_time", unit="1", doc="core time with a job per core time allocated")
    power = Ratio("energy", "core_time", unit="W", doc="energy per core time")

    # By how long they last: wall time is nought where nobody told it.
    wall_time_bound = Bound("wall_time", lasting=True, factor=TOGETHER, slack=RESTARTED)
    cpu_time_bound = Bound("cpu_time", "processors", lasting=True, factor=OVERCOMMITTED, slack=RESTARTED)
    busy_time_bound = Bound("busy_time", "processors", lasting=True, factor=OVERCOMMITTED, slack=RESTARTED)
