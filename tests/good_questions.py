"""For each route a question that is answered, and what else its parts may sensibly be: where fuzzing starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

MARCH: Final = {"start": "2026-03-01T00:00:00Z", "end": "2026-04-01"}
PERIOD: Final = "/v1/accounting/periods/{kind}/{month}"
CORRECTION: Final = "/v1/accounting/corrections"
NUMBER: Final = f"{CORRECTION}/{{number}}"


class Asked(msgspec.Struct, frozen=True):
    """What a route is asked.

    Attributes:
        path: values of the path's parts.
        query: parameters.
        body: JSON; None where there is none.
        answer: the status of a good answer.
    """

    path: Mapping[str, Any] = {}
    query: Mapping[str, Any] = {}
    body: Any = None
    answer: int = 200


class Known(msgspec.Struct, frozen=True):
    """What is in an installation that is asked.

    Attributes:
        records: ids of stored jobs.
        receipt: id of a record that came with a receipt.
        waiting: numbers of corrections that nobody has decided about.
        applied: number of one that was applied.
        token: of somebody.
        sent: records of the kind `job`, as JSON.
        denied: a subject that is denied.
    """

    records: Sequence[str]
    receipt: str
    waiting: Sequence[int]
    applied: int
    token: str
    sent: Sequence[Mapping[str, Any]]
    denied: str


def good_questions(known: Known) -> dict[tuple[str, str], Asked]:
    """By method and path."""
    usage = {"kind": "job", "measures": "wall_time,records", "by": "site,user", **MARCH}
    alpha = {"vo": "alpha"}
    change = {"kind": "job", "action": "move", "reason": "it was another one", "given": ["site=LEFT"]}
    return {
        ("GET", "/"): Asked(),
        ("GET", "/dead-letters"): Asked(),
        ("GET", "/explore"): Asked(),
        ("GET", "/health/live"): Asked(),
        ("GET", "/health/ready"): Asked(),
        ("GET", "/kinds"): Asked(),
        ("GET", "/login"): Asked(),
        ("GET", "/login/callback/{issuer}"): Asked({"issuer": "dteam"}, {"state": "x", "code": "y"}, answer=303),
        ("GET", "/login/start"): Asked(query={"issuer": "dteam", "to": "/explore"}, answer=303),
        ("GET", "/metrics"): Asked(),
        ("GET", "/static/{version}/{name}"): Asked({"version": "x", "name": "frame.css"}),
        ("GET", "/v1/accounting/completeness"): Asked(query={"kind": ["job"], "window": "2026-03"}),
        ("GET", CORRECTION): Asked(query={"kind": "job"}),
        ("GET", "/v1/accounting/kinds"): Asked(),
        ("GET", "/v1/accounting/periods"): Asked(query={"kind": "job", "vo": "alpha"}),
        ("GET", f"{PERIOD}/adjustments"): Asked({"kind": "job", "month": "2026-02"}, {"vo": "alpha", "limit": 10}),
        ("GET", "/v1/accounting/reports"): Asked(query={"kind": "job"}),
        ("GET", "/v1/accounting/trace"): Asked(query={"kind": "job", "where": ["vo=alpha"], "window": "2026-03"}),
        ("GET", "/v1/accounting/usage"): Asked(query=usage),
        ("GET", "/v1/audit"): Asked(query={"vo": "alpha"}),
        ("GET", "/v1/dead-letters"): Asked(query={"kind": "job", "state": "open"}),
        ("GET", "/v1/dead-letters/{number}"): Asked({"number": 1}),
        ("GET", "/v1/denied"): Asked(),
        ("GET", "/v1/issuers"): Asked(),
        ("GET", "/v1/kinds"): Asked(),
        ("GET", "/v1/kinds/{kind}"): Asked({"kind": "job"}),
        ("GET", "/v1/pipeline"): Asked(),
        ("GET", "/v1/query"): Asked(query={"kind": "job", "measures": "count,sum:wall_time", "by": "site", **MARCH}),
        ("GET", "/v1/receipts/{id}"): Asked({"id": known.receipt}),
        ("GET", "/v1/records/{kind}"): Asked({"kind": "job"}, {"where": ["vo=alpha"], "limit": 3}),
        ("GET", "/v1/values/{kind}/{field}"): Asked({"kind": "job", "field": "user"}, {"where": ["vo=alpha"]}),
        ("GET", "/v1/whoami"): Asked(),
        ("POST", CORRECTION): Asked(body={**change, "where": ["vo=alpha"], "window": "2026-03", "dry_run": True}),
        ("POST", f"{NUMBER}/approval"): Asked({"number": known.waiting[0]}, body={"anew": True}),
        ("POST", f"{NUMBER}/rejection"): Asked({"number": known.waiting[1]}, body={"reason": "no"}),
        ("POST", f"{NUMBER}/reversal"): Asked({"number": known.applied}, body={"reason": "it was right"}),
        ("POST", f"{PERIOD}/closing"): Asked({"kind": "job", "month": "2026-03"}, body=alpha),
        ("POST", f"{PERIOD}/reopening"): Asked({"kind": "job", "month": "2026-02"}, body={**alpha, "reason": "late"}),
        ("POST", f"{PERIOD}/signature"): Asked({"kind": "job", "month": "2026-01"}, body=alpha),
        ("POST", "/v1/dead-letters/{number}/{action}"): Asked({"number": 1, "action": "discard"}, body={"note": "old"}),
        ("POST", "/v1/denied"): Asked(body={"issuer": "local", "subject": "mallory", "reason": "a key was stolen"}),
        ("POST", "/v1/records/{kind}"): Asked({"kind": "job"}, body=list(known.sent)),
        ("POST", "/v1/session"): Asked(body={"token": known.token}),
        ("DELETE", "/v1/denied"): Asked(query={"issuer": "local", "subject": known.denied}),
        ("DELETE", "/v1/session"): Asked(query={"everywhere": "true"}),
    }


def sensible_parts(known: Known) -> dict[str, Sequence[Any]]:
    """What a part of that name may be so that it reaches a store, whatever the route."""
    return {
        "kind": ["job", "storage-share", "storage-occupancy", "pilot", "downtime", "cloud-vm", "host"],
        "field": ["vo", "user", "site", "group", "state", "time", "node"],
        "month": ["2026-01", "2026-02", "2026-03", "1990-01", "2099-12", "9999-12", "0001-01"],
        "number": [*range(1, 8), 2**63 - 1, 0],
        "action": ["replay", "discard", "fix", "move", "change", "void"],
        "id": [*known.records, [*known.records], known.receipt, "00" * 16, "ff" * 16, "0 " * 16],
        "record": [*known.records, "00" * 16, "ff" * 16, "0 " * 16, {"vo": "alpha"}],
        "measures": [
            "count,p90:wall_time",
            "mean:processors,max:end",
            "last:capacity_used",
            "mean:capacity_used",
            "rate:core_time,efficiency,started",
            "capacity_used,mean:capacity_used",
            "records",
        ],
        "by": [
            "vo",
            "user,local_job_id",
            "site.country",
            "user.institute",
            "group",
            "storage,user",
            "state,site,user,group",
        ],
        "where": [
            ["vo=alpha|beta", "user~alpha*"],
            ["site!=SITE-1"],
            ["site~*-1"],
            ["wall_time>=1", "wall_time<=9223372036854775807"],
            ["user!~pseudonym-*"],
            ["user~\\*\\|["],
            ["site=\x00"],
            ["processors=1|2"],
            ["site.country=CH"],
            ["user.institute=I of beta"],
        ],
        "window": ["2026", "2026-Q1", "2026-02", "2026-W09", "2026-03-02", "last-month", "today", "1990", "9999-12"],
        "start": ["1990-01-01", "2026-01-01", "-30d", "2026-03-02T12:00:00+23:59", "2026-03-02T12:00:00.5Z"],
        "end": ["2100-01-01", "now", "2026-03-02T13:00:00Z", "+1d"],
        "width": ["auto", "1h", "1d", "7", "400d", "999999999w", "0"],
        "top": [1, 2, 100_000, -1],
        "attribution": ["by-end", "prorated", "at-instant"],
        "period": ["hour", "day", "week", "month", "quarter", "year", "whole"],
        "as_of": ["closing", "present"],
        "zone": ["Europe/Zurich", "America/St_Johns", "UTC", "../UTC", "Etc/GMT+12", "posixrules", "\x00"],
        "format": ["csv", "arrow", "parquet", "json"],
        "limit": [1, 1000, 10_000, 2**63, -1],
        "after": ["1.LATE.20514.1", "-1.LATE.0.-1", "9223372036854775807.LATE.9223372036854775807.0", 2**63 - 1, 1],
        "after_bucket": ["0", "1", "0.0", "1767225600.1", "9223372036854775807.9223372036854775807", "x"],
        "after_record": [*known.records, "00" * 16, "x"],
        "after_adjustment": ["0-1-0-0-0", "0-1-9-0-0", f"0-{2**63}-0-0-0", "x"],
        "vo": ["alpha", "beta", "*", "all", "\x00"],
        "spreads": [0, 1, -1, 10**6, 2**63],
        "gaps": ["true", "1"],
        "producer": ["storage-of-alpha", "\x00"],
        "state": ["open", "", "discarded", "replayed", "none"],
        "reason": ["missing", "%", "", "x" * 4001, "\x00"],
        "queue": ["monitoring", "ledger", "none"],
        "subject": ["anna", "mallory", "", "x" * 300, "\x00"],
        "token": ["a.b.c", known.token, "x" * 20_000, "\x00"],
        "issuer": ["local", "dteam", "nobody", "https://[", "", "\x00"],
        "to": ["/explore?kind=job", "//evil.example", "https://evil.example", "/\\evil", "\x00", "/é"],
        "name": ["frame.css", "../pages.py", "frame.js", "é"],
        "given": [["wall_time=7"], ["vo=beta"], ["site=\x00"], ["cpu_time="], ["end=2026-03-02T13:00:00Z"]],
        "ids": [list(known.records), ["00" * 16], ["x"]],
        "dry_run": [True, False],
        "anew": [True, False],
        "everywhere": ["true", "false"],
    }
