"""No answer depends on what its reader may not see: with others' records or without them, it is the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import msgspec
import pytest
from examples import JOB, batch_of
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from filled import SHARES, fill, jobs, shares
from good_questions import Known, good_questions, sensible_parts
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from siteward.kinds import load_kinds
from siteward.records import Row, id_text
from siteward.server.app import create_app
from siteward.server.auth import Permission
from siteward.server.auth.access import permissions
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.settings import AccessSettings, AccountingSettings, IssuerSettings, Settings

OURS: Final = "alpha"
SHARED: Final = "all"
THEIRS: Final = "beta"


class Reader(msgspec.Struct, frozen=True):
    """Somebody who sees some of the records.

    Attributes:
        subject: whom the token names.
        grant: the role.
        sees: whether a record is among what is seen.
        view: which installation holds that and nothing else.
    """

    subject: str
    grant: Grant
    sees: Callable[[Any], bool]
    view: str


def _all(_row: Any) -> bool:
    return True


READERS: Final = {
    "reader": Reader("rita", Grant(Role.READER, (OURS,)), _all, "the VO"),
    "reader of what all share": Reader("rita", Grant(Role.READER, (OURS, SHARED)), _all, "the VO"),
    "operator": Reader("olga", Grant(Role.OPERATOR, (OURS,)), _all, "the VO"),
    "accountant": Reader("anna", Grant(Role.ACCOUNTANT, (OURS,)), _all, "the VO"),
    "administrator": Reader("adam", Grant(Role.ADMIN, (OURS,)), _all, "the VO"),
    "reporter": Reader("ce1", Grant(Role.REPORTER, (OURS,)), _all, "the VO"),
    "site operator": Reader(
        "sam", Grant(Role.SITE_OPERATOR, (OURS,), ("SITE-1",)), lambda row: row.site == "SITE-1", "a site"
    ),
    "person": Reader(f"{OURS}-user0", Grant(Role.USER, (OURS,)), lambda row: row.user == f"{OURS}-user0", "a person"),
}
WHOLE: Final = "whole"
"""The view of an installation with everybody's records."""


class World:
    """One installation for each view, with the same people, keys and tokens."""

    def __init__(self, settings: Mapping[str, Settings], opened: ExitStack) -> None:
        self.clients = {
            view: opened.enter_context(TestClient(create_app(each), "http://localhost", follow_redirects=False))
            for view, each in settings.items()
        }
        issuer = LocalIssuer(settings[WHOLE].issuer_file)
        self.headers = {
            name: {"Authorization": f"Bearer {issuer.token(reader.subject, (reader.grant,), 1)}"}
            for name, reader in READERS.items()
        }
        records = [
            id_text(each)
            for kind, rows in ((JOB, [*jobs(THEIRS)[:2], *jobs(OURS)[:2]]), (SHARES, shares(THEIRS)[:1]))
            for each in batch_of(kind, rows).ids
        ]
        known = Known(records=records, receipt=records[0], waiting=(1, 2), applied=1, token="", sent=(), denied="x")
        self.parts = sensible_parts(known)
        good = good_questions(known)
        app: Any = self.clients[WHOLE].app
        self.routes = [
            (route, good[("GET", route.path)])
            for route, permission in permissions(app.router.routes)
            if isinstance(route, APIRoute)
            and "GET" in (route.methods or ())
            and permission is not Permission.PUBLIC
            and route.path != "/openapi.json"
        ]
        self.correction = good["POST", "/v1/accounting/corrections"].body

    def answers(self, name: str, method: str, path: str, **sent: Any) -> list[tuple[int, Any]]:
        """What a reader is told with everybody's records, and with those that they see alone."""
        views = (WHOLE, READERS[name].view)
        found = [self.clients[view].request(method, path, headers=self.headers[name], **sent) for view in views]
        return [(each.status_code, told(each.content)) for each in found]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everybody's records in one installation, and in each other one what some readers see."""
    folder = tmp_path_factory.mktemp("invisible")
    left_out = tuple(name for name in load_kinds() if name not in {JOB.name, SHARES.name})
    by_view: dict[str, Callable[[Row], bool]] = {reader.view: reader.sees for reader in READERS.values()}
    made = {
        view: Settings(
            data=str(folder / view),
            accounting=AccountingSettings(leave_out=left_out),
            access=AccessSettings(pseudonym_key="k" * 32, issuer_file=str(folder / "issuer.json")),
            issuers={"local": IssuerSettings(profile="local")},
        )
        for view in (WHOLE, *by_view)
    }
    fill(made[WHOLE], OURS, THEIRS)
    for view, sees in by_view.items():
        fill(made[view], OURS, is_kept=sees)
    with ExitStack() as opened:
        yield World(made, opened)


UNLIKE: Final = frozenset({"took_ms", "entry", "more", "more_buckets", "more_records"})
"""Members of answers that differ from one installation to another: how long it took, numbers at random, places."""
INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def told(content: bytes) -> Any:
    """An answer without what differs from one moment to the next, or from one installation to the other."""
    try:
        text = INSTANT.sub(_unless_now, content.decode())
        return _without(json.loads(text))
    except ValueError:
        return content


def _unless_now(found: re.Match[str]) -> str:
    # Some questions are of the last thirty days.
    is_now = abs(datetime.fromisoformat(found[0]) - datetime.now(UTC)) < timedelta(days=31)
    return "now" if is_now else found[0]


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(each) for name, each in value.items() if name not in UNLIKE}
    return [_without(each) for each in value] if isinstance(value, list) else value


@st.composite
def questions(draw: st.DrawFn, world: World) -> tuple[str, dict[str, Any]]:
    """A path and parameters: what is answered, with some parts that are others."""
    route, good = draw(st.sampled_from(world.routes))
    path = {name: draw(st.just(value) | st.sampled_from(world.parts[name])) for name, value in good.path.items()}
    query = dict(good.query)
    names = sorted({each.alias for each in route.dependant.query_params} & {*world.parts})
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=4)) if names else ():
        query[name] = draw(st.sampled_from(world.parts[name]))
    if "window" in query and {"start", "end"} & {*query}:
        # Both are refused.
        del query[draw(st.sampled_from(["window", "start"])) if "start" in query else "window"]
    return re.sub(r"\{(\w+)[^}]*\}", lambda found: quote(str(path[found[1]]), safe=""), route.path), query


def test_answers_do_not_depend_on_what_is_invisible(world: World) -> None:
    """Whoever asks whatever of whichever route; over jobs, snapshots, closed months, corrections, dead letters."""
    statuses: Counter[int] = Counter()

    @trying(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(name=st.sampled_from([*READERS]), question=questions(world))
    def asked(name: str, question: tuple[str, dict[str, Any]]) -> None:
        path, query = question
        # Who may read what all share is told how much of all together is under way, as at /metrics.
        assume(path != "/v1/pipeline" or SHARED not in READERS[name].grant.vos)
        whole, seen = world.answers(name, "GET", path, params=query)
        statuses[whole[0]] += 1
        assert whole == seen, (path, query)

    asked()
    assert statuses[200] > statuses.total() / 4, statuses


conditions = st.lists(
    st.sampled_from(["vo=alpha", "vo=alpha|beta", "site=SITE-0", "user~*user0", "user=beta-user1", "wall_time>=1"]),
    max_size=3,
)


def test_what_a_correction_would_change_does_not_depend_on_it_either(world: World) -> None:
    """An accountant is shown figures of the VO, and no refusal tells of another's records."""

    @trying(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(where=conditions, ids=st.lists(st.sampled_from(world.parts["id"][:5]), max_size=2), of=st.sampled_from("wi"))
    def asked(where: list[str], ids: list[str], of: str) -> None:
        parts = {"window": "", "ids": ids} if of == "i" else {"window": "2026-03"}
        body = world.correction | {"where": ["vo=alpha", *where]} | parts | {"dry_run": True}
        whole, seen = world.answers("accountant", "POST", "/v1/accounting/corrections", json=body)
        assert whole == seen

    asked()
