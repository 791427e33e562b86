"""A cluster with the security plugin: TLS, users, certificates; and what is said where one of them does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from answers import EVENTS
from examples import JOB, NOON, batch_of, job_rows
from msgspec import structs
from opensearch_secure import PASSWORD, READER, SecureNode
from opensearch_server import SECURE, Nodes, Place

from monitoring.stores import StoreError
from monitoring.stores.opensearch import open_store
from monitoring.stores.opensearch.addresses import Address, AddressError, address_of, client_of
from monitoring.stores.opensearch.store import OpenSearchStore
from siteward.query import Function, Query, Wanted
from siteward.records import microseconds
from siteward.settings import MonitoringSettings, Settings
from siteward.sinks import Outcome, SinkUnavailable

KINDS = {kind.name: kind for kind in (JOB, EVENTS)}
COUNT = Query(
    kind="job",
    wanted=(Wanted(Function.COUNT), Wanted(Function.SUM, "wall_time")),
    start=datetime(2026, 3, 1, tzinfo=UTC),
    end=datetime(2026, 4, 1, tzinfo=UTC),
    by=("site",),
    top=2,
)


@pytest.fixture
def secure(opensearch_nodes: Nodes) -> Iterator[Place]:
    """A place on a cluster with the security plugin; its user has the role of our services."""
    with closing(Place(opensearch_nodes.node(SECURE))) as place:
        yield place


def node_of(place: Place) -> SecureNode:
    """The node of a place."""
    assert isinstance(place.node, SecureNode)
    return place.node


Opener = Callable[..., OpenSearchStore]


@pytest.fixture
def opened(secure: Place) -> Iterator[Opener]:
    """Opens stores in one place as somebody else or with other settings, and closes them."""
    stores: list[OpenSearchStore] = []

    def call(user: str = "", **settings: Any) -> OpenSearchStore:
        url = (
            f"opensearchs://{user}@127.0.0.1:{secure.node.port}"
            if user
            else f"opensearchs://127.0.0.1:{secure.node.port}"
        )
        given = {"url": url, "prefix": secure.prefix, "ca": str(node_of(secure).authority), **settings}
        monitoring = MonitoringSettings(**given)
        stores.append(open_store(url, Settings(monitoring=monitoring), KINDS))
        return stores[-1]

    yield call
    for store in stores:
        store.close()


def test_our_role_is_enough(secure: Place) -> None:
    """With TLS, name, password and the role that we ship a store is made, written, asked and forgotten."""
    with closing(secure.open(KINDS)) as store:
        received = microseconds(NOON)
        assert set(store.write(batch_of(JOB, job_rows(50), received=received)).outcomes) == {Outcome.STORED}
        secure.refresh()
        answer = store.query(COUNT)
        assert answer.totals == (50, 50 * 3600)
        assert answer.rows[-1].other
        assert store.values("job", "state") == ["completed"]
        assert len(store.records("job", limit=7)) == 7
        assert store.forget("job", datetime(2027, 1, 1, tzinfo=UTC)) == 50


def test_a_certificate_says_who_we_are(secure: Place, opened: Opener, tmp_path: Path) -> None:
    """A client certificate takes the place of name and password."""
    store = opened(**node_of(secure).certificate(tmp_path, "siteward"))
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3


def test_a_reader_asks_and_cannot_write(secure: Place, opened: Opener) -> None:
    """A user who may only ask opens the store and asks; a write waits and says which right is missing."""
    with closing(secure.open(KINDS)) as store:
        store.write(batch_of(JOB, job_rows(5)))
    secure.refresh()
    reader = opened(READER, password=PASSWORD)
    assert reader.query(COUNT).totals == (5, 5 * 3600)
    assert len(reader.records("job")) == 5
    (node,) = secure.ask("GET", "/_nodes/stats/indices/search")["nodes"].values()
    assert node["indices"]["search"]["scroll_current"] == 0, "what was kept for the reader is let go of"
    with pytest.raises(SinkUnavailable, match=r"403: no permissions for .*what this user may do"):
        reader.write(batch_of(JOB, job_rows(6)))


def test_a_wrong_password_is_said(opened: Opener) -> None:
    """A password that is not accepted is told as such, without showing it; nothing is lost meanwhile."""
    store = opened("siteward", password="wrong-one")
    with pytest.raises(SinkUnavailable, match=r"answers 401: .*monitoring.password") as caught:
        store.write(batch_of(JOB, job_rows(1)))
    assert "wrong-one" not in str(caught.value)
    with pytest.raises(StoreError, match="401"):
        store.query(COUNT)


def test_an_authority_that_is_not_trusted_is_said(secure: Place, opened: Opener, tmp_path: Path) -> None:
    """A cluster whose certificate comes from elsewhere is not talked to."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(StoreError, match="certificate verify failed") as caught:
        opened("siteward", password=PASSWORD, ca=str(other))
    assert not caught.value.permanent
    with pytest.raises(StoreError, match="certificate verify failed"):
        opened("siteward", password=PASSWORD, ca="")
    with pytest.raises(StoreError, match="does not answer"):
        open_store(
            f"opensearch://127.0.0.1:{secure.node.port}", Settings(monitoring=MonitoringSettings(timeout=5.0)), KINDS
        )


def test_a_certificate_for_another_name_is_refused(secure: Place) -> None:
    """The name in the certificate has to be the one that is asked."""
    settings = MonitoringSettings(ca=str(node_of(secure).authority), password=PASSWORD)
    url = f"opensearchs://siteward@localhost:{secure.node.port}"
    with pytest.raises(StoreError, match="localhost"):
        open_store(url, Settings(monitoring=settings), KINDS)


@pytest.mark.parametrize("setting", ["ca", "certificate"])
def test_a_file_that_cannot_be_read_is_said(setting: str, tmp_path: Path) -> None:
    """A certificate file that is not there, or is none, is a permanent error that names the settings."""
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    for path in (broken, tmp_path / "missing.pem"):
        settings = structs.replace(MonitoringSettings(), **{setting: str(path)})
        address = address_of("opensearchs://example.org", settings)
        with pytest.raises(AddressError, match=r"monitoring.ca, monitoring.certificate or monitoring.key") as caught:
            client_of(address, settings)
        assert caught.value.permanent


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("opensearch://one", Address((("one", 9200),), "", "", "", is_secure=False)),
        (
            "opensearch://one:9201,two/search/",
            Address((("one", 9201), ("two", 9200)), "/search", "", "", is_secure=False),
        ),
        ("opensearchs://me@[::1]:9200", Address((("::1", 9200),), "", "me", "kept", is_secure=True)),
        ("opensearchs://me:p%40ss@one", Address((("one", 9200),), "", "me", "p@ss", is_secure=True)),
    ],
)
def test_addresses_are_read(url: str, address: Address) -> None:
    """Several hosts, a path, a user; the password of the URL goes over that of the settings."""
    settings = MonitoringSettings(password="kept" if "me@" in url else "")
    assert address_of(url, settings) == address
    assert "p@ss" not in address.shown


@pytest.mark.parametrize(
    "url",
    [
        "opensearch://",
        "opensearch:///path",
        "http://one",
        "opensearch://one:port",
        "opensearch://one?x=1",
        "opensearch://one,",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """What cannot be read is refused for good, with an example of what can."""
    with pytest.raises(AddressError, match=r"monitoring.url"):
        address_of(url, MonitoringSettings())


@pytest.mark.parametrize(
    "password", ["SEC/RET", "SEC#RET", "SEC?RET", "SEC[RET", "SEC]RET", "[SEC]RET", "1/SEC@RET", "SEC℀RET"]
)
def test_a_password_that_is_not_encoded_is_not_told(password: str) -> None:
    """A URL whose parts are cut within the password says what to do, and quotes nothing."""
    with pytest.raises(AddressError, match="percent-encode the password") as caught:
        address_of(f"opensearchs://me:{password}@one:9200", MonitoringSettings())
    assert not any(part in str(caught.value) for part in ("SEC", "RET"))
    assert caught.value.__cause__ is None


def test_a_user_needs_a_password() -> None:
    """A user without a password, or the other way round, is a mistake that is said at once."""
    with pytest.raises(AddressError, match=r"monitoring.password_file is missing"):
        address_of("opensearchs://me@one", MonitoringSettings())
    with pytest.raises(AddressError, match=r"a user in monitoring.url is missing"):
        address_of("opensearchs://one", MonitoringSettings(password="x"))


def test_a_forked_child_has_connections_of_its_own(secure: Place) -> None:
    """A child may write and end while its parent goes on: neither uses the other's TLS connection."""
    with closing(secure.open(KINDS)) as store:
        store.write(batch_of(JOB, job_rows(1)))
        child = os.fork()
        if child == 0:
            outcomes = store.write(batch_of(JOB, job_rows(3))).outcomes
            os._exit(0 if outcomes.count(Outcome.STORED) == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.write(batch_of(JOB, job_rows(4))).outcomes.count(Outcome.STORED) == 1
