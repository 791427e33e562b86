"""For whom a sender speaks, of kinds that a community may declare."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from viewers import PEOPLE

from collectors.sender import Sender
from siteward.records import Dimension, Event, Refused, kind_of, microseconds
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import Grant, Role

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Probe(Event, kind="probe", identity=("producer", "reference")):
    """What a probe has found, under a number of its own."""

    producer: Annotated[str, Dimension("the probe")]
    reference: Annotated[str, Dimension("its number")]
    site: Annotated[str, Dimension("where it looked")]


def sender(*sites: str) -> Sender:
    """The service `ce.site-a`."""
    identity = Identity(issuer="https://issuer.example", subject="ce.site-a", token="t", expires=0.0, is_service=True)
    return Sender(Caller(identity, (Grant(Role.REPORTER, ("dteam",), sites),)), PEOPLE)


@pytest.mark.parametrize("sites", [("A",), ()])
@pytest.mark.parametrize(("producer", "is_own"), [("ce.site-a", True), ("ce.site-a/1", True), ("ce.site-b", False)])
def test_ids_made_of_a_producer_are_its_own(sites: tuple[str, ...], producer: str, is_own: bool) -> None:  # noqa: FBT001
    """Else a newer revision of somebody else's record could be sent; of whatever shape the kind is."""
    kind = kind_of(Probe)
    row: Any = kind.row_of(Probe(vo="dteam", time=NOON, producer=producer, reference="7", site="A"), microseconds(NOON))
    if is_own:
        sender(*sites).check(kind, row)
        return
    with pytest.raises(Refused, match="speaks for the producer ce"):
        sender(*sites).check(kind, row)
