"""TLS to a broker's server: whom we trust, and how we prove who we are."""

from __future__ import annotations

import ssl

from siteward.broker import BrokerError
from siteward.settings import BrokerSettings


class WrongAddress(BrokerError):  # noqa: N818  # reads as the state it is.
    """The broker's URL, or a file that the settings name for it, cannot be used."""

    permanent = True


def tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    """What is trusted, and the client certificate.

    Raises:
        WrongAddress: naming the setting whose file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ssl.SSLError) as error:
        message = f"setting broker.ca: {settings.ca}: {error}"
        raise WrongAddress(message) from error
    if settings.certificate:
        try:
            context.load_cert_chain(settings.certificate, settings.key or None)
        except (OSError, ssl.SSLError) as error:
            message = f"settings broker.certificate and broker.key: {settings.certificate}: {error}"
            raise WrongAddress(message) from error
    return context
