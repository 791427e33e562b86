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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import JOB, batch_of
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from filled import OCCUPANCY, SHARES, fill, jobs, occupancies, shares
from good_questions import MARCH, Known, good_questions, sensible_parts
from hypothesis import given
from hypothesis import strategies as st
from installed import Stores
from searching import search
from starlette.routing import BaseRoute

from siteward import sight
from siteward.kinds import load_kinds
from siteward.records import Row, id_text
from siteward.server import seen as eyes
from siteward.server.app import create_app
from siteward.server.auth import Permission
from siteward.server.auth.access import permissions
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.server.auth.viewing import VO_HEADER
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
        asks: the VO that is asked, for whoever sees several.
        beyond: routes by which it rightly sees what is of all together.
    """

    subject: str
    grant: Grant
    sees: Callable[[Any], bool]
    view: str
    asks: str = ""
    beyond: frozenset[str] = frozenset()


def _of_vo(row: Any) -> bool:
    """What all share is everybody's."""
    return row.vo in {OURS, SHARED}


def _of_vo_with_names(row: Any) -> bool:
    """Whoever may know a VO's people is not shown those of others: of what all share, records that name nobody."""
    return row.vo == OURS or (row.vo == SHARED and not hasattr(row, "user"))


def _of_site(row: Any) -> bool:
    return _of_vo(row) and row.site == "SITE-1"


def _of_person(row: Any) -> bool:
    return getattr(row, "user", "") == f"{OURS}-user0"


WATCHED: Final = frozenset({"/metrics", "/v1/pipeline"})
"""How much of all together is under way is told to who may watch the platform."""
OPEN: Final = _of_vo, "a VO"
NAMED: Final = _of_vo_with_names, "a VO with names"
READERS: Final = {
    "reader": Reader("rita", Grant(Role.READER, (OURS,)), *OPEN),
    "reader of what all share": Reader("rita", Grant(Role.READER, (OURS, SHARED)), *OPEN, beyond=WATCHED),
    "reader of both who asks one": Reader("rob", Grant(Role.READER, (OURS, THEIRS)), *OPEN, OURS),
    "operator": Reader("olga", Grant(Role.OPERATOR, (OURS,)), *OPEN),
    "accountant": Reader("anna", Grant(Role.ACCOUNTANT, (OURS,)), *NAMED),
    "administrator": Reader("adam", Grant(Role.ADMIN, (OURS,)), *NAMED),
    "the platform at one": Reader("pia", Grant(Role.PLATFORM_ADMIN, (EVERY,)), *NAMED, OURS, WATCHED | {"/v1/audit"}),
    "reporter": Reader(f"ce of {OURS}", Grant(Role.REPORTER, (OURS,)), *OPEN),
    "site operator": Reader("sam", Grant(Role.SITE_OPERATOR, (OURS,), ("SITE-1",)), _of_site, "a site"),
    "person": Reader(f"{OURS}-user0", Grant(Role.USER, (OURS,)), _of_person, "a person"),
}
WHOLE: Final = "whole"
"""The view of an installation with everybody's records."""
DESCRIPTION: Final = "/openapi.json"
"""The one route that tells of routes."""
OF_ALL: Final = frozenset({"/v1/accounting/completeness", "/metrics"})
"""What is told of all VOs together, or not at all."""
FEW_PEOPLE: Final = 3
"""People of each VO."""
EXAMPLES: Final = 250
"""Questions of one search."""


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
            | ({VO_HEADER: reader.asks} if reader.asks else {})
            for name, reader in READERS.items()
        }
        records = [
            id_text(each)
            for kind, rows in (
                (JOB, [*jobs(THEIRS)[:2], *jobs(OURS)[:2], *jobs(SHARED)[:1]]),
                (SHARES, shares(THEIRS)[:1]),
                (OCCUPANCY, [occupancies(each)[0] for each in (THEIRS, SHARED)]),
            )
            for each in batch_of(kind, rows).ids
        ]
        known = Known(records=records, receipt=records[2], waiting=(1, 2), applied=1, token="", sent=(), denied="x")
        self.parts = sensible_parts(known)
        good = good_questions(known)
        app: Any = self.clients[WHOLE].app
        declared = [(_described(route), permission) for route, permission in permissions(app.router.routes)]
        asked = [(route, permission) for route, permission in declared if "GET" in (route.methods or ())]
        self.routes = [
            (route, good["GET", route.path])
            for route, permission in asked
            if permission is not Permission.PUBLIC and route.path != DESCRIPTION
        ]
        public = {route.path for route, permission in asked if permission is Permission.PUBLIC}
        described = {path for path, methods in app.openapi()["paths"].items() if "get" in methods}
        assert described - public - {DESCRIPTION} <= {route.path for route, _ in self.routes}
        self.correction = good["POST", "/v1/accounting/corrections"].body

    def answers(self, name: str, method: str, path: str, **sent: Any) -> list[tuple[int, Any]]:
        """What a reader is told with everybody's records, and with those that they see alone."""
        views = (WHOLE, READERS[name].view)
        found = [self.clients[view].request(method, path, headers=self.headers[name], **sent) for view in views]
        assert all(each.status_code < 500 for each in found), (path, sent, [each.text for each in found])
        return [(each.status_code, told(each.content, path)) for each in found]


def _described(route: BaseRoute) -> APIRoute:
    """A route whose parts are known: what could be asked of another one, nobody could tell."""
    assert isinstance(route, APIRoute)
    return route


@pytest.fixture(scope="module")
def world(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everybody's records in one installation, and in each other one what some readers see."""
    folder = tmp_path_factory.mktemp("invisible")
    left_out = tuple(name for name in load_kinds() if name not in {JOB.name, SHARES.name, OCCUPANCY.name})
    by_view: dict[str, Callable[[Row], bool]] = {reader.view: reader.sees for reader in READERS.values()}
    made = {
        view: stores.of(
            Settings(
                data=str(folder / view),
                accounting=AccountingSettings(leave_out=left_out),
                access=AccessSettings(pseudonym_key="k" * 32, issuer_file=str(folder / "issuer.json")),
                issuers={"local": IssuerSettings(profile="local")},
            )
        )
        for view in (WHOLE, *by_view)
    }
    fill(made[WHOLE], OURS, THEIRS, beside=[SHARED])
    for view, sees in by_view.items():
        fill(made[view], OURS, beside=[SHARED], is_kept=sees)
    stores.show()
    with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
        for module in (sight, eyes):
            # A pattern looks through one's own people, and whether they are too many does not tell of others.
            patch.setattr(module, "MOST_PEOPLE", FEW_PEOPLE)
        yield World(made, opened)


UNLIKE: Final = frozenset({"took_ms", "entry", "more", "more_buckets", "more_records"})
"""Members of answers that differ from one installation to another: how long it took, numbers at random, places."""
OF_AUDIT: Final = frozenset({"number", "of", "at"})
"""The same of the audit's: its entries are numbered whosever they are."""
INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def told(content: bytes, path: str) -> Any:
    """An answer without what differs from one moment to the next, or from one installation to the other."""
    unlike = UNLIKE | OF_AUDIT if path == "/v1/audit" else UNLIKE
    text = INSTANT.sub(_unless_now, _table_text(content) or content.decode())
    try:
        return _without(json.loads(text), unlike)
    except ValueError:
        return text  # CSV, Prometheus' own form.


def _table_text(content: bytes) -> str:
    """All that an Arrow stream or a Parquet file says, as JSON; "" where it is neither."""
    if content.startswith(b"PAR1"):
        table = pq.read_table(pa.BufferReader(content))
    elif content.startswith(b"\xff\xff\xff\xff"):
        table = pa.ipc.open_stream(content).read_all()
    else:
        return ""
    fields = table.schema.to_string(show_field_metadata=True, show_schema_metadata=False)
    named = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    return json.dumps({"fields": fields, "metadata": named, "rows": table.to_pylist()}, default=_as_text)


def _as_text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def _unless_now(found: re.Match[str]) -> str:
    # Some questions are of the last thirty days.
    is_now = abs(datetime.fromisoformat(found[0]) - datetime.now(UTC)) < timedelta(days=31)
    return "now" if is_now else found[0]


def _without(value: Any, unlike: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(each, unlike) for name, each in value.items() if name not in unlike}
    return [_without(each, unlike) for each in value] if isinstance(value, list) else value


def _path(route: APIRoute, parts: Mapping[str, Any]) -> str:
    return re.sub(r"\{(\w+)[^}]*\}", lambda found: quote(str(parts[found[1]]), safe=""), route.path)


@st.composite
def questions(draw: st.DrawFn, world: World) -> tuple[str, str, dict[str, Any]]:
    """Who asks, a path, and parameters: what is answered, with some parts that are others."""
    name = draw(st.sampled_from([*READERS]))
    route, good = draw(st.sampled_from([each for each in world.routes if each[0].path not in READERS[name].beyond]))
    path = {part: draw(st.just(value) | st.sampled_from(world.parts[part])) for part, value in good.path.items()}
    query = dict(good.query)
    parts = sorted({each.alias for each in route.dependant.query_params} & {*world.parts})
    for part in draw(st.lists(st.sampled_from(parts), unique=True, max_size=4)) if parts else ():
        query[part] = draw(st.sampled_from(world.parts[part]))
    if "record" in query:
        # Nothing else is asked then.
        query = {"record": query["record"]}
    if "window" in query and {"start", "end"} & {*query}:
        # Both are refused.
        del query[draw(st.sampled_from(["window", "start"])) if "start" in query else "window"]
    return name, _path(route, path), query


@pytest.mark.searched
def test_answers_do_not_depend_on_what_is_invisible(world: World) -> None:
    """Whoever asks whatever of whichever route; over jobs, snapshots, closed months, corrections, dead letters."""
    statuses: Counter[int] = Counter()

    @search(EXAMPLES)
    @given(question=questions(world))
    def asked(question: tuple[str, str, dict[str, Any]]) -> None:
        name, path, query = question
        whole, seen = world.answers(name, "GET", path, params=query)
        statuses[whole[0]] += 1
        assert whole == seen, (path, query)

    asked()
    assert statuses[200] > statuses.total() / 4, statuses


def _curious(world: World, route: APIRoute, good: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is answered, and what would betray others if it were."""
    yield good
    parts = {each.alias for each in route.dependant.query_params}
    theirs = world.parts["id"][0]
    if "where" in parts:
        yield from (dict(good) | {"where": where} for where in (f"vo={THEIRS}", f"vo!={OURS}", "user~*"))
    yield from (dict(good) | {"vo": vo} for vo in (THEIRS, SHARED, EVERY) if "vo" in parts)
    yield from ({str(name): theirs} for name in ("id", "record") if name in parts)


@pytest.mark.parametrize("name", READERS)
def test_every_route_is_asked_by_everybody(world: World, name: str) -> None:
    """With a good question, and with every part that could betray others' records."""
    for route, good in world.routes:
        if route.path in READERS[name].beyond:
            continue
        path = _path(route, good.path)
        for query in _curious(world, route, good.query):
            whole, seen = world.answers(name, "GET", path, params=query)
            assert whole == seen, (path, query)


@pytest.mark.parametrize("name", ["administrator", "the platform at one"])
def test_a_text_that_no_database_keeps_is_refused(world: World, name: str) -> None:
    """PostgreSQL takes no NUL: as a condition it is a mistake of whoever asks, and no reason to ask again later."""
    for route, good in world.routes:
        for part in [each.alias for each in route.dependant.query_params]:
            query = dict(good.query) | {part: "\0"}
            statuses = {status for status, _ in world.answers(name, "GET", _path(route, good.path), params=query)}
            assert statuses <= {400, 403, 422}, (route.path, query, statuses)


def test_cycles_of_others_that_came_in_part_are_not_told(world: World) -> None:
    """Not even their number: a cycle of which one sees nothing is nobody's concern."""
    query = {"kind": SHARES.name, "measures": "last:capacity_used", **MARCH}
    whole, seen = world.answers("reader", "GET", "/v1/query", params=query)
    assert whole == seen
    assert (whole[0], whole[1]["incomplete"]) == (200, None)


def test_every_route_answers_somebody(world: World) -> None:
    """Who sees one VO, but for what is told of all together: else what is said above was said of refusals."""
    answering = {
        route.path
        for route, good in world.routes
        for name in READERS
        if route.path not in READERS[name].beyond
        if world.answers(name, "GET", _path(route, good.path), params=good.query)[0][0] == 200
    }
    assert {route.path for route, _ in world.routes} - answering == OF_ALL


conditions = st.lists(
    st.sampled_from(["vo=alpha", "vo=alpha|beta", "site=SITE-0", "user~*user0", "user=beta-user1", "wall_time>=1"]),
    max_size=3,
)


@pytest.mark.searched
def test_what_a_correction_would_change_does_not_depend_on_it_either(world: World) -> None:
    """An accountant is shown figures of the VO, and no refusal tells of another's records."""

    @search(40)
    @given(
        whose=st.sampled_from([["vo=alpha"], ["vo=alpha"], ["vo=beta"], ["vo~*"], []]),
        where=conditions,
        ids=st.lists(st.sampled_from(world.parts["id"][:5]), max_size=2),
        of=st.sampled_from("wi"),
    )
    def asked(whose: list[str], where: list[str], ids: list[str], of: str) -> None:
        parts = {"window": "", "ids": ids} if of == "i" else {"window": "2026-03"}
        body = world.correction | {"where": [*whose, *where]} | parts | {"dry_run": True}
        whole, seen = world.answers("accountant", "POST", "/v1/accounting/corrections", json=body)
        assert whole == seen

    asked()
