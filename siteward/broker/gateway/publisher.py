"""Publishing over HTTP: each message a request, answered when the broker behind the gateway has confirmed it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPException
from ssl import SSLContext
from typing import Final
from urllib.parse import quote

from siteward.broker import BrokerError, Forbidden, Message, Rejected
from siteward.broker.gateway.answers import away, judge, too_large
from siteward.broker.gateway.connection import Answer, Connection
from siteward.broker.gateway.parts import halves
from siteward.broker.gateway.tokens import TokenSource
from siteward.broker.topology import split_key
from siteward.openers import bearer

LONGEST: Final = 20.0
"""Seconds of one call at most: an emitter that closes has time left to spool what was not confirmed."""


class GatewayPublisher:
    """Publishes to the gateway; what it answers for is stored, and sent again under the same ids it is stored once."""

    def __init__(self, url: str, context: SSLContext | None, tokens: TokenSource, timeout: float) -> None:
        """Connect when first used, and again whenever the connection was lost."""
        self._url = url
        self._connection = Connection(url, context)
        self._tokens = tokens
        self._timeout = min(timeout, LONGEST)
        self._too_large = float("inf")
        """Bytes of the smallest body that was too large; others of the size are cut before they are sent."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages one by one, in order, and stop at the first that is not confirmed.

        Raises:
            BrokerUnavailable: no connection, no token, no answer in time, or the answer is "not now".
            Forbidden: the token's bearer may send nothing under a key.
            Rejected: some records of a message are not taken.
        """
        deadline = time.monotonic() + self._timeout
        for stored, message in enumerate(messages):
            try:
                self._send(message, deadline)
            except BrokerError as error:
                error.stored = stored
                raise

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _send(self, message: Message, deadline: float) -> None:
        if len(message.body) < self._too_large:
            answer = self._asked(message, deadline)
            if answer.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                judge(answer, message, self._url)
                return
            self._too_large = len(message.body)
        parts = halves(message)
        if not parts:
            raise too_large(message, self._url)
        self._send_all(parts, deadline)

    def _send_all(self, parts: Sequence[Message], deadline: float) -> None:
        """Send what was one message; what is rejected of any part is told when all were sent."""
        said, left = "", list[Message]()
        for part in parts:
            try:
                self._send(part, deadline)
            except Rejected as error:
                said = said or str(error)
                left += error.left
        if left:
            raise Rejected(said, left)

    def _asked(self, message: Message, deadline: float) -> Answer:
        """The answer to a message; a token that is not taken is renewed once."""
        path, headers = _path(message.key), _headers(message)
        token = self._token()
        answer = self._post(path, message.body, headers | token, deadline)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            if not token:
                said = f"{self._url} asks for a token, and there is none; see BEARER_TOKEN_FILE, or [credentials]"
                raise away(said)
            self._tokens.refused(token["Authorization"].removeprefix("Bearer "))
            other = self._token()
            if other != token:
                answer = self._post(path, message.body, headers | other, deadline)
        return answer

    def _token(self) -> dict[str, str]:
        try:
            return bearer(self._tokens())
        except BrokerError:
            raise
        except Exception as error:
            # Whatever hinders its issuer, or whoever keeps its file, may be mended while the records wait.
            message = f"no token for {self._url}: {error}"
            raise away(message) from error

    def _post(self, path: str, body: bytes, headers: dict[str, str], deadline: float) -> Answer:
        try:
            return self._connection.post(path, body, headers, deadline)
        except (OSError, HTTPException) as error:
            message = f"{self._url}: {str(error) or type(error).__name__}"
            raise away(message) from error


def _path(key: str) -> str:
    try:
        return f"/v1/records/{quote(split_key(key)[1], safe='')}"
    except ValueError as error:
        raise Forbidden(str(error), key) from error


def _headers(message: Message) -> dict[str, str]:
    headers = {"Accept": "application/json", "Content-Type": message.content_type, "Prefer": "return=minimal"}
    return headers | ({"Content-Encoding": message.content_encoding} if message.content_encoding else {})
