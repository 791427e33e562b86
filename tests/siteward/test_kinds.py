"""Our own kinds: complete beside the systems they replace, safe to sum, cheap to send, and fit for buckets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest
from examples import JOB, NOON, NOW, job

from siteward.envelope import MSGPACK, open_envelope, seal
from siteward.kinds import load_kinds
from siteward.records import Combine, DeclarationError, Dimension, Kind, Measure, Refused, Shape, Type, kind_of
from siteward.records.doors import row_from_mapping
from siteward.records.schema import json_schema

KINDS: Final = load_kinds()
MOST_IDENTITY: Final = 13
"""Fields of an identity that the recipe of docs/reference/envelope.md has room for."""
LONGEST_BUCKETED: Final = 256
SINGLE: Final = frozenset(
    {"node", "reference", "local_job_id", "job_id", "pilot", "reason", "vm", "path", "file", "url", "local_user"}
)
DIRAC: Final[dict[str, dict[str, str]]] = {
    "job": {
        "User": "user",
        "UserGroup": "group",
        "JobGroup": "job_group",
        "JobType": "job_type",
        "JobClass": "job_class",
        "ProcessingType": "processing_type",
        "Site": "site",
        "FinalMajorStatus": "status",
        "FinalMinorStatus": "minor_status",
        "CPUTime": "cpu_time",
        "NormCPUTime": "cpu_hs06",
        "ExecTime": "core_time",
        "InputDataSize": "input_size",
        "OutputDataSize": "output_size",
        "InputDataFiles": "input_files",
        "OutputDataFiles": "output_files",
        "DiskSpace": "disk_space",
        "InputSandBoxSize": "input_sandbox_size",
        "OutputSandBoxSize": "output_sandbox_size",
        "ProcessedEvents": "processed_events",
    },
    "pilot": {
        "User": "user",
        "UserGroup": "group",
        "Site": "site",
        "GridCE": "compute_element",
        "GridMiddleware": "middleware",
        "GridResourceBroker": "submitter",
        "GridStatus": "status",
        "Jobs": "jobs",
    },
    "pilot-submission": {
        "HostName": "host",
        "SiteDirector": "submitter",
        "Site": "site",
        "CE": "compute_element",
        "Queue": "queue",
        "Status": "state",
        "NumTotal": "pilots_total",
        "NumSucceeded": "pilots_done",
    },
    "data-operation": {
        "OperationType": "operation",
        "User": "user",
        "ExecutionSite": "execution_site",
        "Source": "source",
        "Destination": "destination",
        "Protocol": "protocol",
        "FinalStatus": "state",
        "TransferSize": "size",
        "TransferTime": "transfer_duration",
        "RegistrationTime": "registration_duration",
        "TransferOK": "files_done",
        "TransferTotal": "files_total",
        "RegistrationOK": "registrations_done",
        "RegistrationTotal": "registrations_total",
        "LFN": "file",
        "URL": "url",
        "Component": "component",
        "Hostname": "host",
        "Error": "reason",
        "Errno": "error_code",
    },
    "wms-history": {
        "Status": "status",
        "Site": "site",
        "User": "user",
        "UserGroup": "group",
        "JobGroup": "job_group",
        "MinorStatus": "minor_status",
        "ApplicationStatus": "application_status",
        "JobSplitType": "job_type",
        "Tier": "tier",
        "Type": "infrastructure",
        "Jobs": "jobs",
        "Reschedules": "reschedules",
    },
    "storage-occupancy": {
        "Site": "site",
        "Endpoint": "endpoint",
        "StorageElement": "storage",
        "Total": "total",
        "Free": "free",
        "Used": "used",
        "Guaranteed": "guaranteed",
    },
    "network": {
        "SourceIP": "source_address",
        "DestinationIP": "destination_address",
        "SourceHostName": "source_host",
        "DestinationHostName": "destination_host",
        "Source": "source",
        "Destination": "destination",
        "Jitter": "delay_variation",
        "OneWayDelay": "one_way_latency",
        "PacketLossRate": "packet_loss_rate",
    },
}
"""DIRAC's fields and ours."""
APEL_VM: Final = {
    "VMUUID": "vm",
    "SiteName": "site",
    "CloudComputeService": "compute_service",
    "MachineName": "machine_name",
    "LocalUserId": "local_user",
    "LocalGroupId": "local_group",
    "GlobalUserName": "user",
    "VOGroup": "group",
    "VORole": "role",
    "Status": "state",
    "StartTime": "started",
    "SuspendDuration": "suspend_time",
    "WallDuration": "wall_time",
    "CpuDuration": "cpu_time",
    "CpuCount": "vcpus",
    "NetworkType": "network_type",
    "NetworkInbound": "network_received",
    "NetworkOutbound": "network_sent",
    "PublicIPCount": "public_ips",
    "Memory": "memory",
    "Disk": "disk",
    "Benchmark of HEPscore23": "hs23",
    "Benchmark of hepspec": "hs06",
    "Benchmark of si2k": "si2k",
    "StorageRecordId": "storage_record",
    "ImageId": "image",
    "CloudType": "cloud_type",
    "Count": "gpus",
    "ActiveDuration": "gpu_active_time",
    "Type": "accelerator_type",
    "Model": "gpu_model",
}
STAR: Final = {
    "StorageSystem": "storage",
    "Site": "site",
    "StorageShare": "share",
    "StorageMedia": "media",
    "StorageClass": "storage_class",
    "FileCount": "files",
    "DirectoryPath": "path",
    "LocalUser": "local_user",
    "LocalGroup": "local_group",
    "UserIdentity": "user",
    "Group": "group",
    "subgroup": "subgroup",
    "role": "role",
    "ResourceCapacityUsed": "capacity_used",
    "LogicalCapacityUsed": "logical_used",
    "ResourceCapacityAllocated": "capacity_allocated",
}
SRR_SHARE: Final = {
    "storageservice.name": "storage",
    "name": "share",
    "path": "path",
    "vos": "vo",
    "timestamp": "time",
    "totalsize": "capacity_allocated",
    "usedsize": "capacity_used",
    "numberoffiles": "files",
    "accesslatency": "access_latency",
    "retentionpolicy": "retention_policy",
    "servingstate": "state",
}
SRR_CAPACITY: Final = {
    "storageservice.name": "storage",
    "online, nearline, offline": "media",
    "latestupdate": "time",
    "totalsize": "total",
    "usedsize": "used",
    "reservedsize": "reserved",
}
SRR_RULES: Final = frozenset(
    {"id", "policyrules", "accessmode", "lifetime", "assignedendpoints", "message"},
)
"""What the SRR says of a share beside: its name once more, how it may be used, where it is reached; no amounts."""
SRR_SHARES: Final = frozenset(
    {"name", "id", "policyrules", "accessmode", "accesslatency", "servingstate", "retentionpolicy", "lifetime"}
    | {"timestamp", "totalsize", "usedsize", "numberoffiles", "path", "assignedendpoints", "vos", "message"}
)
"""All that its schema, 4.2, has of a share."""


def smallest(kind: Kind) -> dict[str, Any]:
    """The fields that a record has to give."""
    values: dict[Type, Any] = {Type.STRING: "x", Type.INTEGER: 1, Type.NUMBER: 0.5, Type.BOOLEAN: True, Type.TIME: NOON}
    required = [column for column in kind.columns if column.required]
    return {column.name: (column.values or (values[column.type],))[0] for column in required}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *DIRAC.items(),
        ("cloud-vm", APEL_VM),
        ("storage-share", STAR),
        ("storage-share", SRR_SHARE),
        ("storage-occupancy", SRR_CAPACITY),
    ],
)
def test_nothing_that_others_account_is_lost(name: str, fields: dict[str, str]) -> None:
    """Every field of DIRAC's types, APEL's cloud and accelerator records, StAR and the SRR has a place in our kind."""
    kind = KINDS[name]
    known = {*kind.names, *kind.products}
    assert {theirs: ours for theirs, ours in fields.items() if ours not in known} == {}


def test_what_is_not_taken_of_a_share_is_no_amount() -> None:
    """Each field that the SRR has of a share is either in our kind, or among those named here with the reason."""
    assert {field for field in SRR_SHARE if "." not in field} == SRR_SHARES - SRR_RULES


def test_sizes_of_shares_stay_exact() -> None:
    """A petabyte-sized share of an SRR is beyond 2^53; it comes out as it went in."""
    size = 11_223_418_619_294_662
    share = smallest(KINDS["storage-share"]) | {"capacity_used": size, "capacity_allocated": size + 1}
    row = row_from_mapping(KINDS["storage-share"], share, NOW)
    parcel = open_envelope(seal(KINDS["storage-share"], [row], "test", NOW), MSGPACK, KINDS, NOW)
    assert [parcel.columns[name] for name in ("capacity_used", "capacity_allocated")] == [[size], [size + 1]]


@pytest.mark.parametrize("name", ["job", "pilot", "cloud-vm"])
def test_energy_says_how_it_is_known(name: str) -> None:
    """Measured, a share of what was measured, or modelled; nobody who says nothing is believed to have measured."""
    kind = KINDS[name]
    fields = smallest(kind) | {"energy": 7}
    assert getattr(row_from_mapping(kind, fields, NOW), "energy_method") == "unknown"  # noqa: B009  # of any kind.
    for method in ("measured", "apportioned", "modelled"):
        assert getattr(row_from_mapping(kind, fields | {"energy_method": method}, NOW), "energy_method") == method  # noqa: B009  # as above.
    with pytest.raises(Refused, match="energy_method"):
        row_from_mapping(kind, fields | {"energy_method": "guessed"}, NOW)
    role = kind.column["energy_method"].role
    assert isinstance(role, Dimension)
    assert role.bucketed, "sums can be told apart"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("job", "processing_type"),
        ("job", "minor_status"),
        ("data-operation", "execution_site"),
        ("wms-history", "application_status"),
    ],
)
def test_the_longest_texts_of_others_have_room(name: str, field: str) -> None:
    """DIRAC keeps 256 characters of these."""
    kind = KINDS[name]
    fields = smallest(kind)
    assert getattr(row_from_mapping(kind, fields | {field: "x" * 256}, NOW), field) == "x" * 256
    with pytest.raises(Refused, match=field):
        row_from_mapping(kind, fields | {field: "x" * 257}, NOW)


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_what_is_required_is_enough(kind: Kind) -> None:
    """A record with its required fields only passes every door and travels; what it leaves out costs no column."""
    row = row_from_mapping(kind, smallest(kind), NOW)
    body = seal(kind, [row], "test", NOW)
    parcel = open_envelope(body, MSGPACK, KINDS, NOW)
    assert [parcel.columns[name][0] for name in kind.names] == [getattr(row, name) for name in kind.names]
    assert len(body) < 60 + 40 * len(smallest(kind))


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.record], ids=str)
def test_a_record_made_in_python_is_the_one_that_json_brings(kind: Kind) -> None:
    """A class gives its fields in its own order, a door in the kind's; the row is the same."""
    assert kind.record is not None
    fields = smallest(kind) | {"simulated": True, "revision": 3}
    assert kind.row_of(kind.record(**fields), NOW) == row_from_mapping(kind, fields, NOW)


def test_a_record_of_a_class_derived_from_a_kind_is_one_too() -> None:
    """Who adds a method to a kind's class still emits its records."""

    class Mine(type(job())):  # type: ignore[misc]  # made from the class itself, whatever it is called.
        """A job with more to say."""

    fields = smallest(JOB)
    assert JOB.row_of(Mine(**fields), NOW) == row_from_mapping(JOB, fields, NOW)
    with pytest.raises(Refused):
        JOB.row_of(KINDS["host"].record(**smallest(KINDS["host"])), NOW)  # type: ignore[misc]  # every own kind has one.


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_buckets_stay_fewer_than_records(kind: Kind) -> None:
    """What names one record, file, machine or account, and every long text, enters no bucket of the ledger."""
    for column in kind.dimensions:
        assert isinstance(column.role, Dimension)
        if column.name in SINGLE or column.role.max_length > LONGEST_BUCKETED:
            assert not column.role.bucketed, column.name


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_identities_fit_the_published_recipe(kind: Kind) -> None:
    """Ids can be computed in any language, by a recipe that has room for thirteen fields."""
    assert len(kind.identity) <= MOST_IDENTITY


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_what_adds_up_is_whole(kind: Kind) -> None:
    """What is summed over records is an integer; fractions of snapshots and measurements are averaged."""
    for column in kind.measures:
        assert isinstance(column.role, Measure)
        if kind.shape is not Shape.SNAPSHOT and column.role.combine is Combine.SUM:
            assert column.type is Type.INTEGER
            assert column.role.limit is not None, f"{column.name} has no limit"


def test_a_score_says_how_it_is_written() -> None:
    """15.3 is refused, and the field's doc, which the schema gives too, says what to write instead."""
    with pytest.raises(Refused, match=r"hs23.*expected int"):
        row_from_mapping(JOB, smallest(JOB) | {"hs23": 15.3}, NOW)
    for name in ("job", "pilot", "cloud-vm"):
        assert "15300 for 15.3" in json_schema(KINDS[name])["properties"]["hs23"]["description"]


def test_the_largest_job_that_is_booked_fits_its_products() -> None:
    """Every product of values at their limits is a 64-bit integer, for any one job that a person need not look at."""
    for name, product in JOB.products.items():
        value = 1
        for factor in product.factors:
            role = JOB.column[factor].role
            assert isinstance(role, Measure)
            value *= min(bound for bound in (role.limit, role.maximum) if bound is not None)
        assert value < 2**63, name


def test_a_job_longer_than_its_longest_is_for_the_ledger_to_judge() -> None:
    """The doors accept it; 400 days are in the declaration, in microseconds."""
    assert JOB.longest == KINDS["pilot"].longest == timedelta(days=400) // timedelta(microseconds=1)
    long = job(start=NOON - timedelta(days=500), wall_time=500 * 86_400)
    assert kind_of(type(long)).row_of(long, NOW)


def test_kinds_that_would_share_tables_are_refused() -> None:
    """In stores `-` and `_` are one: whoever declares the second hears of the first."""
    table = {"doc": "A beam.", "shape": "event"}
    with pytest.raises(DeclarationError, match="kinds 'beam-on' and 'beam_on' would share their tables; give one of"):
        load_kinds({"beam-on": table, "beam_on": table})
    with pytest.raises(DeclarationError, match="kinds 'cloud-vm' and 'cloud_vm' would share"):
        load_kinds({"cloud_vm": table})
