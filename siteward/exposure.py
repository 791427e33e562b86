"""Who may come in from where: this machine without a token, any other with one; shared by all that listen."""

from __future__ import annotations

import base64
import binascii
import secrets
import ssl
from typing import Final
from urllib.parse import urlsplit

from siteward.loopback import is_loopback
from siteward.settings import SettingsError

SHORTEST_TOKEN: Final = 32
"""Characters; a shorter token can be guessed."""


def check_reach(section: str, host: str, *, trusting: bool) -> None:
    """Refuse to listen beyond this machine without a trusted issuer.

    Args:
        section: of the settings, for the message.
        host: the address to listen on.
        trusting: whether the settings name an issuer of tokens that is trusted.

    Raises:
        siteward.settings.SettingsError: saying what to set.
    """
    if not trusting and not is_loopback(host):
        message = (
            f"setting {section}.host: {host!r} can be reached from other machines, which needs an issuer of tokens "
            'that is trusted: [issuers.NAME], or [issuers.local] with profile = "local" for tokens that '
            f"`siteward token create` makes; or leave {section}.host at 127.0.0.1"
        )
        raise SettingsError(message)


def check_token(section: str, token: str) -> None:
    """Refuse a token that can be guessed; "" is none.

    Raises:
        siteward.settings.SettingsError: saying what to set.
    """
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        message = f"setting {section}.token: expected at least {SHORTEST_TOKEN} printable ASCII characters"
        raise SettingsError(message)


def serving(section: str, certificate: str, key: str) -> ssl.SSLContext | None:
    """What speaks TLS to whoever comes; None where plain HTTP is spoken.

    Raises:
        siteward.settings.SettingsError: naming the setting whose file cannot be used.
    """
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as error:
        message = f"settings {section}.certificate and {section}.key: {certificate}: {error}"
        raise SettingsError(message) from error
    return context


def host_name(host: str) -> str:
    """A Host header without its port; "" where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def knows_token(authorization: str, token: bytes) -> bool:
    """Whether an Authorization header has the token, as a bearer's or as the password that a browser asks for."""
    scheme, _, given = authorization.partition(" ")
    candidate = given.strip().encode()
    if scheme.lower() == "basic":
        try:
            candidate = base64.b64decode(candidate, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return secrets.compare_digest(candidate, token)
