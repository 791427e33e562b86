"""The endpoint that Prometheus scrapes: the live series of records, and what this process counts about itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SHUT_RDWR, socket
from socketserver import TCPServer
from threading import BoundedSemaphore, Lock, Thread
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Exposed
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from monitoring.prometheus.families import BOUNDS, Family, FamilyType
from monitoring.prometheus.points import Buckets, Point
from siteward import __version__
from siteward.exposure import check_reach, check_token, host_name, knows_token, serving
from siteward.log import get_logger
from siteward.loopback import is_loopback
from siteward.server.auth.watching import Watchers
from siteward.settings import PrometheusSettings, SettingsError
from siteward.telemetry import METRICS, MetricType, telemetry

SERVICE: Final = "collector"
"""This process's value of the label `service`, as in the web application's `/metrics`."""
AT_ONCE: Final = 2
"""Texts of all series made at once."""
MOST_OPEN: Final = 16
"""Connections at once, known and unknown scrapers alike: each has a descriptor and a thread of this collector."""
TIMEOUT: Final = 10.0
"""Seconds after which a scraper is left, however busily it sends or reads; Prometheus waits as long by default."""
WAIT: Final = TIMEOUT / 2
"""Seconds for which a scrape waits for its turn; the others are for the answer."""
LES: Final = (*(str(float(bound)) for bound in BOUNDS), "+Inf")
"""Bounds of buckets as prometheus_client writes them."""
log = get_logger(__name__)

Points = Callable[[], list[tuple[tuple[str, ...], Point]]]
"""All points with the names of their labels; those of one family follow one another."""


class RecordFamilies(Collector):
    """The families of records, as prometheus_client takes them."""

    def __init__(self, points: Points) -> None:
        """Ask for the points at each scrape."""
        self._points = points

    def collect(self) -> Iterator[Exposed]:
        """Every family that has points."""
        families: dict[str, Exposed] = {}
        for labels, point in self._points():
            family = families.get(point.family.name)
            if family is None:
                family = families[point.family.name] = _empty(point.family, labels)
            _add(family, point)
        yield from families.values()


def _empty(family: Family, labels: tuple[str, ...]) -> Exposed:
    match family.type:
        case FamilyType.COUNTER:
            return CounterMetricFamily(family.name, family.help, labels=labels)
        case FamilyType.GAUGE:
            return GaugeMetricFamily(family.name, family.help, labels=labels)
        case FamilyType.HISTOGRAM:
            return HistogramMetricFamily(family.name, family.help, labels=labels)


def _add(family: Exposed, point: Point) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(point.value, Buckets)
        family.add_metric(point.labels, list(zip(LES, point.value.counts, strict=True)), float(point.value.total))
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        assert not isinstance(point.value, Buckets)
        family.add_metric(point.labels, float(point.value))


class OwnFamilies(Collector):
    """What this process has counted about itself, and which release it is."""

    def collect(self) -> Iterable[Exposed]:
        """Every metric that has samples."""
        samples = telemetry.samples()
        for metric in METRICS:
            make = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
            family = make(metric.name, metric.help, labels=("service", *metric.labels))
            for sample in samples:
                if sample.metric == metric.name:
                    family.add_metric([SERVICE, *sample.labels], sample.value)
            if family.samples:
                yield family
        build = GaugeMetricFamily("siteward_build_info", "Release of Siteward; always 1.", labels=("version",))
        build.add_metric([__version__], 1)
        yield build


def registry_of(points: Points) -> CollectorRegistry:
    """Everything that the endpoint shows."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (RecordFamilies(points), OwnFamilies()):
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


class Endpoint:
    """`GET /metrics` in threads of its own, until it is closed."""

    def __init__(
        self, settings: PrometheusSettings, registry: CollectorRegistry, watchers: Watchers | None = None
    ) -> None:
        """Listen.

        Args:
            settings: where, and a token that scrapers may have.
            registry: what is shown.
            watchers: who else may see it; None where no issuer of tokens is trusted.

        Raises:
            siteward.settings.SettingsError: the address is not allowed, or cannot be listened on now.
        """
        check_reach("prometheus", settings.host, trusting=watchers is not None)
        check_token("prometheus", settings.token)
        self._server = _listening(settings, registry, watchers)
        self.port: int = self._server.server_address[1]
        # A short poll: closing waits for the end of one.
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="prometheus", daemon=True)
        self._thread.start()
        scheme = "https" if settings.certificate else "http"
        log.info("prometheus may scrape", url=f"{scheme}://{settings.host}:{self.port}/metrics")

    def close(self) -> None:
        """Answer nobody any more; the address is free when this returns."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, MOST_OPEN at most; they end with the process, or after TIMEOUT."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, settings: PrometheusSettings, registry: CollectorRegistry, watchers: Watchers | None) -> None:
        self.address_family = AF_INET6 if ":" in settings.host else AF_INET
        self.token = settings.token
        self.watchers = watchers
        self._tls = serving("prometheus", settings.certificate, settings.key)
        self.registry = registry
        self.turns = BoundedSemaphore(AT_ONCE)
        self._lock = Lock()
        self._ends: dict[socket, float] = {}
        super().__init__((settings.host.strip("[]"), settings.port), _Scrape)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name, which may take long and is not needed."""
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket, object]:
        """The next connection; where TLS is spoken its thread greets, or one who says nothing would hold up all."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        """Answer in a thread, or hang up on one too many."""
        assert isinstance(request, socket)
        with self._lock:
            taken = len(self._ends) < MOST_OPEN
            if taken:
                self._ends[request] = time.monotonic() + TIMEOUT
        if taken:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: socket | tuple[bytes, socket]) -> None:
        """Close a connection, which is looked after no more."""
        assert isinstance(request, socket)
        with self._lock:
            self._ends.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End what has taken too long; called several times a second by the thread that accepts."""
        self._cut(time.monotonic())

    def server_close(self) -> None:
        """Listen no more, and leave whoever is still here."""
        super().server_close()
        self._cut(math.inf)

    def _cut(self, now: float) -> None:
        with self._lock:
            for connection in [connection for connection, end in self._ends.items() if end <= now]:
                # Its thread notices, and closes it; until then it counts as open.
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that went away is nothing to tell, and a fault of ours has an answer."""


def _listening(settings: PrometheusSettings, registry: CollectorRegistry, watchers: Watchers | None) -> _Server:
    try:
        return _Server(settings, registry, watchers)
    except OSError as error:
        message = (
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another port with SITEWARD_PROMETHEUS__PORT (0 takes any)"
        )
        raise SettingsError(message) from error


class _Scrape(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = TIMEOUT
    server_version = "siteward"
    sys_version = ""

    def _objection(self) -> tuple[int, str] | None:
        """HTTP status and reason for a request that may not pass; None where it may."""
        token, watchers, given = self.server.token, self.server.watchers, self.headers.get("Authorization", "")
        if token and knows_token(given, token.encode()):
            return None
        if watchers is not None:
            problem = watchers.objection(given)
            return None if problem is None else (problem.status, problem.detail)
        if token:
            return 401, "This needs the token of prometheus.token: send the header `Authorization: Bearer …`."
        # Without a token a page of another site could come through a browser here.
        known = is_loopback(host_name(self.headers.get("Host", "")))
        return None if known else (421, "This endpoint answers to localhost only; other names need [issuers.NAME].")

    def do_GET(self) -> None:
        """All series, or why not."""
        why = self._objection()
        if why:
            self._answer(*why)
        elif urlsplit(self.path).path != "/metrics":
            self._answer(404, "Only /metrics is here.")
        elif not self.server.turns.acquire(timeout=WAIT):
            self._answer(503, "Other scrapes take too long; ask again.")
        else:
            # The turn ends before the answer is written: a scraper that reads slowly holds up nobody else.
            try:
                text = generate_latest(self.server.registry)
            except Exception as error:
                log.exception("scrape failed", error=str(error))
                text = b""
            finally:
                self.server.turns.release()
            if text:
                self._answer(200, text, CONTENT_TYPE_PLAIN_0_0_4)
            else:
                self._answer(500, "The series cannot be shown; the collector's log says why.")

    def _answer(self, status: int, text: str | bytes, media_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode() + b"\n" if isinstance(text, str) else text
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == 401:  # noqa: PLR2004  # unauthorized.
            self.send_header("WWW-Authenticate", 'Bearer realm="siteward", Basic realm="siteward"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name.
        """Nothing: a scrape every few seconds is no news."""
