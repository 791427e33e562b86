"""How our programs speak HTTP to a server that they have a secret for: to that server and to no other."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener

from siteward.loopback import is_loopback


class _SameServer(HTTPRedirectHandler):
    """Follows no redirect: the secret would go with it."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Give the redirect back as the error it is here."""


def opener(url: str, *handlers: BaseHandler, example: str = "http://127.0.0.1:8080") -> OpenerDirector:
    """What opens requests to a server.

    Args:
        url: the server's address; a proxy of the environment is used unless this is the machine's own loopback, which
            no proxy can reach.
        handlers: further ones, such as for TLS.
        example: a good address, for the message.

    Raises:
        ValueError: the URL is not http or https, or holds a user or a password.
    """
    host = host_of(url, example)
    proxies = [ProxyHandler({})] if is_loopback(host) else []
    return build_opener(_SameServer, *proxies, *handlers)


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token; none for "".

    Raises:
        ValueError: no header can carry it. The message does not hold it.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        message = "its token cannot be sent in a header; expected one line of printable ASCII without spaces"
        raise ValueError(message)
    return {"Authorization": f"Bearer {token}"} if token else {}


def host_of(url: str, example: str) -> str:
    """The host of a server's address.

    Raises:
        ValueError: it is none, as for `opener`.
    """
    # Addresses are shown in logs and errors. Also one that only looks as if it held a password is not quoted.
    if "@" in url:
        message = (
            f"expected a URL without user and password, such as {example}; it is not shown here. "
            "Give the secret by the setting for the token or password of this server"
        )
        raise ValueError(message)
    if not url.isascii() or not url.isprintable() or " " in url:
        message = f"expected a URL such as {example}, got one with spaces, control characters or beyond ASCII"
        raise ValueError(message)
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        known = False
    if not known or not parts.hostname:
        message = f"expected a URL such as {example}, got {url.partition('?')[0]!r}"
        raise ValueError(message)
    return parts.hostname
