"""Whatever changes anything leaves an entry of the audit, by every route: who, with which token, from what to what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import pytest
from examples import JOB, NOW
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from filled import fill, jobs, letters
from good_questions import CORRECTION, NUMBER, PERIOD, Asked

from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from siteward.envelope import as_json
from siteward.records import Row
from siteward.server.app import create_app
from siteward.server.auth.access import permissions
from siteward.server.auth.auditing import READS
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.server.auth.token_text import read_token
from siteward.settings import IssuerSettings, Settings

SUBJECT: Final = "paula"
OURS: Final = "alpha"
WHOLE: Final = 19
"""The number of the refused record that nothing is wrong with: the store was away."""


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """A call that changes something, and what the audit is to say of it.

    Attributes:
        asked: the call.
        vos: whose it is.
        before: members of what it was; None where there was nothing, since something is added.
        after: members of what it became; None where nothing is left.
        action: what the entry calls it, where that is not method and path.
    """

    asked: Asked
    vos: tuple[str, ...] = (OURS,)
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    action: str = ""


def as_sent(row: Row) -> bytes:
    """A record as programs send it."""
    return as_json(JOB, [getattr(row, name) for name in JOB.names])


def writes(token: str, sent: list[dict[str, Any]]) -> list[tuple[tuple[str, str], Write]]:
    """Each route that changes something, with a call for everything that it does, in an order in which all succeed."""
    closed = {"kind": "job", "vo": OURS}
    month = {"kind": "job", "month": "2026-01"}
    move = {"kind": "job", "action": "move", "given": ["site=LEFT"], "where": [f"vo={OURS}"], "window": "2026-03"}
    letter = "/v1/dead-letters/{number}/{action}"
    mended = json.loads(as_sent(jobs(OURS)[0]))
    denied = {"issuer": "local", "subject": "mallory"}
    return [
        (
            ("POST", CORRECTION),
            Write(
                asked=Asked(body={**move, "reason": "it was another one"}),
                before=None,
                after={"state": "proposed", "reason": "it was another one"},
            ),
        ),
        *(
            (
                ("POST", f"{NUMBER}/{decision}"),
                Write(
                    asked=Asked({"number": number}, body=body),
                    before={"number": number, "state": was},
                    after={"number": number, "state": is_now},
                ),
            )
            for decision, number, body, was, is_now in (
                ("approval", 3, {"anew": True}, "proposed", "applied"),
                ("rejection", 4, {"reason": "no"}, "proposed", "rejected"),
                ("reversal", 1, {"reason": "it was right"}, "applied", "reversed"),
            )
        ),
        (
            ("POST", f"{PERIOD}/closing"),
            Write(
                asked=Asked({"kind": "job", "month": "2026-03"}, body={"vo": OURS}),
                before=None,
                after={**closed, "name": "2026-03", "state": "closed"},
            ),
        ),
        (
            ("POST", f"{PERIOD}/signature"),
            Write(
                asked=Asked(month, body={"vo": OURS}), before={**closed, "state": "closed"}, after={"state": "signed"}
            ),
        ),
        (
            ("POST", f"{PERIOD}/reopening"),
            Write(
                asked=Asked(month, body={"vo": OURS, "reason": "late"}),
                before={**closed, "state": "signed"},
                after={"state": "reopened", "reason": "late"},
            ),
        ),
        *(
            (
                ("POST", letter),
                Write(
                    asked=Asked({"number": number, "action": action}, body={"note": "old", **more}),
                    before={"number": number, "state": "open"},
                    after={"number": number, "state": state},
                ),
            )
            for number, action, more, state in (
                (1, "discard", {}, "discarded"),
                (2, "fix", {"record": mended}, "fixed"),
                (WHOLE, "replay", {}, "replayed"),
            )
        ),
        (
            ("POST", "/v1/denied"),
            Write(
                asked=Asked(body={**denied, "reason": "a key was stolen"}),
                vos=(),
                before=None,
                after={"subject": "mallory", "reason": "a key was stolen"},
            ),
        ),
        (
            ("DELETE", "/v1/denied"),
            Write(
                asked=Asked(query=denied),
                vos=(),
                before={"subject": "mallory", "reason": "a key was stolen"},
                after=None,
            ),
        ),
        (
            ("POST", "/v1/records/{kind}"),
            Write(
                asked=Asked({"kind": "job"}, body=sent),
                before=None,
                after={"kind": "job", "queued": {OURS: len(sent)}, "rejected": 0},
            ),
        ),
        (
            ("POST", "/v1/session"),
            Write(
                asked=Asked(body={"token": token}),
                vos=(),
                before={"sessions": 0},
                after={"sessions": 1},
                action="log in",
            ),
        ),
        (
            ("DELETE", "/v1/session"),
            Write(
                asked=Asked(query={"everywhere": "true"}),
                vos=(),
                before={"sessions": 1},
                after={"sessions": 0, "everywhere": True},
            ),
        ),
    ]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An installation with something of everything, asked by one of the platform's."""
    own = Settings(data=str(tmp_path_factory.mktemp("noted")), issuers={"local": IssuerSettings(profile="local")})
    fill(own, OURS, "beta", waiting=2)
    with DeadLetters(database_path(own)) as dead:
        (letter,) = letters(OURS, 1)
        dead.put([msgspec.structs.replace(letter, record=bytes(16), original=as_sent(jobs(OURS)[1]))], NOW)
        assert dead.find()[-1].number == WHOLE
    grants = (Grant(Role.PLATFORM_ADMIN, (EVERY,)),)
    token = LocalIssuer(own.issuer_file).token(SUBJECT, grants, 1)
    app = create_app(own)
    with TestClient(app, "http://localhost", headers={"Authorization": f"Bearer {token}"}) as opened:
        yield opened
    app.state.resources.close()


def test_every_route_that_changes_something_leaves_an_entry(client: TestClient) -> None:
    """With subject, issuer and token, whose it is, what it was and what it became; no route is without a call here."""
    token = client.headers["Authorization"].removeprefix("Bearer ")
    claims = read_token(token).claims
    sent = [json.loads(as_sent(row)) for row in jobs(OURS, (3,))[:3]]
    calls = writes(token, sent)
    app: Any = client.app
    routes = {
        (method, route.path)
        for route, _ in permissions(app.router.routes)
        if isinstance(route, APIRoute)
        for method in (route.methods or set()) - READS
    }
    described = client.get("/openapi.json").json()["paths"]
    in_openapi = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert {each for each in in_openapi if each[0] not in READS} <= routes
    assert {route for route, _ in calls} == routes
    audit = app.state.resources.audit
    for (method, path), write in calls:
        (last, *_) = audit.find(limit=1)
        asked = write.asked
        at = path.format(**asked.path)
        answer = client.request(method, at, params=dict(asked.query), json=asked.body)
        assert answer.status_code == asked.answer, (at, answer.text)
        found = [each for each in audit.find() if each.number > last.number]
        entry = found[0]
        assert (entry.subject, entry.issuer, entry.token) == (SUBJECT, claims["iss"], claims["jti"]), at
        assert entry.action == (write.action or f"{method} {at}")
        assert entry.outcome in {str(asked.answer), "done"}, at
        assert entry.vos == write.vos, at
        for state, wanted in ((entry.before, write.before), (entry.after, write.after)):
            assert (state is None) == (wanted is None), (at, entry)
            assert {name: state[name] for name in wanted or ()} == (wanted or {}), at
        # It was noted before it was done, too, but for records, of whom one knows only then.
        is_once = path.startswith("/v1/records")
        assert [each.outcome for each in found[1:]] == ([] if is_once else ["asked"]), at
    assert audit.verify().wrong is None
