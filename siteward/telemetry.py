"""Every metric of our own, named once, typed and commented; counted in the process, shown on /metrics."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from threading import Lock, get_ident
from typing import Final

import msgspec


class MetricType(StrEnum):
    """What a metric's value does."""

    COUNTER = "counter"
    """Only grows, from zero at the process's start."""
    GAUGE = "gauge"
    """Goes up and down."""


class Metric(msgspec.Struct, frozen=True):
    """One metric family; names follow Prometheus' conventions (base units, `_total` for counters)."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()


_C: Final = MetricType.COUNTER
_G: Final = MetricType.GAUGE

EMITTED = Metric("siteward_emitter_records_emitted_total", _C, "Records accepted by emit().", ("kind",))
CONFIRMED = Metric("siteward_emitter_records_confirmed_total", _C, "Records the broker has confirmed.", ("kind",))
SPOOLED = Metric(
    "siteward_emitter_records_spooled_total", _C, "Records written to the spool because the broker was away.", ("kind",)
)
ASIDE = Metric(
    "siteward_emitter_records_aside",
    _G,
    "Records that were set aside in the spool, since the broker does not take them. All programs of a spool say so.",
)
EMIT_REFUSED = Metric(
    "siteward_emitter_records_refused_total", _C, "Records refused by emit(): invalid, or no room.", ("kind", "why")
)
BUFFERED = Metric("siteward_emitter_buffered_bytes", _G, "Bytes of records waiting in memory.")
CONSUMED = Metric("siteward_collector_records_consumed_total", _C, "Records taken from the broker.", ("sink", "kind"))
WRITTEN = Metric(
    "siteward_collector_records_written_total",
    _C,
    "Records a sink has committed, by outcome.",
    ("sink", "kind", "outcome"),
)
DEAD_LETTERED = Metric(
    "siteward_collector_dead_letters_total", _C, "Records put into the dead letters.", ("sink", "kind")
)
SINK_FAILURES = Metric(
    "siteward_collector_sink_failures_total", _C, "Times a sink could not commit and was retried.", ("sink",)
)
BATCH_SECONDS = Metric("siteward_collector_write_seconds_total", _C, "Seconds spent in the sink's write().", ("sink",))
OPENSEARCH_RETRIED = Metric(
    "siteward_opensearch_records_retried_total",
    _C,
    "Records that OpenSearch did not take for now, each time; they are sent again. `status` is HTTP's, or `none`.",
    ("kind", "status"),
)
GATEWAY_QUEUED = Metric(
    "siteward_gateway_records_queued_total", _C, "Records the HTTP gateway has queued durably.", ("kind",)
)
GATEWAY_REJECTED = Metric(
    "siteward_gateway_records_rejected_total", _C, "Records the HTTP gateway has rejected.", ("kind",)
)
GATEWAY_REQUESTS = Metric(
    "siteward_gateway_requests_total", _C, "Requests to the gateway, by HTTP status.", ("status",)
)
TOKENS_REFUSED = Metric(
    "siteward_tokens_refused_total", _C, "Tokens that proved nobody, by what was wrong with them.", ("reason",)
)
REDELIVERED = Metric(
    "siteward_collector_messages_redelivered_total",
    _C,
    "Messages delivered again: a collector ended, or gave them back, before it had acknowledged them.",
    ("sink",),
)
HELD_OLDEST = Metric(
    "siteward_collector_oldest_seconds",
    _G,
    "Age of the oldest message that a collector holds; as long as one runs, that of its queue's head.",
    ("sink",),
)
PROMETHEUS_LEFT_OUT = Metric(
    "siteward_prometheus_records_left_out_total",
    _C,
    "Records that enter no live series: late, ahead of their time, replayed, imported, or of an incomplete cycle.",
    ("kind", "why"),
)
PROMETHEUS_OVER_BUDGET = Metric(
    "siteward_prometheus_records_over_budget_total",
    _C,
    "Records of which some label became `other`, since their kind would have had too many series.",
    ("kind", "series"),
)
PROMETHEUS_SERIES = Metric("siteward_prometheus_series", _G, "Live series of a kind, buckets included.", ("kind",))
LEDGER_MISSING = Metric(
    "siteward_ledger_missing_records",
    _G,
    "Records of this month or the last seven days that were expected of a producer and have not come. Counts by VO or "
    "site have these as `producer`.",
    ("kind", "producer"),
)
LEDGER_OVERDUE = Metric(
    "siteward_ledger_overdue_seconds",
    _G,
    "Seconds for which records of a producer that counts as silent are overdue; 0 where they come as usual.",
    ("kind", "producer"),
)
LEDGER_DIFFERING = Metric(
    "siteward_ledger_differing_duplicates_total",
    _C,
    "Records that came again in the same revision with other values; what was booked first stays.",
    ("kind",),
)
QUEUE_READY = Metric("siteward_queue_ready_messages", _G, "Messages that wait for a collector.", ("queue",))
QUEUE_UNACKED = Metric("siteward_queue_unacked_messages", _G, "Messages that a collector holds.", ("queue",))
QUEUE_PARKED = Metric(
    "siteward_queue_parked_messages", _G, "Messages put aside because nobody can read them.", ("queue",)
)
QUEUE_BYTES = Metric("siteward_queue_bytes", _G, "Size of the messages waiting or held.", ("queue",))
QUEUE_RECORDS = Metric("siteward_queue_records", _G, "Records waiting or unacknowledged in a queue.", ("queue",))
QUEUE_OLDEST = Metric("siteward_queue_oldest_seconds", _G, "Age of the oldest message in a queue.", ("queue",))
SERVICE_RESTARTS = Metric(
    "siteward_service_restarts_total", _C, "Times the supervisor started a service again.", ("restarted",)
)
STARTED = Metric("siteward_process_start_time_seconds", _G, "When the process started, seconds since 1970.")

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order of the data path."""


class Sample(msgspec.Struct, frozen=True):
    """The value of one metric with its labels' values, in one process."""

    metric: str
    labels: tuple[str, ...]
    value: float


class Telemetry:
    """The values of one process. Cheap to count; safe from any thread."""

    def __init__(self) -> None:
        """Start from zero."""
        self._lock = Lock()
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}
        self.set(STARTED, time.time())

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Count, with a value for every label the metric declares."""
        key = (metric.name, labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0) + amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[metric.name, labels] = value

    def value(self, metric: Metric, *labels: str) -> float:
        """The present value; 0 where nothing was counted."""
        with self._lock:
            return self._values.get((metric.name, labels), 0)

    def total(self, metric: Metric) -> float:
        """The present value over all labels."""
        with self._lock:
            return sum(value for (name, _), value in self._values.items() if name == metric.name)

    def samples(self) -> list[Sample]:
        """Everything counted so far."""
        with self._lock:
            return [Sample(name, labels, value) for (name, labels), value in self._values.items()]

    def reset(self) -> None:
        """Forget everything: in a forked child, the parent counts what the parent did."""
        self._lock = Lock()
        self._values = {}
        self.set(STARTED, time.time())

    def share(self, folder: Path, service: str) -> None:
        """Leave the present values where the web application of the same installation finds them."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{service}.json"
        # Two threads of a process may do so at once, under one name.
        draft = folder / f".{service}.{os.getpid()}.{get_ident()}"
        draft.write_bytes(msgspec.json.encode(self.samples()))
        draft.replace(target)


STALE_SECONDS: Final = 60.0
"""A service that has not shared for so long has ended, and what it counted ended with it."""


def shared_samples(folder: Path) -> dict[str, list[Sample]]:
    """What every living service has left with Telemetry.share, by service name."""
    found: dict[str, list[Sample]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                continue
            found[path.stem] = msgspec.json.decode(path.read_bytes(), type=list[Sample])
        except (OSError, msgspec.MsgspecError):
            continue
    return found


telemetry: Final = Telemetry()
"""This process's values."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=telemetry.reset)
