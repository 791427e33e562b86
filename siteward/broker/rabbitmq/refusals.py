"""What RabbitMQ, pika and the sockets below say when something fails, as errors of ours that say what to do."""

from __future__ import annotations

import re
import ssl
from typing import Final

from pika.exceptions import ConnectionClosed, ProbableAccessDeniedError, ProbableAuthenticationError

from siteward.broker import BrokerError, BrokerUnavailable
from siteward.broker.rabbitmq.addresses import Address

NOT_FOUND: Final = 404
ACCESS_REFUSED: Final = 403
PRECONDITION_FAILED: Final = 406
NOT_ALLOWED: Final = 530
COMMAND_INVALID: Final = 503


_CERTIFICATE: Final = re.compile("CERT|UNKNOWN_CA")
"""TLS's words for a certificate that one side does not take; all others may be a connection that was cut."""


class Refusal(BrokerError):  # noqa: N818  # reads as the state it is.
    """The server closed the channel because of what it was asked.

    Attributes:
        code: AMQP's reply code.
    """

    def __init__(self, code: int, text: str) -> None:
        """Take the server's words."""
        super().__init__(f"RabbitMQ refuses: {code} {text}")
        self.code = code
        self.text = text


def told(error: BaseException, address: Address) -> BrokerError:
    """An error of pika's, or of the sockets below it, as one of ours that says what to do."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and _CERTIFICATE.search(cause.reason or ""):
            return permanent(f"{address}: {cause}; see the settings broker.ca, broker.certificate and broker.key")
        if isinstance(cause, ProbableAuthenticationError):
            return permanent(f"{address}: user or password is wrong; see broker.url and broker.password_file")
        if isinstance(cause, ProbableAccessDeniedError) or (
            isinstance(cause, ConnectionClosed) and cause.reply_code == NOT_ALLOWED
        ):
            return permanent(f"{address}: there is no virtual host {address.vhost!r} for {address.user!r}")
        if isinstance(cause, ConnectionClosed) and cause.reply_code == COMMAND_INVALID:
            return permanent(f"{address}: {cause.reply_text}; is the plugin rabbitmq_consistent_hash_exchange enabled?")
    cause = causes[-1]
    return BrokerUnavailable(f"{address}: {str(cause) or type(cause).__name__}")


def permanent(message: str) -> BrokerError:
    """An error that another try does not mend."""
    error = BrokerError(message)
    error.permanent = True
    return error


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what pika has wrapped in it, outermost first."""
    found = [error]
    for each in found:
        inner = [*getattr(each, "exceptions", ()), getattr(each, "exception", None), *each.args]
        found += [one for one in inner if isinstance(one, BaseException) and one not in found]
    return found
