"""Who may scrape: this machine without a token, any other with one. As siteward.server.auth.access, without its web."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import secrets
from typing import Final
from urllib.parse import urlsplit

from siteward.settings import PrometheusSettings, SettingsError

SHORTEST_TOKEN: Final = 32
"""Characters; a shorter token can be guessed."""


def check_exposure(settings: PrometheusSettings) -> None:
    """Refuse to listen beyond this machine without a token, and any token that can be guessed.

    Raises:
        siteward.settings.SettingsError: saying what to set.
    """
    token = settings.token
    if not token and not is_loopback(settings.host):
        message = (
            f"setting prometheus.host: {settings.host!r} can be reached from other machines, which needs a token; "
            f"set prometheus.token_file to a file with at least {SHORTEST_TOKEN} random characters, "
            "or leave prometheus.host at 127.0.0.1"
        )
        raise SettingsError(message)
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        message = f"setting prometheus.token: expected at least {SHORTEST_TOKEN} printable ASCII characters"
        raise SettingsError(message)


def refusal(token: str, host: str, authorization: str) -> tuple[int, str] | None:
    """HTTP status and reason for a request that may not pass; None where it may.

    Args:
        token: the one to know; "" where none is asked.
        host: the request's Host header: without a token a page of another site could come through a browser here.
        authorization: its Authorization header.
    """
    if not token:
        known = is_loopback(_name(host))
        return None if known else (421, "This endpoint answers to localhost only; other names need prometheus.token.")
    if _knows(authorization, token.encode()):
        return None
    return 401, "This needs the token of prometheus.token: send the header `Authorization: Bearer …`."


def is_loopback(host: str) -> bool:
    """Whether a host name, without port, is this machine's own loopback."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _knows(authorization: str, token: bytes) -> bool:
    """Whether the token is there, as a bearer's or as a password."""
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


def _name(host: str) -> str:
    """A Host header without its port; "" where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
