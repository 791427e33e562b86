"""Databases of other machines are spoken to over TLS, and nobody else's server is: against servers that speak it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import trustme
from database_server import ACCOUNT, running
from mariadb_server import MariaNode, MariaPlace
from postgresql_server import PostgresNode, PostgresPlace
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from siteward.server.database import Database, DatabaseError, mariadb, postgresql

ADDRESS: Final = "127.0.0.1"
AUTHORITIES: Final = {"postgresql": "sslrootcert", "mariadb": "ssl_ca"}
"""The parameter of a URL that names whom to believe."""
UNWANTED: Final = {"postgresql": "sslmode=disable", "mariadb": "ssl=off"}
"""What a URL says that wants no TLS."""
IS_ENCRYPTED: Final = {
    "postgresql": "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mariadb": "SELECT VARIABLE_VALUE <> '' FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_cipher'",
}
"""What a server says of the connection that it is asked by."""
PLAIN: Final = {"postgresql": {"ssl": "off"}, "mariadb": {"skip-ssl": "ON"}}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tests' servers for those of another machine: of one on this machine nothing is asked."""
    for module in (mariadb, postgresql):
        monkeypatch.setattr(module, "is_local", lambda *_: False)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that servers may enter."""
    made = Path(tempfile.mkdtemp(prefix="siteward-tls-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Served:
    """A database on a server, and the file of the authority that it has its certificate from."""

    def __init__(self, sort: str, place: PostgresPlace | MariaPlace, authority: Path) -> None:
        self._sort = sort
        self._place = place
        self._authority = authority

    def is_encrypted(self, *, authority: Path | None = None, host: str = ADDRESS) -> bool:
        """Whether what is asked goes over TLS; by default of the server's own name, and the right authority."""
        named = f"{AUTHORITIES[self._sort]}={authority or self._authority}"
        return self.is_encrypted_by(f"{self._place.url.replace(ADDRESS, host)}?{named}")

    def is_encrypted_without(self, *, plain: Collection[str]) -> bool:
        """The same for a URL that wants no TLS."""
        return self.is_encrypted_by(f"{self._place.url}?{UNWANTED[self._sort]}", plain=plain)

    def is_encrypted_by_default(self) -> bool:
        """The same for a URL that says nothing of TLS."""
        return self.is_encrypted_by(self._place.url)

    def is_encrypted_by(self, url: str, *, plain: Collection[str] = ()) -> bool:
        """The same for any URL."""
        with closing(Database(url, self._place.password, plain=plain)) as database, database.read() as connection:
            return bool(connection.execute(text(IS_ENCRYPTED[self._sort])).scalar_one())


def serving(sort: str, settings: dict[str, str], authority: Path) -> Iterator[Served]:
    """A server with these settings."""
    if sort == "postgresql":
        with running(PostgresNode(settings)) as postgres, closing(PostgresPlace(postgres)) as place:
            yield Served(sort, place, authority)
    else:
        with running(MariaNode(settings)) as maria, closing(MariaPlace(maria)) as other:
            yield Served(sort, other, authority)


@pytest.fixture(scope="module", params=sorted(AUTHORITIES))
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    """A server with a certificate of its address."""
    authority, own = trustme.CA(), folder / request.param
    own.mkdir()
    chain, key, ca = own / "server.pem", own / "server.key", own / "ca.pem"
    certificate = authority.issue_cert(ADDRESS)
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    key.chmod(0o600)
    if os.geteuid() == 0:
        for path in (folder, own, key):
            shutil.chown(path, ACCOUNT)
    settings = {
        "postgresql": {"ssl": "on", "ssl_cert_file": str(chain), "ssl_key_file": str(key)},
        "mariadb": {"ssl-cert": str(chain), "ssl-key": str(key)},
    }
    yield from serving(request.param, settings[request.param], ca)


@pytest.fixture(scope="module", params=sorted(AUTHORITIES))
def in_the_clear(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    """A server that speaks no TLS."""
    authority = folder / f"{request.param}.pem"
    trustme.CA().cert_pem.write_to_path(authority)
    yield from serving(request.param, PLAIN[request.param], authority)


def test_what_is_asked_goes_over_tls(served: Served) -> None:
    """As the server itself says."""
    assert served.is_encrypted()


def test_a_server_with_another_authoritys_certificate_is_refused(served: Served, tmp_path: Path) -> None:
    """Whether it is named, or is one of the system's."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        served.is_encrypted(authority=other)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        served.is_encrypted_by_default()


def test_a_server_with_a_certificate_of_another_name_is_refused(served: Served) -> None:
    """A good certificate of somebody else proves nothing."""
    with pytest.raises(OperationalError, match=r"does not match host name|Hostname mismatch"):
        served.is_encrypted(host="localhost")


def test_a_server_without_tls_is_refused(in_the_clear: Served) -> None:
    """Nothing is asked of it, and no password is sent."""
    for ask in (in_the_clear.is_encrypted, in_the_clear.is_encrypted_by_default):
        with pytest.raises(OperationalError, match=r"does not support SSL|doesn't support it"):
            ask()


def test_a_server_is_asked_without_tls_only_where_the_settings_name_its_host(in_the_clear: Served) -> None:
    """What the URL says is not enough, and nothing is sent."""
    with pytest.raises(DatabaseError, match=r"network\.plain"):
        in_the_clear.is_encrypted_without(plain=["db.example.org"])
    assert not in_the_clear.is_encrypted_without(plain=[ADDRESS])
