"""A private OpenSearch with the security plugin: TLS, users, client certificates, and the roles that we ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from opensearch_server import SECURE, Node, distribution
from servers import REPOSITORY

ROLES: Final = REPOSITORY / "deploy" / "opensearch" / "security"
PASSWORD: Final = "not-a-secret-1"
"""Of every user."""
HASH: Final = "$2y$10$abcdefghijklmnopqrstuusOJZ/ePtf/MQUF44.g6RmJgv0dtDX26"
WRITER: Final = "siteward"
READER: Final = "viewer"
CERTIFICATES: Final = "certificates"
CONFIGURATION: Final[dict[str, Any]] = {
    **{
        f"plugins.security.ssl.{layer}.{kind}_filepath": f"{CERTIFICATES}/{name}"
        for layer in ("transport", "http")
        for kind, name in (("pemcert", "node.pem"), ("pemkey", "node.key"), ("pemtrustedcas", "ca.pem"))
    },
    "plugins.security.ssl.transport.enforce_hostname_verification": "false",
    "plugins.security.ssl.http.enabled": "true",
    "plugins.security.ssl.http.clientauth_mode": "OPTIONAL",
    "plugins.security.allow_default_init_securityindex": "true",
    "plugins.security.audit.type": "noop",
}
LOGINS: Final = """
_meta: {type: config, config_version: 2}
config:
  dynamic:
    http: {anonymous_auth_enabled: false}
    authc:
      certificate:
        http_enabled: true
        order: 0
        http_authenticator: {type: clientcert, challenge: false, config: {username_attribute: cn}}
        authentication_backend: {type: noop}
      internal:
        http_enabled: true
        order: 1
        http_authenticator: {type: basic, challenge: true}
        authentication_backend: {type: intern}
"""


class SecureNode(Node):
    """A node that speaks only TLS, and only with those it knows."""

    def __init__(self) -> None:
        """Install the plugin, make certificates, and copy the roles, which here are about the tests' prefixes."""
        version = SECURE.partition("-")[0]
        super().__init__(version, CONFIGURATION, distribution(f"opensearch-security-{version}.0.zip"))
        self.scheme = "opensearchs"
        self.user = WRITER
        self._authority = trustme.CA()
        folder = self.home / "config" / CERTIFICATES
        folder.mkdir()
        self.authority = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.authority)
        self._write(folder, "node", self._authority.issue_cert("127.0.0.1", common_name="node"))
        self.settings = {"ca": str(self.authority), "password": PASSWORD}
        self._configure_security(self.home / "config" / "opensearch-security")

    def certificate(self, folder: Path, user: str) -> dict[str, str]:
        """Settings of a client certificate by which the node knows a user."""
        made = self._authority.issue_cert(f"{user}.example.org", common_name=user)
        certificate, key = self._write(folder, user, made)
        return {"certificate": str(certificate), "key": str(key)}

    def _write(self, folder: Path, name: str, made: trustme.LeafCert) -> tuple[Path, Path]:
        """Certificate and key; OpenSearch reads keys in PKCS 8 only."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        loaded = load_pem_private_key(made.private_key_pem.bytes(), None)
        key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key

    def _configure_security(self, folder: Path) -> None:
        for name in ("roles.yml", "roles_mapping.yml", "internal_users.yml", "tenants.yml", "action_groups.yml"):
            text = (ROLES / name).read_text(encoding="utf-8")
            (folder / name).write_text(text.replace('"siteward-*"', '"test-*"').replace('hash: ""', f'hash: "{HASH}"'))
        (folder / "config.yml").write_text(LOGINS)
