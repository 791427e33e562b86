"""A VO sees what is its own: no route tells a reader of one VO anything of another's records, in whichever store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final
from urllib.parse import quote

import pytest
from collected import collected
from examples import JOB, NOON, NOW, batch_of, job
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from installed import Stores

from accounting.opening import open_ledger
from siteward.kinds import load_kinds
from siteward.records import Dimension, id_text
from siteward.server.app import create_app
from siteward.server.auth import Permission
from siteward.server.auth.access import permissions
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.resources import Resources
from siteward.settings import IssuerSettings, Settings

MARK: Final = "secretly"
"""Stands in every text of the other VO's records, and nowhere else."""
TEXTS: Final = ("site", "user", "group", "submit_host", "local_job_id", "cluster", "node")
WINDOW: Final = (
    f"start={quote((NOON - timedelta(days=1)).isoformat())}&end={quote((NOON + timedelta(days=1)).isoformat())}"
)
OURS: Final = [JOB.row_of(job(number, vo="alpha", wall_time=60), NOW) for number in range(7)]
THEIRS: Final = [
    JOB.row_of(job(number, vo="beta", wall_time=86_000, **{name: f"{MARK}-{name}-{number}" for name in TEXTS}), NOW)
    for number in range(5)
]


@pytest.fixture(scope="module")
def settings(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of an installation with both VOs' records in both stores, whichever they are."""
    folder = tmp_path_factory.mktemp("isolation")
    made = stores.of(Settings(data=str(folder), issuers={"local": IssuerSettings(profile="local")}))
    kinds = load_kinds()
    ledger, resources = open_ledger(made, kinds), Resources(made)
    for rows in (OURS, THEIRS):
        batch = collected(batch_of(JOB, rows), made)
        ledger.write(batch)
        resources.store.write(batch)  # type: ignore[attr-defined]  # every store has it.
    ledger.close()
    resources.close()
    stores.show()
    return made


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    """The whole app."""
    return create_app(settings)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A caller without a token."""
    with TestClient(app, "http://localhost") as opened:
        yield opened


def bearer(settings: Settings, *grants: Grant) -> dict[str, str]:
    """A token with these roles."""
    return {"Authorization": f"Bearer {LocalIssuer(settings.issuer_file).token('anna', grants, 1)}"}


def asked(path: str) -> list[str]:
    """Every question that is worth asking of a route."""
    dimensions = [column.name for column in JOB.dimensions]
    bucketed = [each.name for each in JOB.dimensions if isinstance(each.role, Dimension) and each.role.bucketed]
    ids = [id_text(each) for each in batch_of(JOB, THEIRS).ids]
    match path:
        case "/v1/query":
            by = [f"by={name}" for name in dimensions]
            where = [f"where={quote(f'{name}~{MARK[:6]}*')}" for name in TEXTS] + [
                "where=vo%3Dbeta",
                "where=vo%21%3Dalpha",
            ]
            return [f"{path}?kind=job&measures=count,sum:wall_time,max:wall_time&{WINDOW}&{one}" for one in by + where]
        case "/v1/values/{kind}/{field}":
            return [f"/v1/values/job/{name}" for name in dimensions]
        case "/v1/records/{kind}":
            return ["/v1/records/job", *(f"/v1/records/job?id={each}" for each in ids)]
        case "/v1/accounting/usage":
            forms = [f"by={name}&period=day" for name in bucketed] + [
                "where=vo%3Dbeta",
                "top=1&by=site",
                "by=site.country",
            ]
            return [f"{path}?kind=job&measures=wall_time,records&{WINDOW}&{form}" for form in forms]
        case "/v1/accounting/trace":
            return [f"{path}?kind=job&{WINDOW}", *(f"{path}?record={each}" for each in ids)]
        case _:
            parts = {"kind": "job", "field": "site", "id": ids[0], "number": "1", "version": "x", "name": "frame.css"}
            return [re.sub(r"\{(\w+)[^}]*\}", lambda found: parts.get(found[1], "x"), path)]


READERS: Final = {
    "reader": Grant(Role.READER, ("alpha",)),
    "reader of what all share": Grant(Role.READER, ("alpha", "all")),
    "user": Grant(Role.USER, ("alpha",)),
    "operator": Grant(Role.OPERATOR, ("alpha",)),
    "accountant": Grant(Role.ACCOUNTANT, ("alpha",)),
    "admin": Grant(Role.ADMIN, ("alpha",)),
    "site operator": Grant(Role.SITE_OPERATOR, ("alpha",), ("SITE-1",)),
}


@pytest.mark.parametrize("name", READERS)
def test_no_route_tells_a_reader_of_another_vos_records(
    app: FastAPI, client: TestClient, settings: Settings, name: str
) -> None:
    """Walked over all routes that answer, with every dimension, filter and id that could betray them."""
    headers = bearer(settings, READERS[name])
    answers = 0
    for route, _ in permissions(app.router.routes):
        assert isinstance(route, APIRoute)
        if "GET" not in (route.methods or ()):
            continue
        for question in asked(route.path):
            answer = client.get(question, headers=headers)
            # A store that does not answer tells nothing of what it would.
            expected = {200, 400, 403, 404, 422, *([503] if question == "/health/ready" else [])}
            assert answer.status_code in expected, (question, answer.text)
            assert MARK not in answer.text, question
            assert "86000" not in answer.text, question
            answers += answer.status_code == 200
    assert answers > 20


def test_who_may_see_both_does(client: TestClient, settings: Settings) -> None:
    """The marks are found where they may be: else the test above would pass on empty stores."""
    headers = bearer(settings, Grant(Role.PLATFORM_ADMIN, ("*",))) | {"Siteward-VO": "*"}
    for path in ("/v1/query", "/v1/values/{kind}/{field}", "/v1/records/{kind}", "/v1/accounting/usage"):
        assert any(MARK in client.get(question, headers=headers).text for question in asked(path)), path


def test_who_looks_as_the_platform_is_noted(app: FastAPI, client: TestClient, settings: Settings) -> None:
    """At every VO, for which it has to be said, or at one after the other: with path and question, and nobody's name.

    Once an hour for each path and VO; who has a role in the VO itself is not.
    """

    def token(*grants: Grant) -> dict[str, str]:
        return {"Authorization": f"Bearer {LocalIssuer(settings.issuer_file).token('olga', grants, 1)}"}

    platform, of_alpha = Grant(Role.PLATFORM_ADMIN, ("*",)), Grant(Role.ACCOUNTANT, ("alpha",))
    headers = token(platform)
    question = f"/v1/query?kind=job&measures=count&where=user%3Djane&where=site%3DSITE-1&{WINDOW}"
    usage = f"/v1/accounting/usage?kind=job&measures=records&{WINDOW}"

    def notes() -> list[tuple[str, tuple[str, ...]]]:
        found = [each for each in app.state.resources.audit.find(subject="olga") if each.outcome == "seen"]
        assert "jane" not in str(found)
        return [(each.action, each.vos) for each in reversed(found)]

    for path in (question, usage):
        refused = client.get(path, headers=headers)
        assert (refused.status_code, "or * for all, which is noted" in refused.json()["detail"]) == (400, True)
    assert notes() == []
    for path in (question, usage, question):
        assert client.get(path, headers=headers | {"Siteward-VO": "*"}).status_code == 200
    assert notes() == [("GET /v1/query", ("*",)), ("GET /v1/accounting/usage", ("*",))]
    said = app.state.resources.audit.find(subject="olga", action="GET /v1/query")[0].after["query"]
    assert ["where", "user=hidden"] in said
    assert ["where", "site=SITE-1"] in said
    for vo in ("alpha", "beta", "alpha"):
        assert client.get(question, headers=headers | {"Siteward-VO": vo}).status_code == 200
    assert notes()[2:] == [("GET /v1/query", ("alpha",)), ("GET /v1/query", ("beta",))]
    # A role of one's own shows all of it that the platform's would.
    assert client.get(usage, headers=token(platform, of_alpha) | {"Siteward-VO": "alpha"}).status_code == 200
    assert len(notes()) == 4
    weaker = token(platform, Grant(Role.READER, ("alpha",)))
    assert client.get(usage, headers=weaker | {"Siteward-VO": "alpha"}).status_code == 200
    assert notes()[4:] == [("GET /v1/accounting/usage", ("alpha",))]
    reader = token(Grant(Role.READER, ("alpha",))) | {"Siteward-VO": "*"}
    assert client.get(f"/v1/query?kind=job&measures=count&{WINDOW}", headers=reader).json()["totals"] == [len(OURS)]
    assert len(notes()) == 5
    for path in ("/v1/dead-letters", "/v1/audit", "/v1/accounting/completeness", "/v1/accounting/corrections"):
        assert client.get(path, headers=headers).status_code == 400, path
        assert client.get(path, headers=headers | {"Siteward-VO": "*"}).status_code == 200, path
    assert {action for action, vos in notes()[5:] if vos == ("*",)} >= {"GET /v1/dead-letters", "GET /v1/audit"}


def test_openapi_tells_which_routes_ask_for_a_vo(app: FastAPI, client: TestClient, settings: Settings) -> None:
    """Those that answer the platform's people only once they have said which one, and no others."""
    headers = bearer(settings, Grant(Role.PLATFORM_ADMIN, ("*",)))
    described = client.get("/openapi.json", headers=headers).json()["paths"]
    declaring = {
        path
        for path, methods in described.items()
        if any(each["name"] == "Siteward-VO" for each in methods.get("get", {}).get("parameters", ()))
    }
    asking = {
        route.path
        for route, permission in permissions(app.router.routes)
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()) and permission is not Permission.PUBLIC
        if any(
            answer.status_code == 400 and "Siteward-VO" in answer.text
            for answer in (client.get(question, headers=headers) for question in asked(route.path))
        )
    }
    # What of the first two is asked here is refused for other reasons first; who names none sees their own receipts.
    assert declaring - asking <= {
        "/v1/accounting/completeness",
        "/v1/accounting/periods/{kind}/{month}/adjustments",
        "/v1/receipts/{id}",
    }
    assert asking <= declaring
    assert len(asking) > 5


def test_whoami_says_which_vos_may_be_asked(client: TestClient, settings: Settings) -> None:
    """All at once only where that is one answer, and for the platform's people noted."""

    def reads(*grants: Grant) -> object:
        return client.get("/v1/whoami", headers=bearer(settings, *grants)).json()["reads"]

    both = ("alpha", "beta")
    assert reads(Grant(Role.READER, both)) == {"vos": ["alpha", "beta"], "all": True, "noted": False}
    mixed = Grant(Role.READER, ("beta",)), Grant(Role.ACCOUNTANT, ("alpha",))
    assert reads(*mixed) == {"vos": ["alpha", "beta"], "all": False, "noted": False}
    assert reads(Grant(Role.PLATFORM_ADMIN, ("*",))) == {"vos": [], "all": True, "noted": True}
    assert reads(Grant(Role.REPORTER, ("alpha",))) == {"vos": [], "all": False, "noted": False}


def test_looks_at_the_platforms_own_figures_are_noted(app: FastAPI, client: TestClient, settings: Settings) -> None:
    """At what changed in VOs of which one is no admin, and at figures that name producers of any VO."""

    def token(*grants: Grant) -> dict[str, str]:
        return {"Authorization": f"Bearer {LocalIssuer(settings.issuer_file).token('pia', grants, 1)}"}

    def notes() -> list[tuple[str, tuple[str, ...]]]:
        found = app.state.resources.audit.find(subject="pia")
        return [(each.action, each.vos) for each in reversed(found) if each.outcome == "seen"]

    platform, of_alpha = Grant(Role.PLATFORM_ADMIN, ("*",)), Grant(Role.ADMIN, ("alpha",))
    for headers, path in (
        (token(of_alpha), "/v1/audit?vo=alpha"),
        (token(platform, of_alpha), "/v1/audit?vo=alpha"),
        (token(Grant(Role.READER, ("all",))), "/metrics"),
    ):
        assert client.get(path, headers=headers).status_code == 200
    assert notes() == []
    every = {"Siteward-VO": "*"}
    for path, header in (("/v1/audit", every), ("/v1/audit", every), ("/v1/audit?vo=beta", {}), ("/metrics", {})):
        assert client.get(path, headers=token(platform) | header).status_code == 200
    assert notes() == [("GET /v1/audit", ("*",)), ("GET /v1/audit", ("beta",)), ("GET /metrics", ("*",))]


def test_totals_are_of_ones_own_records(client: TestClient, settings: Settings) -> None:
    """In both stores; nothing of the other VO is counted, and nothing of one's own is missing."""
    headers = bearer(settings, READERS["reader"])
    live = client.get(f"/v1/query?kind=job&measures=count,sum:wall_time&{WINDOW}", headers=headers).json()
    assert live["totals"] == [len(OURS), 60 * len(OURS)]
    booked = client.get(f"/v1/accounting/usage?kind=job&measures=records,wall_time&{WINDOW}", headers=headers).json()
    assert booked["totals"] == [len(OURS), 60 * len(OURS)]


def test_a_reader_of_several_vos_sees_them_together_or_one(client: TestClient, settings: Settings) -> None:
    """By a header; one that may not be read is refused, and different rights are never mixed in silence."""
    both = bearer(settings, Grant(Role.READER, ("alpha", "beta")))
    question = f"/v1/query?kind=job&measures=count&{WINDOW}"
    assert client.get(question, headers=both).json()["totals"] == [12]
    assert client.get(question, headers=both | {"Siteward-VO": "beta"}).json()["totals"] == [5]
    assert client.get(question, headers=both | {"Siteward-VO": "gamma"}).status_code == 403
    mixed = bearer(settings, Grant(Role.READER, ("alpha",)), Grant(Role.USER, ("beta",)))
    refused = client.get(question, headers=mixed)
    assert refused.status_code == 400
    assert "Siteward-VO" in refused.json()["detail"]
    assert client.get(question, headers=mixed | {"Siteward-VO": "alpha"}).json()["totals"] == [7]


def test_names_are_for_those_who_may_see_them(client: TestClient, settings: Settings) -> None:
    """A reader sees pseudonyms, an accountant names; the same figures."""
    question = f"/v1/query?kind=job&measures=count&by=user&{WINDOW}"
    named = client.get(question, headers=bearer(settings, READERS["accountant"])).json()
    hidden = client.get(question, headers=bearer(settings, READERS["reader"])).json()
    assert {row["group"][0] for row in named["rows"]} == {f"user{number}" for number in range(7)}
    assert all(row["group"][0].startswith("pseudonym-") for row in hidden["rows"])
    assert hidden["totals"] == named["totals"]
