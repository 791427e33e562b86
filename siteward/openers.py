"""How our programs speak HTTP to a server that they have a secret for: to that server and to no other."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener

LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


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
        ValueError: the URL is not http or https.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"expected a URL such as {example}, got {url!r}"
        raise ValueError(message)
    proxies = [ProxyHandler({})] if parts.hostname in LOCAL else []
    return build_opener(_SameServer, *proxies, *handlers)
