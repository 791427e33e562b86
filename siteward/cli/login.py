"""`siteward login` and `siteward logout`: who you are, said once to your issuer in any browser."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer

from siteward.cli.options import options
from siteward.cli.output import tell
from siteward.cli.query import app_url
from siteward.cli.verbs import notes_itself
from siteward.client import Client, IssuerTold
from siteward.hiding import without_password
from siteward.plain_text import plain_hosts
from siteward.server.auth import Permission

UNKNOWN: Final = 600.0
"""Seconds after which a token is renewed whose issuer does not say how long it is valid."""

if TYPE_CHECKING:
    from siteward.oauth.client import IssuerClient, Tokens
    from siteward.oauth.logins import Login


@notes_itself(Permission.IDENTIFIED)
def login(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The app's address; by default this installation's.")] = "",
    issuer: Annotated[str, typer.Option(help="Your issuer, as the app calls it; where it knows several.")] = "",
    audience: Annotated[str, typer.Option(help="The app's name in tokens, where that is not its address.")] = "",
) -> None:
    """Log in at your VO's issuer, for commands with --url.

    The issuer is asked for a code, which you enter in any browser, on any machine. What it then gives is renewed at
    need, and kept in the desktop's keyring, or in a file that only you may read.
    """
    from siteward.oauth.logins import keep  # noqa: PLC0415  # `--help` needs none of it.

    address = _address(context, url)
    chosen = _chosen(Client(address).issuers(), issuer)
    if chosen.audience not in {address, audience}:
        # An app that is not what it says could else have a token made out that another one believes.
        message = (
            f"{address} wants tokens made out to {chosen.audience!r}, which is not its address; if you know that "
            f"this is its name, say so with --audience {chosen.audience}"
        )
        raise typer.BadParameter(message)
    client = _client(chosen.url, chosen.client)
    # Without it, nothing could be renewed.
    scopes = (*chosen.scopes, "offline_access")
    device = client.begin_device(scopes, chosen.audience)
    tell(f"{address} is to get a token of {chosen.url} for {chosen.audience}, with {' '.join(scopes)}")
    tell(f"open {device.complete or device.address} in a browser, and allow the code {device.code}")
    tokens = client.allowed(device)
    made = _login(chosen.url, chosen.client, tokens)
    told = Client(address, made.access).whoami()
    keep(address, made)
    roles = ", ".join(dict.fromkeys(grant.role for grant in told.grants)) or "no role"
    tell(_printable(f"logged in at {address} as {told.subject} of {told.issuer}: {roles}"))


@notes_itself(Permission.IDENTIFIED)
def logout(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The app's address; by default this installation's.")] = "",
) -> None:
    """Forget the tokens of `siteward login`, and tell the issuer that they are not needed any more."""
    from siteward.oauth.client import IssuerRefuses  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.oauth.fetching import FetchError  # noqa: PLC0415
    from siteward.oauth.logins import forget  # noqa: PLC0415

    address = _address(context, url)
    forgotten = forget(address)
    for found in forgotten.logins:
        if found.refresh:
            with suppress(IssuerRefuses):
                try:
                    _client(found.issuer, found.client).revoke(found.refresh)
                except FetchError as error:
                    tell(f"the issuer could not be told: {error}")
    if forgotten.remains:
        tell(
            f"not logged out: the keyring may keep tokens for {address} still ({forgotten.remains}); unlock it, or go "
            "to where it is, and run `siteward logout` again"
        )
        raise typer.Exit(1)
    tell(f"logged out at {address}" if forgotten.logins else f"nobody is logged in at {address}")


def renewed(login: Login) -> Login:
    """A log-in with new tokens.

    Raises:
        siteward.oauth.client.IssuerRefuses: it is over.
        siteward.oauth.fetching.FetchError: the issuer does not answer.
    """
    from siteward.oauth.client import IssuerRefuses  # noqa: PLC0415  # only where something is over.

    if not login.refresh:
        message = f"your log-in at {login.issuer} is over; run `siteward login` again"
        raise IssuerRefuses(message)
    return _login(login.issuer, login.client, _client(login.issuer, login.client).refreshed(login.refresh))


def _login(issuer: str, client: str, tokens: Tokens) -> Login:
    from siteward.oauth.logins import Login  # noqa: PLC0415  # as above.

    # One that does not say how long it is good is renewed soon, where it can be.
    lasting = tokens.lasting or (UNKNOWN if tokens.refresh else 0.0)
    ends = time.time() + lasting if lasting else 0.0
    return Login(issuer, client, tokens.access, tokens.refresh, ends)


def _client(issuer: str, name: str) -> IssuerClient:
    try:
        from siteward.oauth.client import IssuerClient  # noqa: PLC0415  # needs the extra.
    except ImportError as error:
        message = f"log-in needs the extra siteward[login]: {error}"
        raise typer.BadParameter(message) from error
    return IssuerClient(issuer, name)


def _address(context: typer.Context, url: str) -> str:
    address = (url or app_url(options(context).settings)).rstrip("/")
    if list(plain_hosts(address)):
        message = f"{without_password(address)}: tokens would be readable on their way; write https://"
        raise typer.BadParameter(message)
    if not address:
        message = "no app of this installation runs; give the address of one"
        raise typer.BadParameter(message)
    return address


def _printable(text: str) -> str:
    """A text of which others wrote parts, for a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _chosen(issuers: list[IssuerTold], name: str) -> IssuerTold:
    known = {each.name: each for each in issuers if each.client and f"{each.url}{each.audience}".isprintable()}
    if not known:
        message = "this app names no issuer for log-in on a command line (issuers.….device_client)"
        raise typer.BadParameter(message)
    if name:
        if name not in known:
            message = f"there is no issuer {name!r} for this; there are {', '.join(known)}"
            raise typer.BadParameter(message)
        return known[name]
    if len(known) > 1:
        message = f"say at which issuer, with --issuer: {', '.join(known)}"
        raise typer.BadParameter(message)
    return next(iter(known.values()))
