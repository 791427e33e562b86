"""The kind `network`: one measurement of the network between two machines."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from siteward.records import Bound, Combine, Dimension, Event, Former, Measure, Ratio

_HOUR: Final = 3600 * 10**6


class Network(
    Event,
    kind="network",
    identity=(
        "time",
        "source",
        "destination",
        "source_host",
        "destination_host",
        "source_address",
        "destination_address",
        "tool",
    ),
    retention=timedelta(days=180),
):
    """One measurement of the network from one machine to another: loss, delay, jitter, throughput.

    The time is the end of the measurement. A probe that knows how many packets it sent gives the numbers, from which
    losses add up exactly; one that knows only their quotient gives `packet_loss_rate`. Everything is a whole number, so
    that means are exact over any time.
    """

    source: Annotated[str, Dimension("site measured from")]
    destination: Annotated[str, Dimension("site measured to")]
    source_host: Annotated[str, Dimension("machine measured from")] = ""
    destination_host: Annotated[str, Dimension("machine measured to")] = ""
    source_address: Annotated[str, Dimension("IP address measured from")] = ""
    destination_address: Annotated[str, Dimension("IP address measured to")] = ""
    protocol: Annotated[Literal["", "ipv4", "ipv6"], Dimension("version of IP")] = ""
    tool: Annotated[str, Dimension("program that measured, such as owping or iperf3")] = ""
    packets_sent: Annotated[int | None, Measure("packets sent", unit="1", limit=10**12)] = None
    packets_lost: Annotated[int | None, Measure("packets that did not arrive", unit="1", limit=10**12)] = None
    packet_loss_rate: Annotated[
        int | None,
        Measure(
            "packets lost per million sent: 2500 for a quarter of a percent",
            unit="u1",
            combine=Combine.MEAN,
            maximum=10**6,
            former=Former("packet_loss", 10**6),
        ),
    ] = None
    one_way_latency: Annotated[
        int | None,
        Measure(
            "time a packet took from end to end (one-way delay)",
            unit="us",
            combine=Combine.MEAN,
            limit=_HOUR,
            former=Former("one_way_delay", 10**6),
        ),
    ] = None
    delay_variation: Annotated[
        int | None,
        Measure(
            "variation of the time packets took (jitter)",
            unit="us",
            combine=Combine.MEAN,
            limit=_HOUR,
            former=Former("jitter", 10**6),
        ),
    ] = None
    throughput: Annotated[
        int | None, Measure("data moved per second", unit="B/s", combine=Combine.MEAN, limit=10**13)
    ] = None
    retransmits: Annotated[int | None, Measure("packets sent again", unit="1", limit=10**12)] = None

    loss = Ratio("packets_lost", "packets_sent", unit="1", doc="packets that did not arrive per packets sent")

    packets_lost_bound = Bound("packets_lost", "packets_sent")
