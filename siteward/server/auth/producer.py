"""What records call whoever sends them over HTTP: hosts and services by their names, people by their pseudonyms."""

from __future__ import annotations

import socket
from typing import Final

from siteward.people import People
from siteward.server.auth.identity import Identity

PERSON: Final = "user"
"""The dimension of people's names to which the name of a person who sends belongs, so that both are one."""


def producer_name(identity: Identity, people: People) -> str:
    """The name that a bearer sends records under; the issuer does not stand in it.

    Args:
        identity: the bearer; whoever is at this machine, without any token, sends as its gateway.
        people: what makes pseudonyms.

    Raises:
        siteward.people.PeopleUnavailable, siteward.settings.SettingsError, OSError: as `People.pseudonym`.
    """
    if not identity.token:
        return f"gateway@{socket.gethostname()}"
    if identity.is_person:
        return people.pseudonym(PERSON, identity.person)
    return identity.host or identity.subject
