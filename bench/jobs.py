"""Batches of jobs for the ledger: ten minutes to twelve hours long, one after the other as they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from siteward.kinds.job import Job
from siteward.pseudonyms import pseudonym
from siteward.records import kind_of
from siteward.records.identity import record_id
from siteward.sinks import Batch

BATCH: Final = 10_000
SERIES: Final = 20_000
SITES: Final = 150
USERS: Final = 500
SHORTEST, LONGEST = 600, 12 * 3600
"""Seconds that a job lasts."""
SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
JOB: Final = kind_of(Job)
KEY: Final = "of pseudonyms, for measuring only"
PEOPLE: Final = {pseudonym(KEY.encode(), "user", f"user{each}"): ("user", f"user{each}") for each in range(USERS)}
"""Who runs the jobs: dimension and name by pseudonym."""


def batches(count: int, first: int, last: int, seed: int = 1) -> Iterator[Batch]:
    """Batches of BATCH different jobs.

    Args:
        count: of batches.
        first: when the first job ends, microseconds since 1970 UTC.
        last: when the last one ends.
        seed: of chance; other seeds give other jobs.
    """
    chance = np.random.default_rng(seed)
    # A user works at forty sites, whichever they are: 500 times 40 series.
    places = np.array([chance.permutation(SITES)[: SERIES // USERS] for _ in range(USERS)])
    step = max(1, (last - first) // (count * BATCH))
    people = list(PEOPLE)
    defaults = {column.name: [column.default] * BATCH for column in JOB.columns}
    for number in range(count):
        user = chance.integers(USERS, size=BATCH)
        site = places[user, chance.integers(SERIES // USERS, size=BATCH)]
        end = first + step * np.arange(number * BATCH, (number + 1) * BATCH)
        seconds = chance.integers(SHORTEST, LONGEST, size=BATCH)
        processors = chance.choice([1, 1, 4, 8], size=BATCH)
        columns: dict[str, list[Any]] = defaults | {
            "vo": [f"vo{each % 10}" for each in user.tolist()],
            "site": [f"SITE-{each}" for each in site.tolist()],
            "user": [people[each] for each in user.tolist()],
            "local_job_id": [f"{seed}.{number}.{place}" for place in range(BATCH)],
            "end": end.tolist(),
            "start": (end - seconds * SECOND).tolist(),
            "wall_time": seconds.tolist(),
            "processors": processors.tolist(),
            "cpu_time": (seconds * processors * 9 // 10).tolist(),
        }
        identity = zip(*(columns[name] for name in JOB.identity), strict=True)
        of_all = zip(columns[JOB.time], columns["vo"], identity, strict=True)
        ids = [record_id(instant, JOB.name, vo, each) for instant, vo, each in of_all]
        yield Batch(JOB, ids, columns, ["bench"] * BATCH, [bytes(16)] * BATCH, last)
