"""The kind `cloud-vm`: one virtual machine at one instant, with its counters since it was started."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from siteward.kinds.job import ENERGY_METHOD, OVERCOMMITTED, RESTARTED, UNTIMED, EnergyMethod
from siteward.records import Bound, Combine, Dimension, Measure, Product, Ratio, Snapshot

_SECONDS: Final = 20 * 366 * 86_400


class CloudVm(Snapshot, kind="cloud-vm", identity=("vm", "time"), since="started", retention=timedelta(days=400)):
    """One virtual machine of a cloud at one instant, with what it has used since it was started.

    Counters are cumulative, as in APEL's cloud records, and are never added up over time. What a machine used in a
    month is the difference between its last record before the month's end and its last one before the month's
    beginning; one that had no record then counts from zero. So a record that is missing in between costs nothing, and
    one that comes twice counts once. Core time is that difference of wall time, times the later record's virtual
    processors; work is that, times its score. The ledger books these differences. A completed machine's last record
    has the time at which it ended.
    """

    started: datetime
    site: Annotated[str, Dimension("site or provider that runs it")]
    compute_service: Annotated[str, Dimension("service of the site that runs it")] = ""
    cloud_type: Annotated[str, Dimension("software of the cloud, such as openstack")] = ""
    vm: Annotated[str, Dimension("its unique id (UUID)", bucketed=False)]
    machine_name: Annotated[str, Dimension("its name at the site", bucketed=False)] = ""
    image: Annotated[str, Dimension("id of the image it was made from", bucketed=False)] = ""
    flavour: Annotated[str, Dimension("size it was ordered in, in the cloud's words")] = ""
    user: Annotated[str, Dimension("who ordered it", personal=True)] = ""
    local_user: Annotated[str, Dimension("account at the site that ordered it", personal=True, bucketed=False)] = ""
    group: Annotated[str, Dimension("user's group within the VO")] = ""
    role: Annotated[str, Dimension("user's role within the group", live=False)] = ""
    local_group: Annotated[str, Dimension("project or tenant at the site", live=False)] = ""
    state: Annotated[Literal["started", "suspended", "completed"], Dimension("what it was doing")]
    network_type: Annotated[str, Dimension("how it is connected, such as public or private", live=False)] = ""
    storage_record: Annotated[str, Dimension("id of the storage record that belongs to it", bucketed=False)] = ""
    accelerator_type: Annotated[str, Dimension("gpu, fpga or other; empty where it has none", live=False)] = ""
    gpu_model: Annotated[str, Dimension("model of the accelerators; empty where it has none", live=False)] = ""
    energy_method: Annotated[EnergyMethod, Dimension(ENERGY_METHOD, live=False)] = "unknown"
    wall_time: Annotated[
        int, Measure("elapsed while running, since it was started", unit="s", limit=_SECONDS, live=False, counter=True)
    ] = 0
    cpu_time: Annotated[
        int | None,
        Measure(
            "processor time used since it was started", unit="s", limit=_SECONDS * 10_000, live=False, counter=True
        ),
    ] = None
    suspend_time: Annotated[
        int,
        Measure("elapsed while suspended, since it was started", unit="s", limit=_SECONDS, live=False, counter=True),
    ] = 0
    vcpus: Annotated[
        int, Measure("virtual processors in thousandths: 1500 for one and a half", unit="m1", limit=10_000_000)
    ] = 1000
    memory: Annotated[int | None, Measure("memory allocated", unit="B", limit=2**50)] = None
    disk: Annotated[int | None, Measure("disk allocated", unit="B", limit=2**50)] = None
    network_received: Annotated[
        int | None, Measure("received since it was started", unit="B", limit=2**60, live=False, counter=True)
    ] = None
    network_sent: Annotated[
        int | None, Measure("sent since it was started", unit="B", limit=2**60, live=False, counter=True)
    ] = None
    public_ips: Annotated[int | None, Measure("public IP addresses in use", unit="1", limit=100_000, live=False)] = None
    gpus: Annotated[int, Measure("accelerators, whole or shared", unit="1", limit=10_000)] = 0
    gpu_fraction: Annotated[
        int,
        Measure(
            "share of each accelerator in thousandths: 1000 for whole ones, 143 for a seventh",
            unit="m1",
            combine=Combine.MEAN,
            maximum=1000,
        ),
    ] = 1000
    gpu_active_time: Annotated[
        int | None,
        Measure(
            "time accelerators computed since it was started",
            unit="s",
            limit=_SECONDS * 10_000,
            live=False,
            counter=True,
        ),
    ] = None
    energy: Annotated[
        int | None,
        Measure(
            "energy used since it was started; by energy_method, since sums mix them",
            unit="J",
            limit=10**14,
            live=False,
            counter=True,
        ),
    ] = None
    hs06: Annotated[
        int | None,
        Measure(
            "HEP-SPEC06 of one virtual processor, in thousandths: 11400 for 11.4",
            unit="mHS06",
            combine=Combine.MEAN,
            limit=200_000,
        ),
    ] = None
    hs23: Annotated[
        int | None,
        Measure(
            "HEPscore23 of one virtual processor, in thousandths: 15300 for 15.3",
            unit="mHS23",
            combine=Combine.MEAN,
            limit=200_000,
        ),
    ] = None
    si2k: Annotated[
        int | None,
        Measure("SPECint2000 of one virtual processor", unit="si2k", combine=Combine.MEAN, limit=50_000, live=False),
    ] = None
    core_time = Product("wall_time", "vcpus", unit="ms", doc="wall time times virtual processors", live=False)
    gpu_time = Product(
        "wall_time", "gpus", "gpu_fraction", unit="ms", doc="wall time times accelerators, shares as such", live=False
    )
    core_hs06 = Product("wall_time", "vcpus", "hs06", unit="uHS06.s", doc="core time times HEP-SPEC06", live=False)
    core_hs23 = Product("wall_time", "vcpus", "hs23", unit="uHS23.s", doc="core time times HEPscore23", live=False)
    core_si2k = Product("wall_time", "vcpus", "si2k", unit="msi2k.s", doc="core time times SPECint2000", live=False)

    power = Ratio("energy", "core_time", unit="W", times=1000, doc="energy per core time")

    wall_time_bound = Bound("wall_time", lasting=True, slack=RESTARTED)
    suspend_time_bound = Bound("suspend_time", lasting=True, slack=RESTARTED)
    # Virtual processors are in thousandths.
    cpu_time_bound = Bound("cpu_time", "wall_time", "vcpus", factor=OVERCOMMITTED / 1000, slack=UNTIMED)
