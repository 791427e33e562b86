"""Builders of example records for tests: small, valid, and changed where a test wants them changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from siteward.kinds.job import Job
from siteward.records import Kind, Row, kind_of, microseconds
from siteward.sinks import Batch

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""The instant around which examples lie."""
NOW = microseconds(datetime(2026, 3, 3, tzinfo=UTC))
"""`now` for validation of examples, microseconds since 1970 UTC."""
JOB = kind_of(Job)


def job(number: int = 0, **changes: Any) -> Job:
    """A valid job that ended a few seconds after noon; different numbers are different jobs."""
    end = NOON + timedelta(seconds=number)
    fields: dict[str, Any] = {
        "vo": "example",
        "site": f"SITE-{number % 7}",
        "submit_host": "submit.example.org",
        "local_job_id": str(number),
        "user": f"user{number % 11}",
        "start": end - timedelta(hours=1),
        "end": end,
        "state": "completed",
        "wall_time": 3600,
        "cpu_time": 3000 + number % 600,
        "processors": 1 + number % 8,
    }
    return Job(**(fields | changes))


def job_rows(count: int, **changes: Any) -> list[Row]:
    """Validated rows of `count` different jobs."""
    return [JOB.row_of(job(number, **changes), NOW) for number in range(count)]


def batch_of(kind: Kind, rows: list[Row], received: int = NOW) -> Batch:
    """Rows as the batch that a collector would hand to a sink."""
    return Batch(
        kind=kind,
        ids=[kind.id_of(row, position.to_bytes(16, "big")) for position, row in enumerate(rows)],
        columns={name: [getattr(row, name) for row in rows] for name in kind.names},
        producers=["test"] * len(rows),
        messages=[b"\0" * 16] * len(rows),
        received=received,
    )
