"""What records call who sends them: a person is nobody's name there."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from siteward.people import Nobody
from siteward.server.auth.identity import Identity
from siteward.server.auth.local_person import local_person
from siteward.server.auth.producer import producer_name

CODE = "pseudonym-6d1f09a2b7c43e508a91"


class Known(Nobody):
    """Makes pseudonyms that can be read."""

    def pseudonym(self, dimension: str, name: str) -> str:
        """Of any name."""
        return f"pseudonym of {dimension} {name}"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"person": "/CN=Somebody"}, 'pseudonym of account ["https://iam.example","d1b8c2f0"]'),
        ({}, 'pseudonym of account ["https://iam.example","d1b8c2f0"]'),
        ({"person": "d1b8c2f0", "is_service": True}, "d1b8c2f0"),
        ({"is_service": True, "subject": CODE}, f'pseudonym of account ["https://iam.example","{CODE}"]'),
        ({"is_service": True, "subject": f"{CODE}/x"}, f'pseudonym of account ["https://iam.example","{CODE}/x"]'),
        ({"host": CODE}, 'pseudonym of account ["https://iam.example","d1b8c2f0"]'),
        ({"person": "host:ce1.site.example", "host": "ce1.site.example"}, "ce1.site.example"),
    ],
    ids=str,
)
def test_people_send_under_their_pseudonyms_and_others_under_their_names(parts: dict[str, Any], name: str) -> None:
    """So does who cannot be told from a person, or is called as a pseudonym of somebody else."""
    known: dict[str, Any] = {"issuer": "https://iam.example", "subject": "d1b8c2f0", "token": "t", "expires": 0.0}
    identity = Identity(**known | parts)
    assert producer_name(identity, Known()) == name


def test_who_is_at_this_machine_sends_as_its_gateway() -> None:
    """Whatever they are called; no table of names is asked."""
    assert producer_name(local_person().identity, Nobody()) == f"gateway@{socket.gethostname()}"
