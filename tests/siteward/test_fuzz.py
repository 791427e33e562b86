"""Whatever is sent to whatever route, by whomever: never the server's own error, and no route is asked in vain."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import pytest
import schemathesis
from examples import JOB, batch_of
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from filled import fill, jobs
from good_questions import Known, good_questions, sensible_parts
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from oidc_server import CLIENT, OidcServer, oidc_server
from schemathesis.core import NOT_SET
from schemathesis.core.result import Ok
from starlette.types import Receive, Scope, Send

from siteward.envelope import as_json
from siteward.records import Row, id_text
from siteward.server import health
from siteward.server.app import create_app
from siteward.server.auth.cookies import LOGIN, SESSION
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.settings import GrantSettings, IssuerSettings, Settings

UNAVAILABLE: Final = 503
"""An answer, where a store is away."""
MODES: Final = {schemathesis.GenerationMode.POSITIVE: 12, schemathesis.GenerationMode.NEGATIVE: 4}
"""How often each operation is asked what its description allows, and what it does not."""
few = settings(
    # What fails has few parts that are not good: it needs no shrinking.
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
CALLERS: Final[Mapping[str, tuple[Grant, ...]]] = {
    "the platform": (Grant(Role.PLATFORM_ADMIN, (EVERY,)),),
    "a reader": (Grant(Role.READER, ("alpha",)),),
    "a person": (Grant(Role.USER, ("alpha",)),),
    "an accountant": (Grant(Role.ACCOUNTANT, ("alpha",)),),
    "a reporter": (Grant(Role.REPORTER, ("alpha",)),),
    "a site": (Grant(Role.SITE_OPERATOR, ("alpha",), ("SITE-1",)),),
    "nobody": (),
}
"""Whoever asks."""
PLATFORM: Final = next(iter(CALLERS))
"""Who may do most."""
ASKING: Final = [PLATFORM, PLATFORM, PLATFORM, *CALLERS]
"""Most questions are asked by who is not refused at the door."""
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
half = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
"""Half characters, which JSON can say and UTF-8 cannot."""


class Installation:
    """One that is asked, whose every route is described."""

    def __init__(self, own: Settings, app: FastAPI, known: Known) -> None:
        self.app = app

        async def lasting(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                # Schemathesis would end it with each test, and with it what all tests ask.
                raise NotImplementedError
            await app(scope, receive, send)

        self.schema = schemathesis.openapi.from_asgi("/openapi.json", lasting, headers=headers_of(own, "the platform"))
        self.good = good_questions(known)
        self.parts = sensible_parts(known)
        self.headers = {caller: headers_of(own, caller) for caller in CALLERS}
        # Whoever logs out everywhere has no token any more.
        self.leaving = {caller: headers_of(own, caller, f"{caller} who leaves") for caller in CALLERS}
        self.statuses: Counter[int] = Counter()

    def ask(self, case: Any, body: object, caller: str) -> int:
        """The status of the answer to a caller's question; a body of our own takes the place of a generated one."""
        ours = {} if body is None else {"data": json.dumps(body).encode()}
        known = self.leaving if case.formatted_path == "/v1/session" else self.headers
        headers = known[caller] | ({} if body is None else {"Content-Type": "application/json"})
        answer = case.call(headers=headers, allow_redirects=False, **ours)
        status: int = answer.status_code
        self.statuses[status] += 1
        asked = (case.method, case.formatted_path, case.query, body, caller)
        assert status < 500 or status == UNAVAILABLE, (*asked, answer.text)
        return status


def headers_of(own: Settings, caller: str, subject: str = "") -> dict[str, str]:
    """What somebody sends with each request."""
    if not CALLERS[caller]:
        return {"Host": "localhost"}
    token = LocalIssuer(own.issuer_file).token(subject or caller, CALLERS[caller], 1)
    return {
        "Host": "localhost",
        "Authorization": f"Bearer {token}",
        "Siteward-VO": "*" if caller == PLATFORM else "alpha",
    }


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcServer]:
    """Where people log in."""
    with oidc_server() as server:
        yield server


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, issuer: OidcServer) -> Iterator[Installation]:
    """One with something of everything in it."""
    dteam = issuer.issuer.settings(GrantSettings(when="group:/dteam", role="reader"), client=CLIENT)
    own = Settings(
        data=str(tmp_path_factory.mktemp("fuzz")), issuers={"local": IssuerSettings(profile="local"), "dteam": dteam}
    )
    fill(own, "alpha", "beta", waiting=4)
    app = create_app(own)
    for route in app.router.routes:
        # Described or not, it is asked.
        assert isinstance(route, APIRoute)
        route.include_in_schema = True
    headers = headers_of(own, PLATFORM)
    client = TestClient(app, "http://localhost")
    sent = [as_sent(row) for row in jobs("alpha", (3,), local_job_id="sent", node="n1")[:3]]
    receipt = client.post("/v1/records/job", json=sent, headers=headers).json()["records"][0]["id"]
    denied = {"issuer": "local", "subject": "somebody", "reason": "why"}
    assert client.post("/v1/denied", json=denied, headers=headers).status_code == 200
    with pytest.MonkeyPatch.context() as patch:
        # However busy this machine is: it is asked whether it is ready, not how soon.
        patch.setattr(health, "TURN_SECONDS", 60.0)
        yield Installation(
            own,
            app,
            Known(
                records=[id_text(each) for each in batch_of(JOB, jobs("alpha")).ids[:3]],
                receipt=receipt,
                waiting=range(3, 7),
                applied=1,
                token=headers["Authorization"].removeprefix("Bearer "),
                sent=sent,
                denied="somebody",
            ),
        )
    app.state.resources.close()


def as_sent(row: Row) -> dict[str, Any]:
    """A record as programs send it."""
    sent: dict[str, Any] = json.loads(as_json(JOB, [getattr(row, name) for name in JOB.names]))
    return sent


@st.composite
def mutated(draw: st.DrawFn, good: Any, generated: Any, parts: Mapping[str, Any], other: st.SearchStrategy[Any]) -> Any:
    """Most of what is good, with a few parts that are sensible all the same, or whatever was generated, or others."""
    if isinstance(good, list) and good:
        return [draw(mutated(good[0], {}, parts, other)), *good[1:]]
    if not isinstance(good, Mapping):
        return draw(st.just(good) | other)
    others = generated if isinstance(generated, Mapping) else {}
    mixed, names = dict(good), sorted({*good, *others})
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else ():
        ways = [st.sampled_from(parts[name])] if name in parts else []
        mixed[name] = draw(st.one_of([*ways, st.just(others[name]) if name in others else other]))
    return mixed


@st.composite
def questions(
    draw: st.DrawFn, operation: Any, installation: Installation, mode: schemathesis.GenerationMode
) -> tuple[Any, object]:
    """Something to ask of an operation, and its body: one time in six nothing of it is what is known to be good."""
    case, body = draw(operation.as_strategy(generation_mode=mode)), None
    if draw(st.integers(0, 5)):
        good, parts = installation.good[operation.method.upper(), operation.path], installation.parts
        case.path_parameters = draw(mutated(good.path, case.path_parameters, parts, st.text(min_size=1)))
        case.query = draw(mutated(good.query, case.query, parts, st.text()))
        if good.body is not None:
            body, case.body = draw(mutated(good.body, case.body, parts, anything | half)), NOT_SET
    return case, body


def _latin(text: str) -> bytes:
    return text.encode("latin-1")


@st.composite
def headers_of_any_sort(draw: st.DrawFn, good: str) -> dict[str, bytes]:
    """Headers that say who asks and what of, as nobody should write them; a good token is changed in one place."""
    any_bytes = st.binary(max_size=40).map(lambda value: value.translate(None, b"\r\n\0"))
    place = draw(st.integers(0, len(good)))
    changed = good[:place] + draw(st.text("A.=-_ ,é", max_size=3)) + good[place + draw(st.integers(0, 3)) :]
    signs = st.text("eyJ.A_-=", max_size=60)
    tokens = st.one_of(st.just(changed), signs, st.lists(signs, min_size=3, max_size=3).map(".".join))
    given = {
        "Authorization": tokens.map("Bearer {}".format).map(_latin) | any_bytes,
        "Cookie": st.builds("{}={}".format, st.sampled_from([SESSION, LOGIN]), tokens).map(_latin) | any_bytes,
        "Siteward-VO": st.sampled_from([b"*", b"alpha", b"all", b"**", b"alpha,beta", b"\xff"]) | any_bytes,
        "Host": st.just(b"localhost") | any_bytes,
    }
    names = draw(st.lists(st.sampled_from([*given]), unique=True, min_size=1))
    return {name: draw(given[name]).strip() for name in names}


def test_no_header_is_the_servers_error(installation: Installation) -> None:
    """Whatever says who asks, on a route of each sort."""
    client = TestClient(installation.app, "http://localhost", follow_redirects=False)
    good = installation.headers[PLATFORM]["Authorization"].removeprefix("Bearer ")
    question = "kind=job&measures=count&start=2026-03-01&end=2026-04-01"
    asked = ["/v1/whoami", f"/v1/query?{question}", "/login/callback/dteam?code=x&state=y", "/login/start?issuer=dteam"]

    @settings(few, max_examples=150)
    @given(path=st.sampled_from(asked), headers=headers_of_any_sort(good))
    def sent(path: str, headers: dict[str, bytes]) -> None:
        status = client.get(path, headers={_latin(name): value for name, value in headers.items()}).status_code
        assert status < 500 or status == UNAVAILABLE, (path, headers)

    sent()


def test_no_request_is_the_servers_error(installation: Installation) -> None:
    """Of every route, described or not, and every caller; each has answered once, so that none is asked in vain."""
    operations = [each.ok() for each in installation.schema.get_all_operations() if isinstance(each, Ok)]
    # The description has been asked for already.
    assert {(each.method.upper(), each.path) for each in operations} == {*installation.good}
    for operation in operations:
        good = installation.good[operation.method.upper(), operation.path]
        case = operation.Case(path_parameters={**good.path}, query={**good.query})
        assert installation.ask(case, good.body, PLATFORM) == good.answer, operation.label
    for operation in operations:
        for mode, most in MODES.items():

            @settings(few, max_examples=most)
            @given(question=questions(operation, installation, mode), caller=st.sampled_from(ASKING))
            def asked(question: tuple[Any, object], caller: str) -> None:
                installation.ask(*question, caller)

            # What takes nothing can be asked in no wrong way.
            with suppress(Unsatisfiable):
                asked()
    told = installation.statuses
    assert told[200] > told.total() / 5, told
