"""The kind `downtime`: an announced time in which a service will not, or may not, answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from siteward.records import Dimension, Interval


class Downtime(
    Interval,
    kind="downtime",
    identity=("site", "source", "reference"),
    partition="announced",
    ahead=timedelta(days=3650),
    booked=False,
    sent_by="operate",
):
    """One announced downtime; a change or withdrawal is a newer revision with the same reference.

    Its start and end may move, so it is filed under the instant it was first announced, which does not.
    """

    announced: datetime
    source: Annotated[str, Dimension("where it was announced, such as gocdb")]
    reference: Annotated[str, Dimension("its number there", bucketed=False)]
    site: Annotated[str, Dimension("site concerned")]
    element: Annotated[str, Dimension("service concerned; empty for the whole site")] = ""
    severity: Annotated[Literal["outage", "warning"], Dimension("whether it will be down or may be")]
    classification: Annotated[Literal["scheduled", "unscheduled"], Dimension("announced early enough or not")]
    state: Annotated[Literal["announced", "withdrawn"], Dimension("whether it still holds")] = "announced"
    description: Annotated[str, Dimension("reason in the site's words", max_length=4000, bucketed=False)] = ""
