"""What would leave this machine unencrypted: refused, unless the settings name the host as one of a private network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import urlsplit

from siteward.loopback import is_loopback

ENCRYPTED: Final = {"amqp": "amqps", "opensearch": "opensearchs", "http": "https"}
"""What to write in place of a scheme that encrypts nothing."""
_BEHIND: Final = re.compile("[/?#]")
"""What ends the hosts of a URL."""


def plain_hosts(url: str) -> Iterator[str]:
    """The hosts beyond this machine that a URL reaches without TLS; of several, with commas between them, each.

    Of one that can be read in two ways, since an @ stands behind its host or within a password, the hosts of both.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in ENCRYPTED:
        return
    for place in dict.fromkeys(_places(rest)):
        for part in place.split(","):
            try:
                host = urlsplit(f"//{part}").hostname
            except ValueError:
                continue  # Whoever opens it says what is wrong.
            if host and not is_loopback(host):
                yield host


def _places(rest: str) -> list[str]:
    """Where hosts may stand: before the path, as the standard has it; and behind the last @ of all."""
    before_path = _BEHIND.split(rest, maxsplit=1)[0].rpartition("@")[2]
    return [before_path, _BEHIND.split(rest.rpartition("@")[2], maxsplit=1)[0]]


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
        if host in private:
            continue
        if len({*_places(url.partition("://")[2])}) > 1:
            # One of the two hosts may be a piece of the password.
            message = (
                f"setting {setting}: an @ stands where it may end a password or belong to a path, and what goes there "
                "could leave this machine unencrypted; percent-encode it (@ is %40, / is %2F)"
            )
            raise ValueError(message)
        scheme = url.partition("://")[0]
        message = (
            f"setting {setting}: what goes to {host!r} would leave this machine unencrypted; write "
            f"{ENCRYPTED[scheme.lower()]}:// in place of {scheme}://, or name the host in network.plain if nobody "
            "else can read there"
        )
        raise ValueError(message)


def check_served(section: str, host: str, certificate: str, private: Collection[str]) -> None:
    """Refuse to listen beyond this machine without TLS.

    Args:
        section: of the settings, for the message.
        host: the address to listen on.
        certificate: what is spoken TLS with; "" where none is.
        private: addresses for which that is allowed.

    Raises:
        ValueError: saying what to set.
    """
    if certificate or is_loopback(host) or host in private:
        return
    message = (
        f"setting {section}.host: what is answered on {host!r} would leave this machine unencrypted; set "
        f"{section}.certificate and {section}.key, leave {section}.host at 127.0.0.1 behind a proxy with TLS, or "
        "name the address in network.plain if nobody else can read there"
    )
    raise ValueError(message)
