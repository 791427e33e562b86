"""A client of a running Siteward over HTTP; needs nothing beyond the base install."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from http.client import HTTPException
from typing import Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request

import msgspec

from siteward.openers import bearer, opener
from siteward.plain_text import plain_hosts
from siteward.query import StoredRecord
from siteward.query_json import AnswerDocument
from siteward.query_window import format_time
from siteward.records import Record
from siteward.usage_json import UsageDocument
from siteward.usage_report import UsageReport

DEFAULT_URL: Final = "http://127.0.0.1:8080"
NDJSON: Final = "application/x-ndjson"
Read = TypeVar("Read")


class ClientError(RuntimeError):
    """The server refused, failed, or could not be reached.

    Attributes:
        status: HTTP status; 0 where no answer came.
        problem: the answer's problem details: type, title, status, detail, and more where known; {} without.
        permanent: sending the same again gives the same answer.
    """

    def __init__(self, message: str, status: int = 0, problem: Mapping[str, Any] | None = None) -> None:
        """Keep the parts; the message is the problem's detail."""
        super().__init__(message)
        self.status = status
        self.problem = dict(problem or {})
        self.permanent = 400 <= status < 500 and status not in {408, 429}  # noqa: PLR2004  # HTTP's classes.


class SinkReceipt(msgspec.Struct, frozen=True):
    """What one sink did with a record: queued, stored, replaced, duplicate, rejected or parked, and why."""

    sink: str
    outcome: str
    reason: str = ""
    at: str = ""


class GrantTold(msgspec.Struct, frozen=True):
    """One role of a caller: in which VOs, of which sites only, and what it allows."""

    role: str
    vos: tuple[str, ...]
    sites: tuple[str, ...]
    allows: tuple[str, ...]


class CallerTold(msgspec.Struct, frozen=True):
    """Whom a token proves: issuer, subject, host, VOs, the second since 1970 UTC when it ends, and roles.

    Attributes:
        producer: the name that its snapshots carry; "" where it sends none, or the app is an older one; None where that
            cannot be told now.
    """

    issuer: str
    subject: str
    host: str
    vos: tuple[str, ...]
    expires: float | None
    grants: tuple[GrantTold, ...]
    producer: str | None = ""


class IssuerTold(msgspec.Struct, frozen=True):
    """An issuer whose tokens an app believes: its name there, its own one, and how a command line asks it for some."""

    name: str
    url: str
    browser: bool
    client: str
    scopes: tuple[str, ...]
    audience: str


class _IssuersTold(msgspec.Struct, frozen=True):
    issuers: list[IssuerTold]


class Client:
    """Asks a running Siteward and sends it records. Every method may raise ClientError; safe to use from any thread.

    Over https the authorities of the system are believed, or those in the file that SSL_CERT_FILE names.
    """

    def __init__(
        self, url: str = DEFAULT_URL, token: str | Callable[[], str] = "", timeout: float = 30.0, vo: str = ""
    ) -> None:
        """Name the server; nothing is opened yet.

        Args:
            url: the server's address, without a path.
            token: what to send, where it asks for a token; or what gives it for each request, such as
                siteward.oauth.service.ServiceToken.
            timeout: seconds without a sign of life after which a request fails.
            vo: which VO is asked, by those who see several; `*` for all that the token lets see.

        Raises:
            ValueError: the URL is not https, or http on this machine, or holds a password; or no header can carry the
                token or the VO.
        """
        if not vo.isascii() or not vo.isprintable():
            message = f"no header can carry the VO {vo!r}"
            raise ValueError(message)
        self._opener = opener(url, example=DEFAULT_URL)
        if list(plain_hosts(url)):
            message = f"{url}: what is sent and asked would be readable on its way; write https://"
            raise ValueError(message)
        self.url = url.rstrip("/")
        self._headers = {"Siteward-VO": vo} if vo else {}
        if not callable(token):
            self._headers |= bearer(token)
        self._token = token if callable(token) else None
        self._timeout = timeout

    def whoami(self) -> CallerTold:
        """Whom our token proves to the server, and what that allows."""
        return self._read("/v1/whoami", CallerTold)

    def issuers(self) -> list[IssuerTold]:
        """Whose tokens the server believes."""
        return self._read("/v1/issuers", _IssuersTold).issuers

    def query(  # noqa: PLR0913  # a question has these parts.
        self,
        kind: str,
        measures: Sequence[str] = ("count",),
        *,
        by: Sequence[str] = (),
        where: Sequence[str] = (),
        start: str | datetime = "-24h",
        end: str | datetime = "now",
        width: str | int = 0,
        top: int = 0,
    ) -> AnswerDocument:
        """Ask; the parts are those of siteward.query_text.QueryText, times also as aware datetimes."""
        fields = [
            ("kind", kind),
            ("measures", ",".join(measures)),
            ("by", ",".join(by)),
            *(("where", condition) for condition in where),
            ("start", _time(start)),
            ("end", _time(end)),
            ("width", str(width)),
            ("top", str(top)),
        ]
        return self._read(f"/v1/query?{urlencode(fields)}", AnswerDocument)

    def usage(  # noqa: PLR0913  # a question has these parts.
        self,
        kind: str,
        measures: Sequence[str] = ("records",),
        *,
        by: Sequence[str] = (),
        where: Sequence[str] = (),
        window: str = "",
        start: str | datetime = "",
        end: str | datetime = "",
        attribution: str = "",
        period: str = "whole",
        top: int = 0,
        as_of: str = "present",
        zone: str = "UTC",
    ) -> UsageDocument:
        """Ask the ledger who used what; the parts are those of siteward.usage_text.UsageText.

        `siteward.usage_table` makes a DataFrame, an Arrow table, Parquet or CSV of the answer.
        """
        fields = [
            ("kind", kind),
            ("measures", ",".join(measures)),
            ("by", ",".join(by)),
            *(("where", condition) for condition in where),
            ("window", window),
            ("start", _time(start)),
            ("end", _time(end)),
            ("attribution", attribution),
            ("period", period),
            ("top", str(top)),
            *([("as_of", as_of)] if as_of != "present" else []),
            ("zone", zone),
        ]
        return self._read(f"/v1/accounting/usage?{urlencode(fields)}", UsageDocument)

    def usage_reports(self, kind: str = "") -> list[UsageReport]:
        """The named reports of a kind, or of all kinds in the ledger; `usage` takes what their `question` says."""
        path = f"/v1/accounting/reports?{urlencode({'kind': kind})}"
        return self._read(path, dict[str, list[UsageReport]])["reports"]

    def values(
        self, kind: str, field: str, *, where: Sequence[str] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """The values of a dimension, most frequent first."""
        fields = [*(("where", condition) for condition in where), ("limit", str(limit))]
        path = f"/v1/values/{_part(kind)}/{_part(field)}?{urlencode(fields)}"
        return self._read(path, dict[str, list[str | int | bool | None]])["values"]

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[str] = (),
        where: Sequence[str] = (),
        start: str | datetime = "1990-01-01",
        end: str | datetime = "2100-01-01",
        limit: int = 100,
    ) -> list[StoredRecord]:
        """Single records, newest first: those with the ids, or those within the window that meet the conditions."""
        fields = [("id", identifier) for identifier in ids] + [("where", condition) for condition in where]
        fields += [("start", _time(start)), ("end", _time(end)), ("limit", str(limit))]
        return self._read(f"/v1/records/{_part(kind)}?{urlencode(fields)}", dict[str, list[StoredRecord]])["records"]

    def send(self, kind: str, records: Iterable[Record | Mapping[str, Any]]) -> dict[str, Any]:
        """Send records, as objects of their class or as mappings with times as datetimes or RFC 3339 texts.

        Returns:
            The gateway's answer: what became of each record, and its id.
        """
        body = b"\n".join(msgspec.json.encode(record) for record in records)
        return self._read(f"/v1/records/{_part(kind)}", dict[str, Any], body)

    def receipt(self, identifier: str) -> dict[str, Any]:
        """What became of a record that was sent, per sink, by its id."""
        return self._read(f"/v1/receipts/{_part(identifier)}", dict[str, Any])

    def pipeline(self) -> dict[str, Any]:
        """The counters of the data path: emitted, queued, stored, refused, and the services; None where not told."""
        return self._read("/v1/pipeline", dict[str, Any])

    def alive(self) -> bool:
        """Whether a Siteward answers at this address."""
        try:
            return self._read("/health/live", dict[str, str]).get("status") == "live"
        except ClientError:
            return False

    def _read(self, path: str, kind: type[Read], body: bytes | None = None) -> Read:
        headers = self._headers | (bearer(self._token()) if self._token else {}) | {"Accept": "application/json"}
        request = Request(self.url + path, body, headers)  # noqa: S310  # http or https, see __init__.
        if body is not None:
            request.add_header("Content-Type", NDJSON)
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return msgspec.json.decode(response.read(), type=kind)
        except HTTPError as error:
            with error:
                raise _refusal(error) from error
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            message = f"{self.url} does not answer: {reason}"
            raise ClientError(message) from error
        except msgspec.MsgspecError as error:
            message = f"{self.url} answers something else than Siteward does: {error}"
            raise ClientError(message) from error


def _refusal(error: HTTPError) -> ClientError:
    try:
        problem = json.loads(error.read())
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return ClientError(f"{error.url} answers {error.code} {error.reason}", error.code)
    return ClientError(detail, error.code, problem)


def _time(value: str | datetime) -> str:
    return format_time(value) if isinstance(value, datetime) else value


def _part(text: str) -> str:
    return quote(text, safe="")
