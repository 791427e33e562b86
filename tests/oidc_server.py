"""An issuer that answers over HTTP: log-in by code, device, service and refresh token, as a real one would."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from issuer import Issuer
from listening import listening

CLIENT: Final = "siteward-web"
COMMAND_LINE: Final = "siteward-cli"
SERVICE: Final = "siteward-service"
SECRET: Final = secrets.token_urlsafe(16)
"""Of the service; made anew each time."""
SUBJECT: Final = "d1b8c2f0-0000-4000-8000-000000000001"


class OidcServer:
    """One issuer.

    Attributes:
        issuer: signs its tokens.
        lasting: seconds that its access tokens are valid.
        claims: further claims of its ID tokens.
        userinfo: what it says beside them.
        consents: whether a person allows what is asked for.
        pending: answers about a device before it is allowed.
        asked: the grant types of the token requests so far, in order.
        refreshing: refresh tokens that are good now; each for one use.
        revoked: those that were taken back.
        given: access and ID tokens so far.
        answers: what it says in place of what it should, by the name of the method that would tell.
    """

    def __init__(self, url: str) -> None:
        """Answer at a URL."""
        self.issuer = Issuer(url)
        self.lasting = 3600
        self.claims: dict[str, object] = {"wlcg.groups": ["/dteam"]}
        self.userinfo: dict[str, object] = {}
        self.consents = True
        self.pending: list[str] = []
        self.asked: list[str] = []
        self.refreshing: set[str] = set()
        self.revoked: list[str] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self.given: set[str] = set()

    def signed(self, **changes: object) -> str:
        """A token that is valid now."""
        now = int(time.time())
        given: dict[str, object] = {"sub": SUBJECT, "iat": now, "nbf": now, "exp": now + self.lasting}
        return self.issuer.token(**{**given, **changes})

    def describe(self, _form: dict[str, str], _headers: Any) -> tuple[int, Any]:
        url = self.issuer.url
        names = {
            "authorization": "authorize",
            "token": "token",
            "device_authorization": "device",
            "userinfo": "userinfo",
            "revocation": "revoke",
            "end_session": "logout",
        }
        return 200, {"issuer": url, "jwks_uri": f"{url}/jwks"} | {
            f"{name}_endpoint": f"{url}/{path}" for name, path in names.items()
        }

    def jwks(self, _form: dict[str, str], _headers: Any) -> tuple[int, Any]:
        return 200, {"keys": self.issuer.published}

    def authorize(self, form: dict[str, str], _headers: Any) -> tuple[int, Any]:
        """Send the browser back at once: the person has allowed it before."""
        assert form["response_type"] == "code"
        assert form["code_challenge_method"] == "S256"
        back = {"state": form["state"], "iss": self.issuer.url}
        if self.consents:
            back["code"] = secrets.token_urlsafe(8)
            self._codes[back["code"]] = form
        else:
            back["error"] = "access_denied"
        return 302, f"{form['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str], headers: Any) -> tuple[int, Any]:
        """Give tokens, or say why not (RFC 6749 §5.2)."""
        self.asked.append(form["grant_type"])
        match form["grant_type"]:
            case "authorization_code":
                return self._for_code(form)
            case "refresh_token":
                return self._for_refresh(form)
            case "client_credentials":
                return self._for_service(form, headers)
        return (400, {"error": self.pending.pop(0)}) if self.pending else (200, self._tokens())

    def _for_code(self, form: dict[str, str]) -> tuple[int, Any]:
        asked = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if not asked or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        claims = {"aud": asked["client_id"], "nonce": asked["nonce"], **self.claims}
        identity = self.signed(**{"wlcg.ver": None, **claims})
        self.given.add(identity)
        return 200, self._tokens() | {"id_token": identity}

    def _for_refresh(self, form: dict[str, str]) -> tuple[int, Any]:
        if form["refresh_token"] not in self.refreshing:
            return 400, {"error": "invalid_grant", "error_description": "the refresh token is not good"}
        self.refreshing.remove(form["refresh_token"])
        return 200, self._tokens()

    def _for_service(self, form: dict[str, str], headers: Any) -> tuple[int, Any]:
        given = base64.b64decode(headers.get("Authorization", "Basic ").split()[1]).decode()
        if given != f"{SERVICE}:{SECRET}":
            return 401, {"error": "invalid_client"}
        return 200, self._tokens(sub=SERVICE, scope=form.get("scope", "")) | {"refresh_token": None}

    def device(self, form: dict[str, str], _headers: Any) -> tuple[int, Any]:
        """Begin the log-in of a program without a browser."""
        assert form["client_id"] == COMMAND_LINE
        return 200, {
            "device_code": secrets.token_urlsafe(8),
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.issuer.url}/allow",
            "expires_in": 600,
            "interval": 1,
        }

    def about(self, _form: dict[str, str], headers: Any) -> tuple[int, Any]:
        """Whose an access token is."""
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.given:
            return 401, {"error": "invalid_token"}
        return 200, {"sub": SUBJECT, **self.userinfo}

    def revoke(self, form: dict[str, str], _headers: Any) -> tuple[int, Any]:
        """Take a refresh token back."""
        self.revoked.append(form["token"])
        self.refreshing.discard(form["token"])
        return 200, ""

    def _tokens(self, **claims: object) -> dict[str, object]:
        access, refresh = self.signed(jti=secrets.token_hex(8), **claims), secrets.token_urlsafe(16)
        self.given.add(access)
        self.refreshing.add(refresh)
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.lasting,
            "refresh_token": refresh,
        }


@contextmanager
def oidc_server() -> Iterator[OidcServer]:
    """A running one, on loopback."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server = OidcServer(f"http://127.0.0.1:{http.server_address[1]}")
    http.RequestHandlerClass = _handler(server)
    with listening(http):
        yield server


def _handler(server: OidcServer) -> type[BaseHTTPRequestHandler]:
    names = {
        "/.well-known/openid-configuration": "describe",
        "/jwks": "jwks",
        "/authorize": "authorize",
        "/token": "token",
        "/device": "device",
        "/userinfo": "about",
        "/revoke": "revoke",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(dict(parse_qsl(urlsplit(self.path).query)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(dict(parse_qsl(body)))

        def _answer(self, form: dict[str, str]) -> None:
            name = names.get(urlsplit(self.path).path, "")
            if name in server.answers:
                status, told = server.answers[name]
            else:
                status, told = getattr(server, name)(form, self.headers) if name else (404, {"error": "not_found"})
            body = b"" if status == 302 else json.dumps(told).encode() if told else b""
            self.send_response(status)
            if status == 302:
                self.send_header("Location", str(told))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
