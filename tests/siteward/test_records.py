"""What a record kind promises: strict validation with reasons, stable identity, two equal ways to declare."""

from __future__ import annotations

import re
import tomllib
import types
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from examples import JOB, NOON, NOW, job
from hypothesis import given
from hypothesis import strategies as st

from siteward.kinds.cloud_vm import CloudVm
from siteward.kinds.downtime import Downtime
from siteward.kinds.host import Host
from siteward.kinds.record_count import RecordCount
from siteward.records import (
    Bound,
    DeclarationError,
    Dimension,
    Event,
    Former,
    Interval,
    Measure,
    Product,
    Ratio,
    Refused,
    Snapshot,
    Type,
    id_bytes,
    id_text,
    kind_from_table,
    kind_of,
    microseconds,
    moment,
)
from siteward.records.doors import row_from_json, row_from_mapping
from siteward.records.schema import json_schema

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"vo": ""}, "vo", "length >= 1"),
        ({"site": "x" * 256}, "site", "length <= 255"),
        ({"site": 7}, "site", "expected str, got int"),
        ({"site": None}, "site", "expected str, got null"),
        ({"site": "a\0b"}, "site", "NUL"),
        ({"user": "\ud800"}, "user", "not valid Unicode"),
        ({"state": "\ud800"}, "state", "not valid Unicode"),
        ({"cpu_time": "\ud800"}, "cpu_time", "not valid Unicode"),
        ({"state": "finished"}, "state", "expected one of completed, failed"),
        ({"wall_time": -1}, "wall_time", ">= 0"),
        ({"wall_time": 2**63}, "wall_time", "<= 9223372036854775807"),
        ({"wall_time": 2**80}, "wall_time", "<= 9223372036854775807"),
        ({"wall_time": 1.0}, "wall_time", "expected int, got float"),
        ({"wall_time": True}, "wall_time", "expected int, got bool"),
        ({"wall_time": None}, "wall_time", "got null"),
        ({"memory": "1 GB"}, "memory", "got str"),
        ({"end": NOON - 2 * HOUR}, "end", "ends before it starts"),
        ({"start": datetime(1970, 1, 1, tzinfo=UTC)}, "start", "outside 1990 to 2100"),
        ({"end": datetime(9999, 12, 31, tzinfo=UTC)}, "end", "outside 1990 to 2100"),
        ({"end": NOON + timedelta(days=9)}, "end", "in the future"),
        ({"end": NOON.replace(tzinfo=None)}, "end", "naive"),
        ({"end": "2026-03-02"}, "end", "expected a datetime"),
        ({"revision": -1}, "revision", ">= 0"),
    ],
)
def test_a_bad_job_is_refused_with_field_and_reason(changes: dict[str, Any], field: str, reason: str) -> None:
    """Whatever is wrong with a record, the refusal names the field, the value and why."""
    with pytest.raises(Refused, match=field) as caught:
        JOB.row_of(job(**changes), NOW)
    assert caught.value.field == field
    assert reason in caught.value.reason
    assert caught.value.kind == "job"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    """NaN and infinities would poison every sum they enter."""
    fields = _host_fields() | {"load": value}
    with pytest.raises(Refused, match="load"):
        row_from_mapping(kind_of(Host), fields, NOW)


def test_integers_beyond_doubles_stay_exact() -> None:
    """Storage sizes pass 2^53; not a unit may be lost on the way through a row."""
    row = JOB.row_of(job(memory=2**53 + 1), NOW)
    assert row.memory == 2**53 + 1  # type: ignore[attr-defined]


@given(st.integers(min_value=631152000_000000, max_value=4102444800_000000))
def test_microseconds_round_trip(time: int) -> None:
    """Every instant that records may carry survives the way to microseconds and back exactly."""
    assert microseconds(moment(time)) == time


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    """Times are instants: 13:00+01:00 is 12:00Z, and gives the same record id."""
    here = NOON.astimezone(timezone(HOUR))
    one, two = JOB.row_of(job(end=NOON), NOW), JOB.row_of(job(end=here), NOW)
    assert JOB.id_of(one) == JOB.id_of(two)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_ids_differ_when_identity_does(one: str, two: str) -> None:
    """Identity fields are hashed with their boundaries: ("ab", "c") is not ("a", "bc")."""
    first, second = (
        JOB.id_of(JOB.row_of(job(site=a, local_job_id=b, submit_host=""), NOW))
        for a, b in ((_clean(one + two), "c"), (_clean(one), _clean(two) + "c"))
    )
    assert (first == second) == ((_clean(one + two), "c") == (_clean(one), _clean(two) + "c"))


def test_an_id_begins_with_the_time_and_ignores_what_is_not_identity() -> None:
    """Ids sort by time; measures and revision do not move them, the VO does."""
    row = JOB.row_of(job(), NOW)
    identifier = JOB.id_of(row)
    assert int.from_bytes(identifier[:6], "big") == microseconds(NOON) // 1000
    assert JOB.id_of(JOB.row_of(job(wall_time=1, revision=3), NOW)) == identifier
    assert JOB.id_of(JOB.row_of(job(vo="other"), NOW)) != identifier
    assert id_bytes(id_text(identifier)) == identifier


@pytest.mark.parametrize("field", ["site", "submit_host", "cluster", "local_job_id"])
def test_a_job_is_the_same_only_in_the_same_place(field: str) -> None:
    """Two clusters of one site may finish the same number in the same second; they are two jobs."""
    one, two = ({field: value} for value in ("one", "two"))
    assert JOB.id_of(JOB.row_of(job(0, **one), NOW)) != JOB.id_of(JOB.row_of(job(0, **two), NOW))


def test_the_id_of_a_known_record_never_changes() -> None:
    """Ids are stored for years: the recipe of docs/reference/envelope.md is frozen by this vector."""
    assert id_text(JOB.id_of(JOB.row_of(job(), NOW))) == "019cae6b6600c4ce24162b55114e2ae7"


@pytest.mark.parametrize("text", ["", "12", "g" * 32, "é" * 16])
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    """Ids come in through URLs."""
    with pytest.raises(ValueError, match="hexadecimal"):
        id_bytes(text)


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        (b"", "", "not JSON"),
        (b"[]", "", "expected a JSON object"),
        (b'{"vo":"a","vo":"b"}', "vo", "given twice"),
        (b'{"vo":NaN}', "", "NaN is not a JSON number"),
        (b'{"wall_time":-Infinity}', "", "not a JSON number"),
        (b'{"sitee":"x"}', "sitee", "did you mean 'site'"),
        (b"\xff\xfe", "", "not JSON"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b'{"vo":"a"}', "start", "missing"),
    ],
)
def test_json_that_is_no_record_is_refused(text: bytes, field: str, reason: str) -> None:
    """The JSON door refuses what JSON parsers let through: keys given twice, NaN, unknown keys."""
    with pytest.raises(Refused) as caught:
        row_from_json(JOB, text, NOW)
    assert caught.value.field == field
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("wall_time", "9223372036854775808", "<= 9223372036854775807"),
        ("wall_time", "1e2", "got float"),
        ("wall_time", "1e400", "got float"),
        ("wall_time", '"5"', "got str"),
        ("end", '"2026-03-02T12:00:00"', "no time zone"),
        ("end", '"yesterday"', "RFC 3339"),
        ("end", "1772452800", "RFC 3339"),
        ("site", '"\\ud800"', "not valid Unicode"),
        ("state", '"\\ud800"', "not valid Unicode"),
        ("wall_time", '"\\udfff"', "not valid Unicode"),
        ("site", '{"a":1}', "expected str"),
    ],
)
def test_json_values_are_checked_like_python_ones(field: str, value: str, reason: str) -> None:
    """No value gets in through JSON that Python could not have emitted."""
    with pytest.raises(Refused) as caught:
        row_from_json(JOB, _job_json(**{field: value}), NOW)
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_json_and_python_give_the_same_row() -> None:
    """One record is one record, whichever door it came through."""
    assert row_from_json(JOB, _job_json(), NOW) == JOB.row_of(
        job(start=NOON - HOUR, end=NOON, submit_host="", user="", state="unknown", cpu_time=None), NOW
    )


TABLE = tomllib.loads(
    """
    doc = "Beam time at an instrument."
    shape = "interval"
    identity = ["instrument", "end"]
    retention_days = 30
    longest_days = 3
    tiers = [{ age_days = 2, width_minutes = 15 }, { width_minutes = 60 }]
    [dimensions.instrument]
    doc = "which instrument"
    [dimensions.operator]
    doc = "who ran it"
    personal = true
    optional = true
    [measures.shots]
    doc = "shots taken"
    unit = "1"
    limit = 100
    [measures.dose]
    doc = "energy deposited"
    unit = "J"
    type = "number"
    optional = true
    [products.shot_dose]
    factors = ["shots", "shots"]
    unit = "1"
    [ratios.mean_shots]
    numerator = "shot_dose"
    denominator = "shots"
    unit = "1"
    [[bounds]]
    measure = "dose"
    of = ["shots"]
    factor = 2.5
    slack = 10
    lasting = true
    """
)


MEAN_SHOTS = TABLE["ratios"]["mean_shots"]
BOUND = TABLE["bounds"][0]
FORMER: dict[str, Any] = {"doc": "d", "unit": "1", "former": {"name": "y", "times": 10}}


def tiers(*pairs: tuple[int | None, int]) -> list[dict[str, int]]:
    given = ({"age_days": age, "width_minutes": width} for age, width in pairs)
    return [{key: value for key, value in tier.items() if value is not None} for tier in given]


def test_a_kind_from_toml_equals_the_same_kind_from_a_class() -> None:
    """Communities that install no code lose nothing."""

    class Beam(
        Interval,
        kind="beam",
        identity=("instrument", "end"),
        retention=timedelta(days=30),
        longest=timedelta(days=3),
        tiers=((timedelta(days=2), timedelta(minutes=15)), (None, HOUR)),
    ):
        """Beam time at an instrument."""

        instrument: Annotated[str, Dimension("which instrument")]
        operator: Annotated[str, Dimension("who ran it", personal=True)] = ""
        shots: Annotated[int, Measure("shots taken", unit="1", limit=100)]
        dose: Annotated[float | None, Measure("energy deposited", unit="J")] = None
        shot_dose = Product("shots", "shots", unit="1")
        mean_shots = Ratio("shot_dose", "shots", unit="1")
        dose_bound = Bound("dose", "shots", factor=2.5, slack=10, lasting=True)

    by_class, by_table = kind_of(Beam), kind_from_table("beam", TABLE)
    assert by_class.columns == by_table.columns
    assert (by_class.identity, by_class.retention, by_class.doc) == (
        by_table.identity,
        by_table.retention,
        by_table.doc,
    )
    assert (by_class.longest, by_class.tiers) == (by_table.longest, by_table.tiers)
    assert json_schema(by_class) == json_schema(by_table)
    fields = {"vo": "x", "start": NOON, "end": NOON + HOUR, "instrument": "i", "shots": 3}
    record = Beam(vo="x", start=NOON, end=NOON + HOUR, instrument="i", shots=3)
    assert by_class.id_of(by_class.row_of(record, NOW)) == by_table.id_of(row_from_mapping(by_table, fields, NOW))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures": {"x": {"doc": "d", "unit": "kB"}}}, "unknown unit 'kB'"),
        ({"identity": ["colour"]}, "identity field 'colour' is not a field"),
        ({"identity": ["revision"]}, "cannot be an identity field"),
        ({"products": {"p": {"factors": ["dose", "shots"], "unit": "1"}}}, "not an integer measure"),
        ({"dimensions": {"end": {"doc": "d"}}}, "already"),
        ({"dimensions": {"Site": {"doc": "d"}}}, "lower-case"),
        (
            {"dimensions": {"uid": {"doc": "d", "type": "integer", "personal": True}}},
            "is personal, and so must be a text",
        ),
        ({"shap": "event"}, "shap"),
        ({"shape": "cloud"}, "cloud"),
        ({"measures": {"x": {"doc": "d", "unit": "1", "maximum": 5, "limit": 6}}}, "limit 6, above its maximum 5"),
        ({"measures": {"x": {"doc": "d", "unit": "1", "minimum": 5, "limit": 4}}}, "limit 4, below its minimum 5"),
        ({"measures": {"x": FORMER | {"type": "number"}}}, "'x' has the former field 'y', and so must be an integer"),
        ({"measures": {"y": FORMER}}, "'y' has the former field 'y', which is itself"),
        ({"measures": {"x": FORMER | {"former": {"name": "y", "times": 0}}}}, "'y', and 0 of its unit .* more than 0"),
        (
            {"measures": {"x": FORMER | {"former": {"name": "y", "times": -1}}}},
            "'y', and -1 of its unit .* more than 0",
        ),
        ({"shape": "event", "identity": ["time"]}, "'longest' is for intervals and counters"),
        ({"longest_days": 0}, "'longest' must be longer than nothing"),
        ({"ratios": {"r": MEAN_SHOTS | {"numerator": "dose"}}}, "'dose', which is neither a product"),
        ({"ratios": {"r": MEAN_SHOTS | {"denominator": "revision"}}}, "'revision', which is neither a product"),
        ({"ratios": {"r": MEAN_SHOTS | {"denominator": "nothing"}}}, "'nothing', which is neither a product"),
        ({"ratios": {"r": MEAN_SHOTS | {"unit": "%"}}}, "unknown unit '%'"),
        ({"ratios": {"r": MEAN_SHOTS | {"times": 0}}}, "multiplied by 0, which must be more than 0"),
        ({"ratios": {"shots": MEAN_SHOTS}}, "name of a field or product"),
        ({"ratios": {"shot_dose": MEAN_SHOTS}}, "name of a field or product"),
        ({"bounds": [BOUND | {"measure": "instrument"}]}, "bound of 'instrument' names 'instrument', which is not a"),
        ({"bounds": [BOUND | {"of": ["shot_dose"]}]}, "bound of 'dose' names 'shot_dose', which is not a measure"),
        ({"bounds": [{"measure": "dose"}]}, "names nothing that it depends on"),
        ({"bounds": [BOUND | {"factor": 0}]}, "needs a factor above 0"),
        ({"bounds": [BOUND | {"slack": -1}]}, "a slack that is not below"),
        (
            {"shape": "event", "identity": [], "longest_days": None, "bounds": [BOUND]},
            "and no event does",
        ),
        ({"tiers": []}, "the last tier"),
        ({"tiers": [{"age_days": 1, "width_minutes": 60}]}, "the last tier"),
        ({"tiers": [{"width_minutes": 15}, {"width_minutes": 60}]}, "the last tier"),
        ({"tiers": tiers((3, 15), (2, 30), (None, 60))}, "ages must be whole seconds and ascend"),
        ({"tiers": tiers((0, 15), (None, 60))}, "ages must be whole seconds and ascend"),
        ({"tiers": tiers((1, 60), (None, 15))}, "widths must ascend"),
        ({"tiers": tiers((1, 60), (None, 60))}, "widths must ascend"),
        ({"tiers": tiers((1, 40), (None, 60))}, "each dividing the next"),
        ({"tiers": tiers((1, 60), (None, 7 * 1440))}, "divide a day"),
        ({"tiers": tiers((1, 60), (2, 150), (None, 1440))}, "divide a day"),
        ({"tiers": tiers((1, 0), (None, 60))}, "divide a day"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    """A mistake in a declaration is found when it is made, not when the first record comes."""
    with pytest.raises(DeclarationError, match=message):
        kind_from_table("beam", TABLE | change)


@pytest.mark.parametrize(
    ("hint", "measure", "message"),
    [
        (float, Measure("d", unit="s", former=Former("delay")), "former field 'delay', and so must be an integer"),
        (float | None, Measure("d", unit="s", former=Former("delay")), "'delay', and so must be an integer"),
        (int, Measure("d", unit="s", former=Former("took")), "former field 'took', which is itself"),
        (int, Measure("d", unit="s", former=Former("delay", 0)), "'delay', and 0 of its unit make one"),
        (int, Measure("d", unit="s", counter=True, former=Former("delay")), "'delay', and cannot be a counter"),
    ],
)
def test_a_measure_that_cannot_take_another_ones_place_is_refused(hint: Any, measure: Measure, message: str) -> None:
    """What it would be filled with is not what records of before said."""
    fields = {"__annotations__": {"took": Annotated[hint, measure]}, "__module__": __name__, "__doc__": "A ping."}
    cls = types.new_class("Ping", (Snapshot,), {"kind": "ping"}, lambda body: body.update(fields))
    with pytest.raises(DeclarationError, match=f"kind 'ping': .*measure 'took' has the .*{message}"):
        kind_of(cls)


def test_a_limit_is_no_bound_at_the_door() -> None:
    """`maximum` refuses a record; `limit` is for the ledger, and every door accepts what lies above it."""
    fields = {"vo": "x", "start": NOON, "end": NOON + 90 * HOUR, "instrument": "i", "shots": 101}
    kind = kind_from_table("beam", TABLE)
    assert row_from_mapping(kind, fields, NOW + 10**12).shots == 101  # type: ignore[attr-defined]
    bounded = TABLE | {"measures": TABLE["measures"] | {"shots": {"doc": "d", "unit": "1", "maximum": 100}}}
    with pytest.raises(Refused, match="shots"):
        row_from_mapping(kind_from_table("beam", bounded), fields, NOW + 10**12)


def test_what_the_ledger_reads_of_a_kind() -> None:
    """Microseconds of the longest interval, seconds of the tiers, the measure's limit, and ratios of sums."""
    kind = kind_from_table("beam", TABLE)
    assert kind.longest == 3 * 86_400_000_000
    assert kind.tiers == ((2 * 86_400, 900), (None, 3600))
    shots = kind.column["shots"].role
    assert isinstance(shots, Measure)
    assert shots.limit == 100
    ratio = kind.ratios["mean_shots"]
    assert (ratio.numerator, ratio.denominator, ratio.unit) == ("shot_dose", "shots", "1")
    assert ratio.doc == "shot dose per shots"


def test_a_kind_that_says_nothing_of_accounting_has_defaults() -> None:
    """Buckets by the hour for eight days, then by the day; no value too large, what lasts at most twenty years."""
    kind = kind_of(Host)
    assert (kind.longest, kind.tiers, kind.ratios) == (None, ((8 * 86_400, 3600), (None, 86_400)), {})
    lasting = {key: value for key, value in TABLE.items() if key != "longest_days"}
    assert kind_from_table("beam", lasting).longest == kind_of(CloudVm).longest == 7320 * 86_400_000_000


def test_a_kind_says_whether_it_is_booked() -> None:
    """By default it is; hosts and downtimes are not, and a TOML table may say the same."""
    assert JOB.booked
    assert not kind_of(Host).booked
    assert not kind_of(Downtime).booked
    assert kind_from_table("beam", TABLE).booked
    assert not kind_from_table("beam", TABLE | {"booked": False}).booked


def test_a_kind_says_whether_its_records_leave_the_ledger() -> None:
    """By default they do; those by which others are counted stay, and a TOML table may say the same."""
    assert JOB.archived
    assert not kind_of(RecordCount).archived
    assert not kind_from_table("beam", TABLE | {"archived": False}).archived


def test_a_kind_says_who_else_sends_it() -> None:
    """By default only reporters do; operators send downtimes, and no other permission lets anybody send anything."""
    assert (JOB.sent_by, kind_of(Downtime).sent_by) == ("", "operate")
    assert kind_from_table("beam", TABLE | {"sent_by": "operate"}).sent_by == "operate"
    with pytest.raises(DeclarationError, match="'sent_by' is 'read'; it may be operate"):
        kind_from_table("beam", TABLE | {"sent_by": "read"})


def test_an_undeclared_class_option_is_refused() -> None:
    """A misspelt option must not be taken for a default."""
    options = {"kind": "wrong", "identiy": ("time",)}
    with pytest.raises((DeclarationError, TypeError), match="identiy"):
        kind_of(types.new_class("Wrong", (Event,), options))


def test_a_downtime_keeps_its_id_when_its_end_moves() -> None:
    """Records whose end may change are filed under a time that cannot."""
    kind = kind_of(Downtime)

    def downtime(**changes: Any) -> Downtime:
        fields: dict[str, Any] = {
            "vo": "all",
            "announced": NOON,
            "start": NOON + HOUR,
            "end": NOON + 2 * HOUR,
            "source": "gocdb",
            "reference": "1",
            "site": "S",
            "severity": "outage",
            "classification": "scheduled",
        }
        return Downtime(**(fields | changes))

    first = kind.row_of(downtime(), NOW)
    moved = kind.row_of(downtime(end=NOON + 30 * HOUR, revision=1), NOW)
    assert kind.id_of(first) == kind.id_of(moved)


def test_every_column_says_what_it_is() -> None:
    """Stores, pages and the manual are derived from columns alone."""
    for column in JOB.columns:
        assert column.doc
        assert column.type in Type
    assert JOB.names[:3] == ("vo", "start", "end")
    assert [column.name for column in JOB.dimensions if column.personal] == ["user", "local_user"]


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isalnum() and character.isascii()) or "x"


def _host_fields() -> dict[str, Any]:
    counts = ("processors", "memory_total", "memory_used", "disk_total", "disk_used")
    fields: dict[str, Any] = {"vo": "v", "time": NOON, "producer": "p", "site": "s", "host": "h", "cpu_used": 0.5}
    return fields | dict.fromkeys(counts, 1) | {"load": 1.0}


def _job_json(**changes: str) -> bytes:
    fields = {
        "vo": '"example"',
        "site": '"SITE-0"',
        "local_job_id": '"0"',
        "start": '"2026-03-02T11:00:00Z"',
        "end": '"2026-03-02T13:00:00+01:00"',
        "wall_time": "3600",
        "processors": "1",
    } | changes
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}").encode()


METER = """
doc = "What a meter has counted."
shape = "snapshot"
since = "installed"
identity = ["meter", "time"]

[dimensions.meter]
doc = "which"
bucketed = false

[dimensions.site]
doc = "where"

[measures.energy]
doc = "used since it was installed"
unit = "J"
counter = true

[measures.price]
doc = "of a joule, in thousandths of a cent"
unit = "m1"

[products.cost]
factors = ["energy", "price"]
unit = "m1"
"""


def test_a_kind_with_counters_by_class_and_by_table() -> None:
    """Both say from when they count, and what tells one from another: the identity without the time."""

    class Meter(Snapshot, kind="meter", since="installed", identity=("meter", "time")):
        """What a meter has counted."""

        installed: datetime
        meter: Annotated[str, Dimension("which", bucketed=False)]
        site: Annotated[str, Dimension("where")]
        energy: Annotated[int, Measure("used since it was installed", unit="J", counter=True)]
        price: Annotated[int, Measure("of a joule, in thousandths of a cent", unit="m1")]
        cost = Product("energy", "price", unit="m1")

    by_class, by_table = kind_of(Meter), kind_from_table("meter", tomllib.loads(METER))
    for kind in (by_class, by_table):
        assert (kind.since, kind.counters, kind.counted_by) == ("installed", ("energy",), ("meter",))
        assert (kind.times, kind.of_instants) == (("time", "installed"), False)
    assert json_schema(by_class) == json_schema(by_table)
    schema = json_schema(by_table)
    assert (schema["x-since"], schema["properties"]["energy"]["x-counter"]) == ("installed", True)
    assert "x-counter" not in schema["properties"]["price"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('since = "installed"', "", "counters energy need the option 'since'"),
        ("counter = true", "", "option 'since' is 'installed', but no measure is a counter"),
        ('shape = "snapshot"', 'shape = "event"', "counters are for snapshots"),
        ('["meter", "time"]', '["meter"]', "needs the identity of what counts, and 'time'"),
        ('["meter", "time"]', '["time"]', "needs the identity of what counts, and 'time'"),
        (
            "counter = true",
            'counter = true\ntype = "number"',
            "'energy' must be an integer measure that combines by its sum",
        ),
        ("counter = true", 'counter = true\nformer = { name = "power" }', "'power', and cannot be a counter"),
        ('factors = ["energy", "price"]', 'factors = ["price", "price"]', "must have exactly one of them"),
        ('since = "installed"', 'since = "site"', "field 'site' is there already"),
    ],
)
def test_counters_that_contradict_themselves_are_refused(old: str, new: str, message: str) -> None:
    """The error names the kind and what to change."""
    assert METER.count(old) == 1
    with pytest.raises(DeclarationError, match=f"kind 'meter'.*{re.escape(message)}"):
        kind_from_table("meter", tomllib.loads(METER.replace(old, new)))
