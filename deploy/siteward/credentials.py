"""Passwords, tokens and certificates of the composition: made once, at the first start, and handed out as files.

The service `credentials` of docker-compose.yml runs it before all others: `docker compose up` needs no step by hand,
and no secret stands in an environment, a command line or a log. The volume `vault` keeps what was made; every start
writes the other volumes anew from it, one for each service, readable by that service's user only.
`docker compose run --rm credentials show` prints what people log in with.
"""
# ruff: noqa: INP001  # a program beside the packages, not part of one.

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from siteward.server.auth.local_issuer import MOST_DAYS, LocalIssuer
from siteward.server.auth.roles import SHARED, Role, grant

SECRETS: Final = (
    "rabbitmq-siteward",
    "rabbitmq-admin",
    "opensearch-siteward",
    "opensearch-kibanaserver",
    "opensearch-admin",
    "opensearch-viewer",
    "dashboards-cookie",
    "metrics-token",
    "postgresql-superuser",
    "postgresql-siteward",
    "postgresql-grafana",
    "grafana-admin",
    "grafana-secret-key",
)
TOKENS: Final = {
    "siteward-token": ("operator", grant(Role.PLATFORM_ADMIN, ())),
    "scrape-token": ("prometheus", grant(Role.READER, (SHARED,))),
}
"""Whom each token names, and what it allows. They are made anew at each start and are valid for a year."""
ISSUER: Final = "issuer.json"
CERTIFICATES: Final = ("ca.pem", "node.pem", "node.key")
OWNERS: Final = {
    "rabbitmq": (999, 999),
    "opensearch-certificates": (1000, 1000),
    "opensearch-security": (1000, 1000),
    "opensearch-dashboards": (1000, 1000),
    "postgresql": (999, 999),
    "prometheus": (65534, 65534),
    "grafana": (472, 0),
    "siteward": (10001, 10001),
}
"""The volumes, and user and group of the service that reads each; docker-compose.yml names the same."""
LOGINS: Final = (
    ("Siteward", "a token", "siteward-token"),
    ("Grafana", "admin", "grafana-admin"),
    ("OpenSearch Dashboards", "viewer", "opensearch-viewer"),
    ("OpenSearch Dashboards", "admin", "opensearch-admin"),
    ("RabbitMQ", "admin", "rabbitmq-admin"),
)
ITERATIONS: Final = 10_000
"""Stretching protects passwords that can be guessed; these are 256 random bits."""
DAYS: Final = "3650"
AUTHORITY: Final = """\
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
NODE: Final = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:opensearch, DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
Files = Mapping[str, bytes]


def main(arguments: list[str]) -> int:
    """Make what is missing and hand everything out; `show` prints the logins instead."""
    if arguments not in ([], ["show"]):
        sys.stderr.write("usage: credentials.py [show]\n")
        return 2
    volumes, deploy = Path("/credentials"), Path(__file__).resolve().parent.parent
    if arguments:
        show(volumes / "vault")
    else:
        fill(volumes / "vault")
        hand_out(volumes, files(volumes / "vault", deploy))
    return 0


def fill(vault: Path) -> None:
    """Make every secret that the vault does not have yet; what is there stays."""
    for name in SECRETS:
        if not (vault / name).exists():
            write(vault / name, secrets.token_urlsafe(32).encode())
    issuer = LocalIssuer(vault / ISSUER)
    for name, (subject, role) in TOKENS.items():
        write(vault / name, issuer.token(subject, (role,), MOST_DAYS).encode())
    own(vault / ISSUER, -1, -1, 0o400)
    # All or none: a certificate without its authority is of no use.
    if not all((vault / name).exists() for name in CERTIFICATES):
        for name, content in certificates().items():
            write(vault / name, content)


def show(vault: Path) -> None:
    """Print what people log in with."""
    for where, user, name in LOGINS:
        sys.stdout.write(f"{where:<24}{user:<12}{(vault / name).read_text()}\n")


def files(vault: Path, deploy: Path) -> dict[str, Files]:
    """What each volume holds, by its name: file names and contents.

    Args:
        vault: the folder with all secrets.
        deploy: the repository's folder of this name, with the files into which hashes are filled.
    """
    secret = {name: (vault / name).read_bytes() for name in (*SECRETS, *TOKENS, ISSUER, *CERTIFICATES)}
    cookie = {"opensearch_security.cookie.password": secret["dashboards-cookie"].decode()}
    password = {"opensearch.password": secret["opensearch-kibanaserver"].decode()}
    return {
        "rabbitmq": {"definitions.json": definitions(deploy / "rabbitmq" / "definitions.json", secret)},
        "opensearch-certificates": {name: secret[name] for name in CERTIFICATES},
        "opensearch-security": security(deploy / "opensearch" / "security", secret),
        "opensearch-dashboards": {
            "ca.pem": secret["ca.pem"],
            # JSON is YAML.
            "opensearch_dashboards.yml": json.dumps({**password, **cookie}).encode(),
        },
        "postgresql": {name: secret[f"postgresql-{name}"] for name in ("superuser", "siteward", "grafana")},
        "prometheus": {"siteward-token": secret["scrape-token"], "metrics-token": secret["metrics-token"]},
        "grafana": {
            "admin": secret["grafana-admin"],
            "database": secret["postgresql-grafana"],
            "secret-key": secret["grafana-secret-key"],
        },
        "siteward": {
            "broker": secret["rabbitmq-siteward"],
            "store": secret["opensearch-siteward"],
            ISSUER: secret[ISSUER],
            "metrics-token": secret["metrics-token"],
            "ca.pem": secret["ca.pem"],
        },
    }


def hand_out(volumes: Path, content: Mapping[str, Files]) -> None:
    """Write all volumes, each for its owner only."""
    for volume, (user, group) in OWNERS.items():
        folder = volumes / volume
        for name, text in content[volume].items():
            write(folder / name, text, user, group)
        own(folder, user, group, 0o500)


def definitions(path: Path, secret: Files) -> bytes:
    """RabbitMQ's definitions with every user's hash."""
    table = json.loads(path.read_text(encoding="utf-8"))
    for user in table["users"]:
        user["password_hash"] = rabbitmq_hash(secret[f"rabbitmq-{user['name']}"])
    return json.dumps(table, indent=2).encode()


def rabbitmq_hash(password: bytes) -> str:
    """RabbitMQ's `rabbit_password_hashing_sha256`: four bytes of salt, then SHA-256 over salt and password."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password).digest()).decode()


def security(folder: Path, secret: Files) -> dict[str, bytes]:
    """The files of OpenSearch's security index, with every user's hash."""
    content = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yml"))}
    users = content["internal_users.yml"]
    for name in SECRETS:
        role, _, user = name.partition("-")
        if role == "opensearch":
            before, entry, after = users.partition(f'\n{user}:\n  hash: ""')
            if not entry:
                message = f"internal_users.yml has no user {user} with an empty hash; give it one"
                raise ValueError(message)
            users = f'{before}\n{user}:\n  hash: "{opensearch_hash(secret[name])}"{after}'
    return {name: text.encode() for name, text in {**content, "internal_users.yml": users}.items()}


def opensearch_hash(password: bytes) -> str:
    """OpenSearch's form of PBKDF2 with SHA-256 (3): iterations and bits in one number, then salt and hash."""
    salt = secrets.token_bytes(32)
    digest = hashlib.pbkdf2_hmac("sha256", password, salt, ITERATIONS, 32)
    parts = (str(ITERATIONS << 32 | 256), base64.b64encode(salt).decode(), base64.b64encode(digest).decode())
    return "$3$" + "$".join(parts)


def certificates() -> dict[str, bytes]:
    """An authority and, signed by it, the certificate of the OpenSearch node; the authority's key is thrown away."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ca.cnf").write_text(f"[req]\ndistinguished_name = name\n[name]\n[extensions]\n{AUTHORITY}")
        (folder / "node.cnf").write_text(NODE)
        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        authority = ("-config", "ca.cnf", "-extensions", "extensions", "-subj", "/CN=siteward composition")
        openssl(folder, *new, "-x509", "-days", DAYS, *authority, "-keyout", "ca.key", "-out", "ca.pem")
        openssl(folder, *new, "-config", "ca.cnf", "-subj", "/CN=opensearch", "-keyout", "node.key", "-out", "node.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS, "-extfile", "node.cnf")
        openssl(folder, "x509", "-req", "-in", "node.csr", *signing, "-out", "node.pem")
        return {name: (folder / name).read_bytes() for name in CERTIFICATES}


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder; no secret is among the arguments."""
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=False)  # noqa: S603, S607  # fixed arguments; it is in the image.
    if done.returncode != 0:
        message = f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}"
        raise RuntimeError(message)


def write(path: Path, content: bytes, user: int = -1, group: int = -1) -> None:
    """Replace a file at once, so that nobody reads half of it and a start that was interrupted can be repeated."""
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    own(draft, user, group, 0o400)
    draft.replace(path)


def own(path: Path, user: int, group: int, mode: int) -> None:
    """Give a file or folder to a user; only root can give, and tests are not always root."""
    if os.geteuid() == 0:
        os.chown(path, user, group)
    path.chmod(mode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
