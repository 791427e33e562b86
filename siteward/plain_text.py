"""What would leave this machine unencrypted: refused, unless the settings name the host as one of a private network."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import urlsplit

LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})
ENCRYPTED: Final = {"amqp": "amqps", "opensearch": "opensearchs", "http": "https"}
"""What to write in place of a scheme that encrypts nothing."""


def plain_hosts(url: str) -> Iterator[str]:
    """The hosts beyond this machine that a URL reaches without TLS; of several, with commas between them, each."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in ENCRYPTED:
        return
    # A password that is not percent-encoded may hold anything.
    for part in rest.rpartition("@")[2].partition("/")[0].split(","):
        try:
            host = urlsplit(f"//{part}").hostname
        except ValueError:
            continue  # Whoever opens it says what is wrong.
        if host and host not in LOCAL:
            yield host


def check_encrypted(setting: str, url: str, private: Collection[str]) -> None:
    """Refuse a URL by which anything would leave this machine unencrypted.

    Args:
        setting: its key, for the message.
        url: may hold a password, which is not repeated.
        private: hosts for which that is allowed.

    Raises:
        ValueError: saying what to write.
    """
    for host in plain_hosts(url):
        if host not in private:
            scheme = url.partition("://")[0]
            message = (
                f"setting {setting}: what goes to {host!r} would leave this machine unencrypted; write "
                f"{ENCRYPTED[scheme.lower()]}:// in place of {scheme}://, or name the host in network.plain if nobody "
                "else can read there"
            )
            raise ValueError(message)
