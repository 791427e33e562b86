"""A token issuer in memory: answers as one on the network would, rotates its keys, goes away, and signs anything."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from siteward.oauth.fetching import Fetched, FetchError
from siteward.settings import GrantSettings, IssuerSettings

NOW: Final = 1_790_000_000.0
"""What the tests' clocks show at first."""
AUDIENCE: Final = "https://siteward.example.org"
SignatureKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Clock:
    """Shows what a test says."""

    def __init__(self, now: float = NOW) -> None:
        """Start then."""
        self.now = now

    def __call__(self) -> float:
        """Seconds since 1970 UTC."""
        return self.now


def b64(data: bytes) -> str:
    """As tokens write bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: object) -> bytes:
    """As tokens write claims."""
    return json.dumps(value, separators=(",", ":")).encode()


def joined(header: object, claims: object, signature: bytes = b"") -> str:
    """A token, signed by whatever is given; what is bytes already stays as it is."""
    parts = [part if isinstance(part, bytes) else as_json(part) for part in (header, claims)]
    return ".".join(map(b64, [*parts, signature]))


def signature_of(key: SignatureKey, data: bytes) -> bytes:
    """Sign as RS256, ES256 or EdDSA, by the key's type."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def hmac_signature(secret: bytes, data: bytes) -> bytes:
    """Sign as HS256."""
    return hmac.new(secret, data, hashlib.sha256).digest()


def _number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or -(-value.bit_length() // 8), "big"))


def public_jwk(key: SignatureKey) -> dict[str, Any]:
    """The public key as issuers publish it, without a name."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    point = key.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}


ALGORITHMS: Final[Mapping[str, Callable[[], SignatureKey]]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Issuer:
    """One issuer.

    Attributes:
        url: its name.
        keys: by their names; its newest one is the last.
        published: what it publishes of them; changing it is how a test makes it lie.
        asked: every address that it was asked for.
        is_up: whether it answers.
        extra: further answers, by address.
        further: claims that its good tokens have beside those of a WLCG token.
    """

    def __init__(self, url: str = "https://dteam.iam.example", algorithm: str = "ES256") -> None:
        """With one key."""
        self.url = url
        self.algorithm = algorithm
        self.keys: dict[str, SignatureKey] = {}
        self.published: list[Any] = []
        self.asked: list[str] = []
        self.is_up = True
        self.lasting: float | None = None
        self.extra: dict[str, Callable[[Mapping[str, str]], object]] = {}
        self.further: dict[str, object] = {}
        self.rotate()

    def rotate(self, algorithm: str = "") -> str:
        """Make a new key, and withdraw all older ones; its name."""
        self.algorithm = algorithm or self.algorithm
        name = f"key-{len(self.keys) + 1}"
        self.keys[name] = ALGORITHMS[self.algorithm]()
        self.published = [public_jwk(self.keys[name]) | {"kid": name, "use": "sig", "alg": self.algorithm}]
        return name

    def __call__(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """Answer as siteward.oauth.fetching.Fetch."""
        self.asked.append(url)
        if not self.is_up:
            message = f"{url}: no answer"
            raise FetchError(message)
        if url in self.extra:
            return Fetched(as_json(self.extra[url](headers)), self.lasting)
        if url == f"{self.url.rstrip('/')}/.well-known/openid-configuration":
            described = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/jwks",
                "userinfo_endpoint": f"{self.url}/userinfo",
            }
            return Fetched(as_json(described))
        if url == f"{self.url}/jwks":
            return Fetched(as_json({"keys": self.published}), self.lasting)
        message = f"{url}: HTTP Error 404: Not Found"
        raise FetchError(message)

    def claims(self, **changes: object) -> dict[str, object]:
        """Those of a good token; a change to None leaves one out. Dots in names are written `__`."""
        claims: dict[str, object] = {
            "wlcg.ver": "1.0",
            "iss": self.url,
            "sub": "d1b8c2f0-0000-4000-8000-000000000001",
            "aud": AUDIENCE,
            "jti": "0c6d4b5e-0000-4000-8000-000000000002",
            "iat": int(NOW) - 60,
            "nbf": int(NOW) - 60,
            "exp": int(NOW) + 3600,
            "wlcg.groups": ["/dteam"],
        }
        claims |= self.further | {name.replace("__", "."): value for name, value in changes.items()}
        return {name: value for name, value in claims.items() if value is not None}

    def header(self, **changes: object) -> dict[str, object]:
        """That of its tokens; a change to None leaves one out."""
        header: dict[str, object] = {"alg": self.algorithm, "kid": list(self.keys)[-1], "typ": "JWT"}
        return {name: value for name, value in (header | changes).items() if value is not None}

    def signed(self, header: object, claims: object, key: SignatureKey | None = None) -> str:
        """A token of any header and claims, signed by its newest key or another one."""
        data = joined(header, claims).rpartition(".")[0]
        return f"{data}.{b64(signature_of(key or list(self.keys.values())[-1], data.encode()))}"

    def token(self, **changes: object) -> str:
        """A token that is good but for the changes of its claims."""
        return self.signed(self.header(), self.claims(**changes))

    def settings(self, *grants: GrantSettings, **changes: Any) -> IssuerSettings:
        """How it is trusted."""
        given: dict[str, Any] = {"profile": "wlcg", "vos": ("dteam",), "audiences": (AUDIENCE,), "grants": grants}
        return IssuerSettings(url=self.url, **(given | changes))
