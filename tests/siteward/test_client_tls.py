"""A client in Python and the commands with `--url` speak TLS to the app that is named, and to nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from certified import Certified, authority, running

from siteward.client import Client, ClientError
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.settings import IssuerSettings, ServerSettings, Settings

PROGRAM = (sys.executable, "-c", "from siteward.cli import main; main()")


class Served:
    """An app over TLS that wants tokens, and one that it takes."""

    def __init__(self, url: str, token: str, certified: Certified) -> None:
        self.url = url
        self.token = token
        self.certified = certified

    @property
    def elsewhere(self) -> str:
        """The same under a name that its certificate does not have."""
        return self.url.replace("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a certificate of its name only."""
    folder = tmp_path_factory.mktemp("served")
    certified = Certified(folder, "localhost")
    own = {"local": IssuerSettings(profile="local")}
    settings = Settings(data=str(folder / "data"), server=ServerSettings(port=0, **certified.settings), issuers=own)
    token = LocalIssuer(settings.issuer_file).token("me", (Grant(Role.READER, ("all",)),), 1)
    with running(settings) as address:
        yield Served(address.replace("127.0.0.1", "localhost"), token, certified)


def test_a_client_believes_the_authorities_of_the_environment(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of SSL_CERT_FILE, else of the system; and no certificate of another name. No token is sent before."""
    ca = str(served.certified.ca)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for trusted, url in (("", served.url), (str(authority(tmp_path)), served.url), (ca, served.elsewhere)):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", trusted)
        with pytest.raises(ClientError, match="certificate verify failed") as refused:
            Client(url, served.token).whoami()
        assert refused.value.status == 0
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    assert Client(served.url, served.token).whoami().subject == "me"


def asked(served: Served, url: str, tmp_path: Path, trusted: str = "") -> subprocess.CompletedProcess[str]:
    """`siteward whoami --url`, with a token."""
    environment = os.environ | {"SITEWARD_DATA": str(tmp_path / "data"), "BEARER_TOKEN": served.token}
    environment.pop("SSL_CERT_FILE", None)
    return subprocess.run(
        [*PROGRAM, "whoami", "--url", url],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | ({"SSL_CERT_FILE": trusted} if trusted else {}),
        check=False,
    )


def test_a_command_believes_the_authorities_of_the_environment(served: Served, tmp_path: Path) -> None:
    """As a client does; what is refused ends it with one line, without the token."""
    ca = str(served.certified.ca)
    for trusted, url in (("", served.url), (str(authority(tmp_path)), served.url), (ca, served.elsewhere)):
        refused = asked(served, url, tmp_path, trusted)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"siteward: {url} does not answer: [SSL: CERTIFICATE_VERIFY_FAILED]")
        assert served.token not in refused.stdout + refused.stderr
    answered = asked(served, served.url, tmp_path, ca)
    assert answered.returncode == 0
    assert "reader" in answered.stdout
