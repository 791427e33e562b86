"""PromQL: what a Prometheus server says now, or over a time; a source of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ssl import SSLContext
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from monitoring.prometheus.connection import Connection, PrometheusError, trusted_by
from siteward.records import microseconds, moment
from siteward.settings import PrometheusSettings, SettingsError

MOST_POINTS: Final = 11_000
"""Points of one series that Prometheus answers at most."""
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
FAILING: Final = frozenset({"timeout", "canceled", "unavailable", "internal"})
"""Errors of the query API that may pass; any other is the question's fault."""


class Point(msgspec.Struct, frozen=True):
    """A value of a series at an instant (aware, UTC); it may be NaN or infinite."""

    time: datetime
    value: float


class Series(msgspec.Struct, frozen=True):
    """One series of an answer: its labels, with `__name__` where the expression keeps it, and its points.

    There is at least one point; they are in time order.
    """

    labels: dict[str, str]
    points: tuple[Point, ...]

    @property
    def last(self) -> Point:
        """The newest point."""
        return self.points[-1]


class Result(msgspec.Struct, frozen=True):
    """Series in the server's order, and what the server warns of: parts of the data that were not there."""

    series: tuple[Series, ...]
    warnings: tuple[str, ...] = ()


class _Found(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []
    histogram: Any = None
    histograms: Any = None


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Document(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""
    warnings: list[str] = []


class PromQL:
    """Asks one server, Prometheus or compatible. Safe to use from any thread."""

    def __init__(self, url: str, token: str = "", timeout: float = 10.0, trusted: SSLContext | None = None) -> None:
        """Name the server; nothing is opened yet.

        Args:
            url: such as `http://127.0.0.1:9090`; compatible servers may want a path behind it.
            token: sent as a bearer's.
            timeout: seconds for a whole answer; the server is told to give up then too.
            trusted: who is believed over https; by default the authorities of the system.

        Raises:
            ValueError: the URL is not http or https, or holds a password; or no header can carry the token.
        """
        self._connection = Connection(url, token, timeout, trusted)
        self._timeout = timeout

    def instant(self, query: str, at: datetime | None = None) -> Result:
        """What an expression is at an instant; each series has one point. A scalar is a series without labels.

        Args:
            query: an expression that gives a vector or a scalar.
            at: an aware instant; None is the server's now.

        Raises:
            PrometheusError: permanent where the expression is wrong; else the server is away, slow or overloaded.
        """
        fields = {"query": query} | ({"time": _seconds(at)} if at else {})
        return self._ask("/api/v1/query", fields)

    def range(self, query: str, start: datetime, end: datetime, step: timedelta) -> Result:
        """What an expression was, every `step` from `start` to `end`, both included; gaps are points left out.

        Raises:
            PrometheusError: as instant(); and permanent where a series would have more than MOST_POINTS points.
        """
        if step <= timedelta(0) or end < start:
            message = f"from {start.isoformat()} to {end.isoformat()} every {step}: the step or the window is negative"
            raise PrometheusError(message, permanent=True)
        if (end - start) // step >= MOST_POINTS:
            message = f"more than {MOST_POINTS} points in a series; ask with a step above {(end - start) / MOST_POINTS}"
            raise PrometheusError(message, permanent=True)
        fields = {"start": _seconds(start), "end": _seconds(end), "step": f"{step.total_seconds():.6f}"}
        return self._ask("/api/v1/query_range", {"query": query} | fields)

    def _ask(self, path: str, fields: Mapping[str, str]) -> Result:
        body = urlencode({**fields, "timeout": f"{self._timeout:.3f}"}).encode()
        try:
            return self._read(self._connection.post(path, body, FORM))
        except PrometheusError as error:
            refused = _document(error.body)
            if refused is None or not refused.error_type:
                raise
            message = f"{self._connection.url}: {refused.error_type}: {refused.error}"
            permanent = refused.error_type not in FAILING
            raise PrometheusError(message, error.status, error.body, permanent=permanent) from error

    def _read(self, body: bytes) -> Result:
        document = _document(body)
        if document is None or document.data is None or document.status != "success":
            message = f"{self._connection.url} answers something else than Prometheus does: {body[:100]!r}"
            raise PrometheusError(message, permanent=True)
        try:
            return Result(tuple(_series(document.data)), tuple(document.warnings))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            message = f"{self._connection.url}: a {document.data.result_type} cannot be read: {error}"
            raise PrometheusError(message, permanent=True) from error


def open_promql(settings: PrometheusSettings) -> PromQL | None:
    """The server that the settings name; None where they name none.

    Raises:
        siteward.settings.SettingsError: its address, its token or `ca` cannot be used.
    """
    if not settings.url:
        return None
    trusted = trusted_by(settings)
    try:
        return PromQL(settings.url, settings.url_token, settings.timeout, trusted)
    except ValueError as error:
        message = f"setting prometheus.url (with url_token_file): {error}"
        raise SettingsError(message) from error


def _document(body: bytes) -> _Document | None:
    try:
        return msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _series(data: _Data) -> Sequence[Series]:
    if data.result_type == "scalar":
        value = msgspec.json.decode(data.result, type=tuple[float, str])
        return [Series({}, (_point(value),))]
    if data.result_type not in {"vector", "matrix"}:
        message = "ask for a number: an expression that gives a vector or a scalar"
        raise ValueError(message)
    found = msgspec.json.decode(data.result, type=list[_Found])
    if any(each.histogram or each.histograms for each in found):
        message = "it holds native histograms; ask for histogram_quantile(), histogram_sum() or histogram_count()"
        raise ValueError(message)
    points = [(each.metric, [each.value] if each.value else each.values) for each in found]
    return [Series(labels, tuple(map(_point, values))) for labels, values in points if values]


def _point(value: tuple[float, str]) -> Point:
    return Point(moment(round(value[0] * 1_000_000)), float(value[1]))


def _seconds(time: datetime) -> str:
    """An aware instant as Prometheus reads it, to the microsecond."""
    if time.tzinfo is None:
        message = f"{time.isoformat()} has no time zone"
        raise PrometheusError(message, permanent=True)
    whole, part = divmod(microseconds(time.astimezone(UTC)), 1_000_000)
    return f"{whole}.{part:06d}"
