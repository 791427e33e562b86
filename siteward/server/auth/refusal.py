"""Why a token is not believed: named, so that whoever sent it can mend it and operators can count."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """What is wrong with a token. The words are those of metrics and of the audit."""

    MALFORMED = "malformed"
    """It is no signed token: too long, not three parts, not the JSON that it should be."""
    ALGORITHM = "algorithm"
    """Signed by an algorithm that is not accepted, or not meant for that key."""
    KEY = "key"
    """The issuer does not have the key, or it is too weak."""
    SIGNATURE = "signature"
    """The issuer did not sign this."""
    ISSUER = "issuer"
    """Nobody here trusts its issuer."""
    AUDIENCE = "audience"
    """It is meant for another service."""
    EXPIRED = "expired"
    EARLY = "early"
    """It is not valid yet, or was issued in the future."""
    CLAIM = "claim"
    """A claim is missing, or is not what it must be."""
    VERSION = "version"
    """It follows another version of its profile."""
    DENIED = "denied"
    """An administrator has denied it, or its subject, or that has logged out everywhere since; or its issuer has."""
    UNAVAILABLE = "unavailable"
    """Whether it is good cannot be told now: its issuer does not answer."""


class TokenRefused(Exception):  # noqa: N818  # reads as what happened.
    """A token that proves nothing. Its message never holds the token, nor what a stranger wrote into it unbounded.

    Attributes:
        reason: what is wrong.
        permanent: the same token is refused again.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        """Say what is wrong, and what would be right."""
        super().__init__(message)
        self.reason = reason
        self.permanent = reason not in {Reason.EARLY, Reason.UNAVAILABLE}


class Waits(Exception):  # noqa: N818  # no error: it says what would be needed.
    """To tell whether a token is good, its issuer would have to be asked.

    Attributes:
        issuer: which.
    """

    def __init__(self, issuer: str) -> None:
        """Name it."""
        super().__init__(issuer)
        self.issuer = issuer
