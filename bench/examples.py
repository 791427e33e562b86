"""The job records that are measured: sixteen fields given, values as various as a real grid's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from siteward.kinds.job import Job

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FIELDS_GIVEN = 16


def job(number: int) -> Job:
    """The job of a number: a hundred end every second, at 150 sites, of 500 users."""
    end = BEGIN + timedelta(microseconds=10_000 * number)
    return Job(
        vo="bench",
        site=f"SITE-{number % 150:03}",
        compute_element=f"ce{number % 3}.site{number % 150}.example.org",
        queue="long" if number % 4 else "short",
        submit_host="submit.example.org",
        local_job_id=str(number),
        user=f"user{number * 7919 % 500}",
        group=f"group{number % 12}",
        state="completed" if number % 20 else "failed",
        exit_status=0 if number % 20 else 1,
        start=end - timedelta(seconds=600 + number % 40_000),
        end=end,
        wall_time=600 + number % 40_000,
        cpu_time=500 + number % 40_000,
        processors=1 + number % 8,
        memory=2**31 + number * 4096,
    )


class Jobs:
    """The same jobs without the cost of making them: a program that emits has its records already."""

    def __init__(self) -> None:
        """Make the first few thousand, which differ in everything but number and time."""
        self._ready = [job(number) for number in range(6_000)]

    def __call__(self, number: int) -> Job:
        """A record that is valid until the next call with a number six thousand higher."""
        record = self._ready[number % len(self._ready)]
        record.local_job_id = str(number)
        record.end = BEGIN + timedelta(0, 0, 10_000 * number)
        return record
