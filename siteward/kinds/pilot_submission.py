"""The kind `pilot-submission`: one attempt to send pilots to a queue."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from siteward.records import Bound, Dimension, Event, Measure, Ratio


class PilotSubmission(Event, kind="pilot-submission", identity=("reference",), retention=timedelta(days=420)):
    """One attempt to send pilots to one queue: who tried, where, how many were to go and how many went.

    With a reference, the same attempt sent again is the same record; without one every record is a new one.
    """

    reference: Annotated[str, Dimension("its number in the service that tried", bucketed=False)] = ""
    site: Annotated[str, Dimension("site it was for")]
    compute_element: Annotated[str, Dimension("gateway (compute element) it was for")] = ""
    queue: Annotated[str, Dimension("batch queue it was for")] = ""
    submitter: Annotated[str, Dimension("service that tried: a factory, director or broker")] = ""
    host: Annotated[str, Dimension("host of that service")] = ""
    middleware: Annotated[str, Dimension("software it went through, such as htcondor-ce or arc")] = ""
    state: Annotated[Literal["succeeded", "failed", "partial"], Dimension("whether all, none or some went")]
    reason: Annotated[str, Dimension("what the gateway said", max_length=1000, bucketed=False)] = ""
    pilots_done: Annotated[int, Measure("pilots that went", unit="1", limit=1_000_000)] = 0
    pilots_total: Annotated[int, Measure("pilots that were to go", unit="1", limit=1_000_000)] = 1

    efficiency = Ratio("pilots_done", "pilots_total", unit="1", doc="pilots that went per pilots that were to go")

    pilots_done_bound = Bound("pilots_done", "pilots_total")
