"""Which hosts are this machine itself: whence one may come in without a token, and whereto secrets may go plain."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, without port, is this machine's own loopback: `localhost`, ::1, or an address of 127.0.0.0/8.

    No other name is, whatever a server of names says of it: that may be another thing tomorrow. Short forms (`127.1`)
    are none either, since not everything reads them alike.
    """
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
