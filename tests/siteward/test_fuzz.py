"""Whatever is sent to whatever route: an answer that the description knows, and never the server's own error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.settings import IssuerSettings, Settings

UNAVAILABLE = 503
"""An answer, where a store is away."""
few = settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Of an installation with everything in it."""
    return Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})


@pytest.fixture
def headers(own: Settings) -> dict[str, str]:
    """Those of the platform's administrator, who gets furthest."""
    token = LocalIssuer(own.issuer_file).token("anna", (Grant(Role.PLATFORM_ADMIN, (EVERY,)),), 1)
    return {"Host": "localhost", "Authorization": f"Bearer {token}"}


@pytest.fixture
def schema(own: Settings, headers: dict[str, str]) -> Any:
    """How it describes itself."""
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(own), headers=headers)


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
def test_no_request_is_the_servers_error(
    schema: Any, headers: dict[str, str], mode: schemathesis.GenerationMode
) -> None:
    """Of every operation that is described, with whatever the description allows and does not allow."""
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) > 20
    fuzzed = 0
    for operation in operations:

        @few
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case: Any) -> None:
            status = case.call(headers=headers).status_code
            assert status < 500 or status == UNAVAILABLE, (case.method, case.formatted_path, status)

        # What takes nothing can be asked in no wrong way.
        with suppress(Unsatisfiable):
            asked()
            fuzzed += 1
    assert fuzzed > 15
