"""Whom EGI Check-in's guidelines describe, from the issuer's answers over HTTP to what they may send here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from oidc_server import SUBJECT, oidc_server

from siteward.server.app import create_app
from siteward.settings import GrantSettings, Settings

PORTAL = "urn:mace:egi.eu:goc.egi.eu:104G0"


def downtime(site: str) -> dict[str, Any]:
    """An announced downtime of a site."""
    return {
        "vo": "dteam",
        "site": site,
        "source": "people",
        "reference": site,
        "announced": "2026-03-01T10:00:00Z",
        "start": "2026-03-02T10:00:00Z",
        "end": "2026-03-02T11:00:00Z",
        "severity": "outage",
        "classification": "scheduled",
    }


@pytest.mark.parametrize("stated", ["in the token", "in userinfo"])
def test_a_sites_administrator_at_the_portal_announces_its_downtimes(tmp_path: Path, stated: str) -> None:
    """With the role as the portal writes it, and as the manual has it in a rule; of no other site."""
    entitlements = [
        f"{PORTAL}:SITE-A:Site+Administrator@egi.eu",
        f"{PORTAL}:SITE-B:Site+Security+Officer@egi.eu",
        "urn:mace:egi.eu:group:dteam:role=member#aai.egi.eu",
    ]
    with oidc_server() as server:
        claims: dict[str, object] = {"wlcg.ver": None}
        if stated == "in userinfo":
            server.userinfo = {"entitlements": entitlements}
        else:
            claims["entitlements"] = entitlements
        rule = GrantSettings(when="portal:Site Administrator", role="site-operator", vos=("dteam",))
        trusted = server.issuer.settings(
            rule, profile="aarc", namespace="urn:mace:egi.eu", userinfo=stated == "in userinfo"
        )
        token = server.signed(**claims)
        server.given.add(token)
        settings = Settings(data=str(tmp_path), issuers={"egi": trusted})
        with TestClient(
            create_app(settings), "http://localhost", headers={"Authorization": f"Bearer {token}"}
        ) as client:
            told = client.get("/v1/whoami").json()
            sites = ("SITE-A", "SITE-B", "SITE-C")
            answers = client.post("/v1/records/downtime", json=list(map(downtime, sites))).json()["records"]
    assert (told["subject"], told["vos"]) == (SUBJECT, ["dteam"])
    assert [(grant["role"], grant["vos"], grant["sites"]) for grant in told["grants"]] == [
        ("site-operator", ["dteam"], ["SITE-A"])
    ]
    assert [each["status"] for each in answers] == ["queued", "rejected", "rejected"]
