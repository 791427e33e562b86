"""JSON Schema of kinds: valid by its own standard, and of one mind with the JSON door."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from examples import JOB, NOW

from siteward.kinds import load_kinds
from siteward.records import Kind, Refused, kind_from_table
from siteward.records.doors import row_from_json
from siteward.records.schema import json_schema

GOOD: dict[str, Any] = {
    "vo": "example",
    "site": "SITE-A",
    "local_job_id": "1",
    "start": "2026-03-02T10:00:00Z",
    "end": "2026-03-02T11:00:00+00:00",
    "wall_time": 3600,
    "state": "completed",
    "exit_status": 0,
    "memory": None,
}


def validator(kind: Kind) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json_schema(kind), validate_formats=True)


@pytest.mark.parametrize("kind", load_kinds().values(), ids=str)
def test_schemas_are_schemas(kind: Kind) -> None:
    """The schema of every kind is valid by the standard it names."""
    schema = json_schema(kind)
    jsonschema_rs.meta.validate(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) == set(kind.names)


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({}, True),
        ({"state": ""}, True),
        ({"user": ""}, True),
        ({"processors": 2**63 - 1}, True),
        ({"processors": 2**63}, False),
        ({"processors": -1}, False),
        ({"processors": "1"}, False),
        ({"processors": 1.5}, False),
        ({"wall_time": None}, False),
        ({"site": ""}, False),
        ({"site": "x" * 256}, False),
        ({"site": "a\0b"}, False),
        ({"state": "done"}, False),
        ({"simulated": "no"}, False),
        ({"start": "2026-03-02T10:00:00"}, False),
        ({"start": "yesterday"}, False),
        ({"colour": "red"}, False),
    ],
)
def test_schema_and_door_agree(change: dict[str, Any], accepted: bool) -> None:  # noqa: FBT001  # a table of cases.
    """What the schema accepts, the JSON door accepts, and the other way round."""
    record = GOOD | change
    assert validator(JOB).is_valid(record) is accepted
    try:
        row_from_json(JOB, json.dumps(record).encode(), NOW)
    except Refused:
        assert not accepted
    else:
        assert accepted


def test_schema_says_what_a_field_means() -> None:
    """Units, roles, combination rules and personal fields are in the schema."""
    schema = json_schema(JOB)
    properties = schema["properties"]
    assert properties["wall_time"]["x-unit"] == "s"
    assert properties["wall_time"]["x-combine"] == "sum"
    assert properties["user"]["x-personal"] is True
    assert properties["start"] == {
        "description": "when it began",
        "type": "string",
        "format": "date-time",
        "x-role": "time",
    }
    assert schema["required"] == ["vo", "start", "end", "site", "local_job_id", "wall_time"]
    assert schema["x-products"]["core_time"]["factors"] == ["wall_time", "processors"]
    assert schema["x-time"] == "end"


def test_schema_of_a_kind_declared_in_toml() -> None:
    """A kind of the settings file has a schema like any other, enumerations with unknown included."""
    kind = kind_from_table(
        "disk",
        {
            "doc": "A disk.",
            "shape": "snapshot",
            "dimensions": {"bay": {"doc": "where", "type": "integer", "optional": True}},
            "measures": {
                "heat": {"doc": "how hot", "unit": "K", "type": "number", "maximum": 400, "limit": 350},
                "written": {"doc": "written since the cycle before", "unit": "B"},
                "writes": {"doc": "writes since the cycle before", "unit": "1"},
            },
            "ratios": {"write_size": {"numerator": "written", "denominator": "writes", "unit": "B"}},
        },
    )
    properties = json_schema(kind)["properties"]
    assert properties["bay"]["type"] == ["integer", "null"]
    assert (properties["heat"]["maximum"], properties["heat"]["x-limit"]) == (400, 350)
    schema = json_schema(kind)
    assert schema["x-ratios"]["write_size"]["denominator"] == "writes"
    assert schema["x-tiers"] == [{"age": 691_200, "width": 3600}, {"age": None, "width": 86_400}]
    jsonschema_rs.meta.validate(schema)
