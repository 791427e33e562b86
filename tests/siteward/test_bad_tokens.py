"""Every way we know to forge, bend or misuse a token is refused, by its reason and without asking anybody."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from issuer import (
    NOW,
    Clock,
    Issuer,
    as_json,
    b64,
    hmac_signature,
    joined,
    public_jwk,
    signature_of,
)

from siteward.server.auth.denied import DenyList
from siteward.server.auth.door import Door
from siteward.server.auth.profiles.local import GRANTS
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.token_text import LONGEST
from siteward.server.auth.verifier import Verifier
from siteward.server.database import Database
from siteward.settings import Settings

OTHER: Final = ec.generate_private_key(ec.SECP256R1())
"""Somebody else's key."""
Build = Callable[[Issuer], str]


def warm(profile: str = "wlcg") -> tuple[Issuer, Verifier]:
    """An issuer, and a verifier that knows its key already."""
    issuer = Issuer()
    verifier = Verifier({"dteam": issuer.settings(profile=profile)}, lambda _: issuer, Clock())
    verifier.verify(issuer.token(**{GRANTS: []}))
    return issuer, verifier


warmed: Final = cache(warm)
"""The same ones each time."""


def no_sessions() -> Any:
    """Nobody has logged in with a browser."""
    raise AssertionError


def _key(issuer: Issuer) -> Any:
    return list(issuer.keys.values())[-1]


def _confused(issuer: Issuer, secret: bytes, algorithm: str = "HS256") -> str:
    data = joined(issuer.header(alg=algorithm), issuer.claims()).rpartition(".")[0]
    return f"{data}.{b64(hmac_signature(secret, data.encode()))}"


def _changed(token: str, part: int, change: Callable[[str], str]) -> str:
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
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # only here.

    data = joined(issuer.header(), issuer.claims()).rpartition(".")[0]
    return f"{data}.{b64(_key(issuer).sign(data.encode(), ec.ECDSA(SHA256())))}"


def _own_key(issuer: Issuer, **header: object) -> str:
    return issuer.signed(issuer.header(**header), issuer.claims(), OTHER)


BAD: Final[dict[str, tuple[Reason, Build]]] = {
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
    "the other base64 alphabet": (Reason.MALFORMED, lambda i: _changed(i.token(), 2, lambda _: "+/+/")),
    "base64 with loose bits": (
        Reason.MALFORMED,
        lambda i: _changed(i.token(), 2, lambda part: part[:-1] + ("B" if part[-1] != "B" else "C")),
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
    "other claims": (Reason.SIGNATURE, lambda i: _changed(i.token(), 1, lambda _: b64(as_json(i.claims(sub="admin"))))),
    "another header": (
        Reason.SIGNATURE,
        lambda i: _changed(i.token(), 0, lambda _: b64(as_json(i.header(typ="at+jwt")))),
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
}


def refused(verifier: Verifier, token: str) -> TokenRefused:
    """The refusal of a token."""
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(token)
    return caught.value


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_by_its_reason(name: str) -> None:
    """No key is asked for anew but for the unknown ones; the message holds neither the token nor any line break."""
    # Another one each time: how often it is asked about unknown keys is counted.
    issuer, verifier = warm()
    reason, build = BAD[name]
    token = build(issuer)
    asked = len(issuer.asked)
    refusal = refused(verifier, token)
    assert refusal.reason is reason
    assert len(issuer.asked) - asked <= (2 if reason is Reason.KEY else 0)
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 500
    assert not any(len(part) > 20 and part in str(refusal) for part in token.split("."))


JTI: Final = "0c6d4b5e-0000-4000-8000-000000000002"
SUBJECT: Final = "d1b8c2f0-0000-4000-8000-000000000001"
Entry = Callable[[DenyList, str], object]


def _deny(**what: str) -> Entry:
    return lambda denied, issuer: denied.deny(issuer, by="boris", reason="stolen", **what)


def _end(denied: DenyList, issuer: str) -> None:
    denied.end_tokens(issuer, SUBJECT, by=SUBJECT, reason="logged out everywhere")


REPLAYED: Final[dict[str, tuple[Reason | None, Entry, Callable[[Issuer, Issuer], str]]]] = {
    # By the token's own name.
    "a denied token": (Reason.DENIED, _deny(token=JTI), lambda i, _: i.token()),
    "a denied token, signed again": (Reason.DENIED, _deny(token=JTI), lambda i, _: i.token(exp=NOW + 7200)),
    "a denied token in another one's name": (Reason.DENIED, _deny(token=JTI), lambda i, _: i.token(sub="admin")),
    "another token of its bearer": (None, _deny(token=JTI), lambda i, _: i.token(jti="another")),
    "that name in capitals": (None, _deny(token=JTI), lambda i, _: i.token(jti=JTI.upper())),
    "that name of another issuer": (None, _deny(token=JTI), lambda _, other: other.token()),
    # By the subject.
    "a token of a denied subject": (Reason.DENIED, _deny(subject=SUBJECT), lambda i, _: i.token()),
    "another token of a denied subject": (Reason.DENIED, _deny(subject=SUBJECT), lambda i, _: i.token(jti="another")),
    "a token of another subject": (None, _deny(subject=SUBJECT), lambda i, _: i.token(sub="somebody-else")),
    "that subject of another issuer": (None, _deny(subject=SUBJECT), lambda _, other: other.token()),
    "a subject that is called like the token": (None, _deny(subject=JTI), lambda i, _: i.token()),
    "a token that is called like the subject": (None, _deny(token=SUBJECT), lambda i, _: i.token()),
    # By the time of issue.
    "a token of before log-out everywhere": (Reason.DENIED, _end, lambda i, _: i.token()),
    "one of the moment before": (Reason.DENIED, _end, lambda i, _: i.token(iat=NOW - 1)),
    "one of after log-out everywhere": (None, _end, lambda i, _: i.token(iat=NOW + 1)),
    "one of before, of another subject": (None, _end, lambda i, _: i.token(sub="somebody-else")),
    "one of before, of another issuer": (None, _end, lambda _, other: other.token()),
}
"""What becomes of a token that was good, once something is denied."""


@pytest.mark.parametrize("name", REPLAYED)
def test_what_is_denied_is_refused_when_it_comes_again(tmp_path: Path, name: str) -> None:
    """It itself at once, although it was found good a moment ago; and nothing that only looks like it."""
    one, other = Issuer(), Issuer("https://other.iam.example")
    by_url: dict[str, Issuer] = {one.url: one, other.url: other}
    settings = Settings(data=str(tmp_path), issuers={"one": one.settings(), "other": other.settings(vos=("other",))})
    reason, entry, build = REPLAYED[name]
    token = build(one, other)

    async def replayed() -> Reason | None:
        try:
            await door.caller(f"Bearer {token}")
        except TokenRefused as refusal:
            return refusal.reason
        return None

    with closing(DenyList(Database(settings.access_url), Clock())) as denied:
        door = Door(settings, lambda: denied, no_sessions, fetch=lambda each: by_url[each.url], clock=Clock())
        assert anyio.run(replayed) is None
        entry(denied, one.url)
        assert anyio.run(replayed) is reason


def test_there_are_enough_of_them() -> None:
    """Sixty at least, of every reason but that an issuer does not answer."""
    assert len(BAD) >= 60
    reasons = {reason for reason, *_ in (*BAD.values(), *REPLAYED.values())} - {None}
    assert reasons == set(Reason) - {Reason.UNAVAILABLE}


def test_a_weak_key_is_no_key() -> None:
    """An RSA key of 1024 bits can be broken, whoever publishes it."""
    issuer = Issuer(algorithm="RS256")
    weak = rsa.generate_private_key(65537, 1024)
    issuer.published = [public_jwk(weak) | {"kid": "key-1"}]
    verifier = Verifier({"dteam": issuer.settings()}, lambda _: issuer, Clock())
    assert refused(verifier, issuer.signed(issuer.header(), issuer.claims(), weak)).reason is Reason.KEY


@pytest.mark.parametrize(
    "lie",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "RS256"},
        {"alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"crv": "P-384"},
        {"x": "AAAA"},
        {"y": ""},
        {"kid": 1},
        {"kid": ""},
        {"key_ops": "verify"},
        {"kty": ["EC"]},
    ],
    ids=str,
)
def test_a_key_that_is_meant_for_something_else_is_no_key(lie: dict[str, object]) -> None:
    """Its use, operations, algorithm, type and curve all have to fit; what is broken is left out, not an error."""
    issuer = Issuer()
    issuer.published[0] |= lie
    verifier = Verifier({"dteam": issuer.settings()}, lambda _: issuer, Clock())
    assert refused(verifier, issuer.token()).reason is Reason.KEY


@given(place=st.integers(0, 2), at=st.integers(0, 10_000), put=st.sampled_from("abcXYZ019-_.=+/ "))
def test_no_change_of_one_character_is_accepted(place: int, at: int, put: str) -> None:
    """Whatever character of a good token becomes another one: nothing is proved by it."""
    issuer, verifier = warmed()
    good = issuer.token()
    parts = good.split(".")
    at %= len(parts[place])
    if parts[place][at] == put:
        return
    refused(verifier, _changed(good, place, lambda part: part[:at] + put + part[at + 1 :]))


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: f"{b64(data)}.{b64(data)}.{b64(data)}"))
def test_whatever_is_no_token_is_refused(text: str) -> None:
    """Never another error than the refusal."""
    _, verifier = warmed()
    refused(verifier, text)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
CLAIMS: Final = (
    *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "wlcg.ver", "wlcg.groups", "scope", "typ", "azp"),
    *("entitlements", "eduperson_entitlement", GRANTS),
)


@given(
    profile=st.sampled_from(["wlcg", "aarc", "local"]),
    changes=st.dictionaries(st.sampled_from(CLAIMS), JSON, max_size=4),
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "cty", "zip", "jwk", "x5t"]), JSON, max_size=3
    ),
)
def test_signed_nonsense_is_judged_or_refused(
    profile: str, changes: dict[str, object], header: dict[str, object]
) -> None:
    """An issuer may sign anything: the answer is an identity or a refusal, and no other error."""
    issuer, verifier = warmed(profile=profile)
    token = issuer.signed(issuer.header() | header, issuer.claims() | changes)
    try:
        verified = verifier.verify(token)
    except TokenRefused:
        return
    assert verified.identity.issuer == issuer.url
    assert set(verified.identity.vos) <= {"dteam"}
