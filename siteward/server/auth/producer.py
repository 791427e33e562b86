"""What records call whoever sends them over HTTP: hosts and services by their names, people by pseudonyms."""

from __future__ import annotations

import socket
from typing import Final

import msgspec

from siteward.people import People
from siteward.pseudonyms import PSEUDONYM
from siteward.server.auth.identity import Identity

ACCOUNT: Final = "account"
"""In the place of a dimension: for pseudonyms of accounts, which no table of names knows."""


def account_of(identity: Identity) -> str:
    """Who a bearer is: no two of different issuers, and of one issuer, are the same."""
    return msgspec.json.encode((identity.issuer, identity.subject)).decode()


def is_told_by_name(identity: Identity) -> bool:
    """Whether records may call a bearer by its name: no person, and nobody whose name would be read as a pseudonym."""
    return not identity.is_person and not PSEUDONYM.match(_name(identity))


def producer_name(identity: Identity, people: People) -> str:
    """The name that a bearer sends records under; the issuer does not stand in it.

    Of a person it is a pseudonym of the account, not of the name: two may have one name, and only the account is nobody
    else's.

    Args:
        identity: the bearer; whoever is at this machine, without any token, sends as its gateway.
        people: what makes pseudonyms.

    Raises:
        siteward.people.PeopleUnavailable, siteward.settings.SettingsError: as `People.pseudonym`.
    """
    if not identity.token:
        return f"gateway@{socket.gethostname()}"
    return _name(identity) if is_told_by_name(identity) else people.pseudonym(ACCOUNT, account_of(identity))


def _name(identity: Identity) -> str:
    return identity.host or identity.subject
