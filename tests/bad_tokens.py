"""Tokens that prove nothing: every way we know to forge, bend or misuse one, by the profile of its issuer."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import NOW, Issuer, as_json, b64, hmac_signature, joined, public_jwk, signature_of

from siteward.server.auth.profiles.local import GRANTS
from siteward.server.auth.refusal import Reason
from siteward.server.auth.token_text import LONGEST

OTHER: Final = ec.generate_private_key(ec.SECP256R1())
"""Somebody else's key."""
Build = Callable[[Issuer], str]
Rows = Mapping[str, tuple[Reason, Build]]


def _key(issuer: Issuer) -> Any:
    return list(issuer.keys.values())[-1]


def _confused(issuer: Issuer, secret: bytes, algorithm: str = "HS256") -> str:
    data = joined(issuer.header(alg=algorithm), issuer.claims()).rpartition(".")[0]
    return f"{data}.{b64(hmac_signature(secret, data.encode()))}"


def changed(token: str, part: int, change: Callable[[str], str]) -> str:
    """A token of which one of the three parts was changed."""
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def _padded_claims(issuer: Issuer) -> str:
    header, claims = issuer.header(), as_json(issuer.claims())
    claims += b" " * (-(len(claims) + 2) % 3)
    data = f"{b64(as_json(header))}.{base64.urlsafe_b64encode(claims).decode()}"
    return f"{data}.{b64(signature_of(_key(issuer), data.encode()))}"


def _raw(issuer: Issuer, claims: bytes) -> str:
    return issuer.signed(issuer.header(), claims)


def _inserted(issuer: Issuer, text: str) -> str:
    return _raw(issuer, as_json(issuer.claims())[:-1] + text.encode() + b"}")


def _pem(issuer: Issuer) -> bytes:
    return bytes(_key(issuer).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _der(issuer: Issuer) -> bytes:
    return bytes(_key(issuer).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _zero_signature(issuer: Issuer) -> str:
    return joined(issuer.header(), issuer.claims(), bytes(64))


def _der_signature(issuer: Issuer) -> str:
    data = joined(issuer.header(), issuer.claims()).rpartition(".")[0]
    return f"{data}.{b64(_key(issuer).sign(data.encode(), ec.ECDSA(SHA256())))}"


def _own_key(issuer: Issuer, **header: object) -> str:
    return issuer.signed(issuer.header(**header), issuer.claims(), OTHER)


def _typed(claim: str, *wrong: str) -> dict[str, tuple[Reason, Build]]:
    """Rows in which a claim is of a wrong type of JSON, each a token that is good but for that."""
    return {f"{claim} is {called}": (Reason.CLAIM, _with(claim, TYPES[called])) for called in wrong}


def _with(claim: str, value: object) -> Build:
    return lambda issuer: issuer.signed(issuer.header(), issuer.claims() | {claim: value})


TYPES: Final[Mapping[str, object]] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "an integer": 1_790_000_000,
    "a fraction": 1.5,
    "a text": "dteam",
    "an empty text": "",
    "an object": {"dteam": True},
    "a list": ["dteam"],
    "a list of null": [None],
    "a list of numbers": [1],
    "a list of lists": [["dteam"]],
}
NO_TEXT: Final = ("null", "true", "false", "zero", "an integer", "a fraction", "an empty text", "an object", "a list")
NO_TIME: Final = ("true", "false", "a text", "an empty text", "an object", "a list")
NO_TEXTS: Final = (
    *("true", "false", "zero", "an integer", "a fraction", "a text", "an empty text", "an object"),
    *("a list of null", "a list of numbers", "a list of lists"),
)
BAD: Final[Rows] = {
    # What is no token.
    "nothing": (Reason.MALFORMED, lambda _: ""),
    "a word": (Reason.MALFORMED, lambda _: "password"),
    "two parts": (Reason.MALFORMED, lambda i: i.token().rpartition(".")[0]),
    "four parts": (Reason.MALFORMED, lambda i: f"{i.token()}.e30"),
    "encrypted, five parts": (Reason.MALFORMED, lambda i: f"{i.token()}.e30.e30"),
    "only dots": (Reason.MALFORMED, lambda _: ".."),
    "too long": (Reason.MALFORMED, lambda i: i.token(x="y" * LONGEST)),
    "a million characters": (Reason.MALFORMED, lambda _: "a" * 1_000_000),
    "beyond ASCII": (Reason.MALFORMED, lambda i: i.token().replace("e", "é", 1)),
    "a line break within": (Reason.MALFORMED, lambda i: i.token()[:20] + "\n" + i.token()[20:]),
    "a space before": (Reason.MALFORMED, lambda i: " " + i.token()),
    "a zero byte behind": (Reason.MALFORMED, lambda i: i.token() + "\0"),
    "padding in the claims": (Reason.MALFORMED, _padded_claims),
    "the other base64 alphabet": (Reason.MALFORMED, lambda i: changed(i.token(), 2, lambda _: "+/+/")),
    "base64 with loose bits": (
        Reason.MALFORMED,
        lambda i: changed(i.token(), 2, lambda part: part[:-1] + ("B" if part[-1] != "B" else "C")),
    ),
    "header is a list": (Reason.MALFORMED, lambda i: i.signed([], i.claims())),
    "header is no JSON": (Reason.MALFORMED, lambda i: i.signed(b"alg=ES256", i.claims())),
    "header twice an algorithm": (
        Reason.MALFORMED,
        lambda i: i.signed(b'{"alg":"none",' + as_json(i.header())[1:], i.claims()),
    ),
    "claims are a text": (Reason.MALFORMED, lambda i: i.signed(i.header(), "admin")),
    "claims are no JSON": (Reason.MALFORMED, lambda i: _raw(i, b"sub=admin")),
    "claims are not UTF-8": (Reason.MALFORMED, lambda i: _raw(i, b'{"sub":"\xff\xfe"}')),
    "claims are cut": (Reason.MALFORMED, lambda i: _raw(i, as_json(i.claims())[:-9])),
    "claims and more": (Reason.MALFORMED, lambda i: _raw(i, as_json(i.claims()) + b"{}")),
    "claims nested a thousand deep": (Reason.MALFORMED, lambda i: _raw(i, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}")),
    "claims twice a subject": (Reason.MALFORMED, lambda i: _inserted(i, ',"sub":"admin"')),
    "claims twice an issuer": (Reason.MALFORMED, lambda i: _inserted(i, ',"iss":"https://other.example"')),
    "claims twice within": (Reason.MALFORMED, lambda i: _inserted(i, ',"x":{"a":1,"a":2}')),
    "a number that is none": (Reason.MALFORMED, lambda i: _inserted(i, ',"x":NaN')),
    "an integer of five thousand digits": (Reason.MALFORMED, lambda i: _inserted(i, ',"x":' + "9" * 5000)),
    "a critical extension": (Reason.MALFORMED, lambda i: i.signed(i.header(crit=["exp"], exp=1), i.claims())),
    "an unencoded payload": (Reason.MALFORMED, lambda i: i.signed(i.header(crit=["b64"], b64=False), i.claims())),
    "a log-out token": (Reason.MALFORMED, lambda i: i.signed(i.header(typ="logout+jwt"), i.claims())),
    "a security event": (Reason.MALFORMED, lambda i: i.signed(i.header(typ="secevent+jwt"), i.claims())),
    "a type that is a list": (Reason.MALFORMED, lambda i: i.signed(i.header(typ=["JWT"]), i.claims())),
    # Algorithms.
    "alg none": (Reason.ALGORITHM, lambda i: joined(i.header(alg="none"), i.claims())),
    "alg None": (Reason.ALGORITHM, lambda i: joined(i.header(alg="None"), i.claims())),
    "alg none, signed": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg="none"), i.claims())),
    "alg missing": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg=None), i.claims())),
    "alg is a number": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg=256), i.claims())),
    "alg is a list": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg=["ES256"]), i.claims())),
    "alg in lower case": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg="es256"), i.claims())),
    "HMAC with the public key's PEM": (Reason.ALGORITHM, lambda i: _confused(i, _pem(i))),
    "HMAC with the public key's DER": (Reason.ALGORITHM, lambda i: _confused(i, _der(i))),
    "HMAC with the published key": (Reason.ALGORITHM, lambda i: _confused(i, as_json(i.published[0]))),
    "HMAC with nothing": (Reason.ALGORITHM, lambda i: _confused(i, b"")),
    "HS512": (Reason.ALGORITHM, lambda i: _confused(i, _pem(i), "HS512")),
    "ES384": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg="ES384"), i.claims())),
    "PS256": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg="PS256"), i.claims())),
    "RSA1_5": (Reason.ALGORITHM, lambda i: i.signed(i.header(alg="RSA1_5"), i.claims())),
    "another type of key, of that name": (Reason.KEY, lambda i: i.signed(i.header(alg="RS256"), i.claims())),
    "EdDSA over an elliptic curve's key": (Reason.KEY, lambda i: i.signed(i.header(alg="EdDSA"), i.claims())),
    # Keys.
    "no kid": (Reason.KEY, lambda i: i.signed(i.header(kid=None), i.claims())),
    "kid is empty": (Reason.KEY, lambda i: i.signed(i.header(kid=""), i.claims())),
    "kid is a number": (Reason.KEY, lambda i: i.signed(i.header(kid=1), i.claims())),
    "kid is unknown": (Reason.KEY, lambda i: i.signed(i.header(kid="key-99"), i.claims())),
    "kid is a path": (Reason.KEY, lambda i: i.signed(i.header(kid="../../../../dev/null"), i.claims())),
    "kid is a query": (Reason.KEY, lambda i: i.signed(i.header(kid="' OR 1=1 --"), i.claims())),
    "an embedded key": (Reason.KEY, lambda i: _own_key(i, jwk=public_jwk(OTHER))),
    "an address of keys": (Reason.KEY, lambda i: _own_key(i, jku="https://evil.example/jwks")),
    "an address of certificates": (Reason.KEY, lambda i: _own_key(i, x5u="https://evil.example/chain")),
    "an embedded certificate": (Reason.SIGNATURE, lambda i: _own_key(i, x5c=["MIIB"])),
    # Signatures.
    "another key of the same name": (Reason.SIGNATURE, _own_key),
    "no signature": (Reason.SIGNATURE, lambda i: joined(i.header(), i.claims())),
    "a signature of zeros": (Reason.SIGNATURE, _zero_signature),
    "a signature in another form": (Reason.SIGNATURE, _der_signature),
    "a signature of another token": (
        Reason.SIGNATURE,
        lambda i: f"{i.token(sub='admin').rpartition('.')[0]}.{i.token().rpartition('.')[2]}",
    ),
    "a signature that is too long": (Reason.SIGNATURE, lambda i: joined(i.header(), i.claims(), bytes(1000))),
    "other claims": (Reason.SIGNATURE, lambda i: changed(i.token(), 1, lambda _: b64(as_json(i.claims(sub="admin"))))),
    "another header": (
        Reason.SIGNATURE,
        lambda i: changed(i.token(), 0, lambda _: b64(as_json(i.header(typ="at+jwt")))),
    ),
    # Issuers.
    "an unknown issuer": (Reason.ISSUER, lambda i: i.token(iss="https://other.example")),
    "the issuer with a slash": (Reason.ISSUER, lambda i: i.token(iss=f"{i.url}/")),
    "the issuer in capitals": (Reason.ISSUER, lambda i: i.token(iss=i.url.upper())),
    "the issuer by http": (Reason.ISSUER, lambda i: i.token(iss=i.url.replace("https", "http"))),
    "the issuer as a prefix": (Reason.ISSUER, lambda i: i.token(iss=f"{i.url}.evil.example")),
    "the issuer with a user": (Reason.ISSUER, lambda i: i.token(iss="https://dteam.iam.example@evil.example")),
    "an issuer of the machine": (Reason.ISSUER, lambda i: i.token(iss="http://169.254.169.254/")),
    "an issuer that is a file": (Reason.ISSUER, lambda i: i.token(iss="file:///etc/passwd")),
    "no issuer": (Reason.CLAIM, lambda i: i.token(iss=None)),
    "issuers in a list": (Reason.CLAIM, lambda i: i.token(iss=[i.url])),
    # Audiences.
    "no audience": (Reason.AUDIENCE, lambda i: i.token(aud=None)),
    "another audience": (Reason.AUDIENCE, lambda i: i.token(aud="https://storage.example.org")),
    "other audiences": (Reason.AUDIENCE, lambda i: i.token(aud=["https://a.example", "https://b.example"])),
    "no audience in a list": (Reason.AUDIENCE, lambda i: i.token(aud=[])),
    "the audience as a prefix": (Reason.AUDIENCE, lambda i: i.token(aud="https://siteward.example.org.evil.example")),
    "the audience in capitals": (Reason.AUDIENCE, lambda i: i.token(aud="HTTPS://SITEWARD.EXAMPLE.ORG")),
    "the audience is a number": (Reason.CLAIM, lambda i: i.token(aud=1)),
    "the audience is an object": (Reason.CLAIM, lambda i: i.token(aud={"https://siteward.example.org": 1})),
    "audiences with a number": (Reason.CLAIM, lambda i: i.token(aud=["https://siteward.example.org", 1])),
    # Times.
    "expired": (Reason.EXPIRED, lambda i: i.token(exp=NOW - 61)),
    "expired a moment beyond the skew": (Reason.EXPIRED, lambda i: i.token(exp=NOW - 60)),
    "expired in 1970": (Reason.EXPIRED, lambda i: i.token(exp=0)),
    "no expiry": (Reason.CLAIM, lambda i: i.token(exp=None)),
    "expiry is a text": (Reason.CLAIM, lambda i: i.token(exp=str(NOW + 3600))),
    "expiry is true": (Reason.CLAIM, lambda i: i.token(exp=True)),
    "expiry is a list": (Reason.CLAIM, lambda i: i.token(exp=[NOW + 3600])),
    "expiry is negative": (Reason.CLAIM, lambda i: i.token(exp=-1)),
    "expiry beyond every clock": (Reason.CLAIM, lambda i: i.token(exp=10**300)),
    "expiry is endless": (
        Reason.CLAIM,
        lambda i: _raw(i, as_json(i.claims()).replace(b'"exp":1790003600', b'"exp":1e999')),
    ),
    "not yet valid": (Reason.EARLY, lambda i: i.token(nbf=NOW + 61)),
    "not before is a text": (Reason.CLAIM, lambda i: i.token(nbf="now")),
    "issued in the future": (Reason.EARLY, lambda i: i.token(iat=NOW + 61)),
    "no time of issue": (Reason.CLAIM, lambda i: i.token(iat=None)),
    "time of issue is null": (Reason.CLAIM, lambda i: i.signed(i.header(), {**i.claims(), "iat": None})),
    # Who, which, what version.
    "no subject": (Reason.CLAIM, lambda i: i.token(sub=None)),
    "the subject is empty": (Reason.CLAIM, lambda i: i.token(sub="")),
    "the subject is a number": (Reason.CLAIM, lambda i: i.token(sub=1)),
    "the subject is too long": (Reason.CLAIM, lambda i: i.token(sub="a" * 256)),
    "the subject breaks lines": (Reason.CLAIM, lambda i: i.token(sub="a\nb")),
    "the subject is beyond ASCII": (Reason.CLAIM, lambda i: i.token(sub="аdmin")),  # noqa: RUF001  # that is the point.
    "no jti": (Reason.CLAIM, lambda i: i.token(jti=None)),
    "jti is a list": (Reason.CLAIM, lambda i: i.token(jti=["a"])),
    # Of each wrong type of JSON.
    **_typed("iss", *NO_TEXT),
    **_typed("sub", *NO_TEXT),
    **_typed("jti", *NO_TEXT),
    **_typed("aud", "null", "true", "zero", "a fraction", "an object", "a list of null", "a list of lists"),
    **_typed("exp", "null", *NO_TIME),
    **_typed("iat", "null", *NO_TIME),
    **_typed("nbf", *NO_TIME),
}
"""Whatever the profile."""
BAD_WLCG: Final[Rows] = {
    "no version": (Reason.CLAIM, lambda i: i.token(wlcg__ver=None)),
    "version 2": (Reason.VERSION, lambda i: i.token(wlcg__ver="2.0")),
    "version 0.9": (Reason.VERSION, lambda i: i.token(wlcg__ver="0.9")),
    "version 10": (Reason.VERSION, lambda i: i.token(wlcg__ver="10.0")),
    "version 1 with more": (Reason.VERSION, lambda i: i.token(wlcg__ver="1.0; drop")),
    "version is a number": (Reason.CLAIM, lambda i: i.token(wlcg__ver=1.0)),
    "groups are a text": (Reason.CLAIM, lambda i: i.token(wlcg__groups="/dteam")),
    "groups with a number": (Reason.CLAIM, lambda i: i.token(wlcg__groups=["/dteam", 1])),
    "groups in an object": (Reason.CLAIM, lambda i: i.token(wlcg__groups={"/dteam": True})),
    "too many groups": (Reason.CLAIM, lambda i: i.token(wlcg__groups=["/a"] * 1001)),
    "scope is a list": (Reason.CLAIM, lambda i: i.token(scope=["siteward.report"])),
    **_typed("wlcg.ver", *NO_TEXT),
    **_typed("wlcg.groups", *NO_TEXTS),
    **_typed("scope", "true", "false", "zero", "a fraction", "an object", "a list"),
}
BAD_AARC: Final[Rows] = {
    "an ID token": (Reason.CLAIM, _with("typ", "ID")),
    "a refresh token": (Reason.CLAIM, _with("typ", "Refresh")),
    "an offline token": (Reason.CLAIM, _with("typ", "Offline")),
    "a log-out token by its claim": (Reason.CLAIM, _with("typ", "Logout")),
    "too many entitlements": (Reason.CLAIM, _with("entitlements", ["u"] * 1001)),
    **_typed("entitlements", *NO_TEXTS),
    **_typed("eduperson_entitlement", *NO_TEXTS),
}


def _granting(**changes: object) -> Build:
    return _with(GRANTS, [{"role": "reader", "vos": ["dteam"], "sites": []} | changes])


BAD_LOCAL: Final[Rows] = {
    "no grants": (Reason.CLAIM, lambda i: i.token(**{GRANTS: None})),
    **_typed(GRANTS, "null", *NO_TEXTS, "a list"),
    "a grant is an empty list": (Reason.CLAIM, _with(GRANTS, [[]])),
    "a grant says nothing": (Reason.CLAIM, _with(GRANTS, [{}])),
    "a grant has no role": (Reason.CLAIM, _with(GRANTS, [{"vos": ["dteam"]}])),
    "a grant has no VOs": (Reason.CLAIM, _with(GRANTS, [{"role": "reader"}])),
    "the second grant is none": (Reason.CLAIM, _with(GRANTS, [{"role": "reader", "vos": ["dteam"]}, "admin"])),
    "a grant with a field that nobody knows": (
        Reason.CLAIM,
        _with(GRANTS, [{"role": "reader", "vos": ["dteam"], "site": ["SITE-1"]}]),
    ),
    "grants within a text": (Reason.CLAIM, _with(GRANTS, '[{"role": "reader", "vos": ["dteam"]}]')),
    "an unknown role": (Reason.CLAIM, _granting(role="root")),
    "a role in capitals": (Reason.CLAIM, _granting(role="READER")),
    **{f"a role is {called}": (Reason.CLAIM, _granting(role=value)) for called, value in TYPES.items()},
    **{f"VOs are {called}": (Reason.CLAIM, _granting(vos=TYPES[called])) for called in ("null", *NO_TEXTS)},
    **{f"sites are {called}": (Reason.CLAIM, _granting(sites=TYPES[called])) for called in ("null", *NO_TEXTS)},
}
OWN: Final[Mapping[str, Rows]] = {"wlcg": BAD_WLCG, "aarc": BAD_AARC, "local": BAD_LOCAL}
"""What only one profile looks at."""
ALL: Final = {(profile, name): row for profile, own in OWN.items() for name, row in {**BAD, **own}.items()}
"""Every row, by each profile that it applies to."""
GOOD: Final[Mapping[str, Mapping[str, object]]] = {
    "wlcg": {},
    "aarc": {"eduperson_entitlement": ["urn:mace:egi.eu:group:dteam:role=member#aai.egi.eu"]},
    "local": {GRANTS: [{"role": "reader", "vos": ["dteam"]}]},
}
"""What a good token of a profile has beside the claims of a WLCG token."""
