"""The service `collector`: carries records from the broker to every installed sink, each at its own pace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from threading import Event, Thread
from typing import Final

from collectors.consumer import Collector
from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from collectors.pipeline import Pipeline, delays
from collectors.receipts import Receipts
from collectors.steps import Enrichment
from siteward import extensions
from siteward.broker import Broker, BrokerError
from siteward.broker.opening import open_consumed, sinks
from siteward.kinds import load_kinds
from siteward.log import get_logger
from siteward.records import Kind
from siteward.server.people_table import PeopleTable
from siteward.settings import Settings
from siteward.sinks import Sink
from siteward.telemetry import telemetry

SHARE_SECONDS: Final = 1.0
"""How often the counters are left for the web application."""
SWITCH_SECONDS: Final = 0.0005
"""How long one thread may compute while another one waits."""
log = get_logger(__name__)


def run(settings: Settings, stop: Event) -> None:
    """Collect for every sink that is fed until `stop` is set; then finish the batches in hand and return."""
    collect(settings, stop, sinks(settings), enrichments=installed_enrichments())


def installed_enrichments() -> list[Enrichment]:
    """Every installed enrichment, in order of their names.

    Raises:
        siteward.extensions.ExtensionError: one does not load.
    """
    return [entry.load() for entry in extensions.found("siteward.steps").values()]


def sink_opening(settings: Settings, kinds: Mapping[str, Kind]) -> Callable[[str], Sink]:
    """How to open a sink by its name.

    Raises:
        siteward.extensions.ExtensionError: when opening, for a sink that is not installed.
    """

    def open_sink(name: str) -> Sink:
        sink: Sink = extensions.load("siteward.sinks", name)(settings, kinds)
        return sink

    return open_sink


def collect(
    settings: Settings,
    stop: Event,
    queues: Sequence[str],
    *,
    name: str = "collector",
    enrichments: Sequence[Enrichment] = (),
) -> None:
    """Collect for some sinks until `stop` is set; a thread each.

    Args:
        settings: of this installation.
        stop: set to end.
        queues: names of installed sinks.
        name: of these consumers towards the broker and in the telemetry; two that live never share one.
        enrichments: applied to every batch before it is written.

    Raises:
        siteward.broker.BrokerError: the broker that the settings name can never be consumed from; permanent.
    """
    # The sink's thread takes the interpreter's lock some thirty times per batch, and would wait for the decoding
    # thread's whole turn each time.
    sys.setswitchinterval(SWITCH_SECONDS)
    kinds = load_kinds(settings.kinds)
    broker = _wait_for_broker(settings, stop)
    if broker is None:
        return
    open_sink = sink_opening(settings, kinds)
    path = database_path(settings)
    try:
        with DeadLetters(path) as dead_letters, Receipts(path) as receipts, closing(PeopleTable(settings)) as people:
            threads = []
            for queue in queues:
                pipeline = Pipeline(
                    queue, kinds, partial(open_sink, queue), dead_letters, receipts, people, enrichments
                )
                collector = Collector(queue, broker, pipeline, dead_letters, settings, name)
                threads.append(Thread(target=collector.run, args=(stop,), name=f"collect-{queue}"))
            for thread in threads:
                thread.start()
            log.info("collecting", sinks=list(queues))
            while not stop.wait(SHARE_SECONDS) and any(thread.is_alive() for thread in threads):
                _share(settings, name)
            for thread in threads:
                thread.join()
            _share(settings, name)
    finally:
        broker.close()


def _wait_for_broker(settings: Settings, stop: Event) -> Broker | None:
    """The broker with its queues; None if told to stop before it can be reached."""
    for delay in delays():
        try:
            return open_consumed(settings)
        except BrokerError as error:
            if error.permanent:
                raise
            log.warning("collector waits for the broker", error=str(error), seconds=round(delay, 1))
        if stop.wait(delay):
            break
    return None


def _share(settings: Settings, name: str) -> None:
    try:
        telemetry.share(settings.folder / "telemetry", name)
    except OSError as error:
        log.warning("telemetry is not shared", error=str(error))
