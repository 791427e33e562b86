"""Our own issuer: made at first need, for its owner only, and believed by nobody but its own installation."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from at_once import all_at_once
from issuer import Clock

from siteward.server.auth.local_issuer import MOST_DAYS, LocalIssuer
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.roles import EVERY, Grant, Role, grant
from siteward.server.auth.token_text import read_token
from siteward.server.auth.verifier import Verifier
from siteward.settings import SettingsError

READER = Grant(Role.READER, ("dteam",))


def verifying(issuer: LocalIssuer, clock: Clock | None = None) -> Verifier:
    """What judges its tokens."""
    return Verifier({"local": issuer.settings}, lambda _: issuer, clock or Clock())


def test_its_tokens_say_who_may_do_what_and_until_when(tmp_path: Path) -> None:
    """Subject, roles with their VOs and sites, and the end."""
    clock = Clock()
    issuer = LocalIssuer(tmp_path / "issuer.json", clock)
    grants = (READER, Grant(Role.REPORTER, ("dteam", "all"), ("SITE-A",)))
    found = verifying(issuer, clock).verify(issuer.token("anna", grants, 2)).identity
    assert (found.subject, found.person, found.grants) == ("anna", "anna", grants)
    assert found.expires == clock.now + 2 * 86_400
    assert found.issuer == issuer.settings.url


@pytest.mark.parametrize(
    ("roles", "is_person"),
    [
        ((Role.REPORTER,), False),
        ((Role.REPORTER, Role.REPORTER), False),
        ((Role.REPORTER, Role.READER), True),
        ((Role.OPERATOR,), True),
        ((Role.ADMIN,), True),
        ((), False),
    ],
)
def test_a_token_that_only_sends_is_a_services(tmp_path: Path, roles: tuple[Role, ...], *, is_person: bool) -> None:
    """Whoever may do anything else may be a person."""
    issuer, clock = LocalIssuer(tmp_path / "issuer.json"), Clock(time.time())
    grants = tuple(Grant(role, ("dteam",)) for role in roles)
    assert verifying(issuer, clock).verify(issuer.token("anna", grants, 1)).identity.is_person is is_person


def test_every_token_has_a_name_of_its_own(tmp_path: Path) -> None:
    """By which one of them can be denied."""
    issuer = LocalIssuer(tmp_path / "issuer.json")
    names = {read_token(issuer.token("anna", (READER,), 1)).claims["jti"] for _ in range(100)}
    assert len(names) == 100


def test_its_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """Of sixteen that start together, all have the same issuer."""
    path = tmp_path / "issuer.json"
    found: list[str] = []
    assert not all_at_once([lambda: found.append(LocalIssuer(path).settings.url)] * 16)
    assert len(set(found)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_private_part_of_its_key_is_not_published(tmp_path: Path) -> None:
    """Neither where it answers as issuers do, nor in its description."""
    issuer = LocalIssuer(tmp_path / "issuer.json")
    url = issuer.settings.url
    secret = json.loads((tmp_path / "issuer.json").read_bytes())["keys"][0]["d"]
    for address in (f"{url}/keys", f"{url}/.well-known/openid-configuration"):
        body = issuer(address, {}).body
        assert secret.encode() not in body
        assert b'"d"' not in body
    assert secret not in repr(issuer.settings)


def test_a_file_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    """Whoever read it could have made tokens."""
    path = tmp_path / "issuer.json"
    assert LocalIssuer(path).settings
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        assert LocalIssuer(path).settings


@pytest.mark.parametrize("content", [b"", b"{}", b'{"issuer": "x", "keys": []}', b"\xff"])
def test_a_broken_file_stops_the_start(tmp_path: Path, content: bytes) -> None:
    """It is named, and not replaced by a new one in silence: all tokens would be void."""
    path = tmp_path / "issuer.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"issuer\.json"):
        assert LocalIssuer(path).settings
    assert path.read_bytes() == content


@pytest.mark.parametrize("days", [0, -1, MOST_DAYS + 1, float("nan"), float("inf")])
def test_no_token_lives_longer_than_a_year(tmp_path: Path, days: float) -> None:
    """It cannot be taken back but by the deny-list."""
    with pytest.raises(ValueError, match="at most 366 days"):
        LocalIssuer(tmp_path / "issuer.json").token("anna", (READER,), days)


def test_a_new_file_makes_old_tokens_void(tmp_path: Path) -> None:
    """Whoever loses the file starts anew."""
    path = tmp_path / "issuer.json"
    old = LocalIssuer(path).token("anna", (READER,), 1)
    path.unlink()
    with pytest.raises(TokenRefused) as caught:
        verifying(LocalIssuer(path)).verify(old)
    assert caught.value.reason is Reason.ISSUER


@pytest.mark.parametrize(
    ("role", "vos", "sites", "what"),
    [
        (Role.READER, (), (), "name them"),
        (Role.READER, (EVERY,), (), "name them"),
        (Role.READER, ("",), (), "name them"),
        (Role.READER, ("dteam",), ("SITE-A",), "not of sites"),
        (Role.SITE_OPERATOR, ("dteam",), (), "needs sites"),
        (Role.REPORTER, ("all",), (), "reported by sites"),
        (Role.REPORTER, ("dteam",), ("",), "not of sites"),
        (Role.PLATFORM_ADMIN, ("dteam",), (), "name none"),
    ],
)
def test_a_role_that_cannot_mean_what_it_says_is_not_given(role: Role, vos: Any, sites: Any, what: str) -> None:
    """The message says what is missing, or too much."""
    with pytest.raises(ValueError, match=what):
        grant(role, vos, sites)
