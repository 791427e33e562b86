"""How an issuer describes itself: which addresses it has, read where the standards say (RFC 8414, OpenID Connect)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from siteward.oauth.fetching import Fetch, FetchError, check_address

SHOWN: Final = 80
"""Characters of a stranger's text that a message repeats."""

Metadata = Mapping[str, object]


def described_by(issuer: str, fetch: Fetch) -> Metadata:
    """How an issuer describes itself (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

    Args:
        issuer: its exact name, which is the address below which it describes itself.
        fetch: asks it.

    Raises:
        FetchError: it cannot be asked.
        ValueError: it describes another issuer, or is no JSON object.
    """
    *others, last = discovery_addresses(issuer)
    for address in others:
        try:
            return _described(issuer, address, fetch)
        except (FetchError, ValueError):
            continue
    return _described(issuer, last, fetch)


def _described(issuer: str, address: str, fetch: Fetch) -> Metadata:
    metadata = json_object(fetch(address, {}).body)
    if metadata.get("issuer") != issuer:
        message = f"{address} describes the issuer {ascii(metadata.get('issuer'))[:SHOWN]}, not {issuer!r}"
        raise ValueError(message)
    return metadata


def discovery_addresses(issuer: str) -> tuple[str, ...]:
    """Where an issuer describes itself: before its path (RFC 8414 §3.1), then behind it (OpenID Connect Discovery)."""
    parts = urlsplit(issuer)
    behind = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    path = parts.path.rstrip("/")
    return (f"{parts.scheme}://{parts.netloc}/.well-known/openid-configuration{path}", behind) if path else (behind,)


def address_in(metadata: Metadata, name: str) -> str:
    """An address that an issuer gives of itself.

    Raises:
        ValueError: it gives none, or one from which nothing believable comes.
    """
    address = metadata.get(name)
    if not isinstance(address, str):
        message = f"its description has no {name}"
        raise ValueError(message)  # noqa: TRY004  # one error for all that is wrong with a description.
    check_address(address, name)
    return address


def json_object(body: bytes) -> Mapping[str, object]:
    """An answer that has to be a JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(body)
    except RecursionError as error:
        message = "the answer is nested too deep"
        raise ValueError(message) from error
    if not isinstance(found, dict):
        message = "the answer is no JSON object"
        raise ValueError(message)  # noqa: TRY004  # as above.
    return found
