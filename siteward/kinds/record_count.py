"""The kind `record-count`: how many records of another kind a source has sent, or should have sent, for some time."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from siteward.records import Dimension, Interval, Measure


class RecordCount(
    Interval,
    kind="record-count",
    identity=("counted", "producer", "site", "submit_host", "start", "end"),
    retention=timedelta(days=800),
    longest=timedelta(days=400),
    archived=False,
):
    """What a source says it has of one kind for a time, as APEL's sync records do; the ledger compares what came.

    With a producer, what came from it for the hours of that time is counted. Without one, the records that ended in
    that time are, whoever sent them: those of the VO (`all` for every VO), and of site and submit host where they are
    given. A later count of the same is a newer revision.
    """

    counted: Annotated[str, Dimension("kind whose records are counted, such as job")]
    producer: Annotated[str, Dimension("who sends them; empty to compare by site instead")] = ""
    site: Annotated[str, Dimension("site where they ran; empty for all")] = ""
    submit_host: Annotated[str, Dimension("host that submitted them; empty for all", live=False)] = ""
    number: Annotated[int, Measure("records that there should be", unit="1", limit=10**12)]
