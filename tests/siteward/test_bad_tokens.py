"""Every way we know to forge, bend or misuse a token is refused, by its reason and without asking anybody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from bad_tokens import ALL, BAD, GOOD, OWN, changed
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from issuer import NOW, Clock, Issuer, b64, public_jwk

from siteward.server.auth.denied import DenyList
from siteward.server.auth.door import Door
from siteward.server.auth.profiles.local import GRANTS
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.verifier import PROFILES, Verifier
from siteward.server.database import Database
from siteward.settings import Settings


def warm(profile: str = "wlcg") -> tuple[Issuer, Verifier]:
    """An issuer whose tokens are good, and a verifier that knows its key already."""
    issuer = Issuer()
    issuer.further |= GOOD[profile]
    verifier = Verifier({"dteam": issuer.settings(profile=profile)}, lambda _: issuer, Clock())
    assert verifier.verify(issuer.token()).identity.vos == ("dteam",)
    return issuer, verifier


warmed: Final = cache(warm)
"""The same ones each time."""


def no_sessions() -> Any:
    """Nobody has logged in with a browser."""
    raise AssertionError


def refused(verifier: Verifier, token: str) -> TokenRefused:
    """The refusal of a token."""
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(token)
    return caught.value


@pytest.mark.parametrize(("profile", "name"), ALL)
def test_a_bad_token_is_refused_by_its_reason(profile: str, name: str) -> None:
    """By every profile it applies to. No key is asked for anew but for unknown ones; the message tells no token."""
    # Another one each time: how often it is asked about unknown keys is counted.
    issuer, verifier = warm(profile)
    reason, build = ALL[profile, name]
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
    """Sixty at least whatever the profile, and of each one's own; of every reason but that an issuer is silent."""
    assert len(BAD) >= 60
    assert set(OWN) == set(PROFILES)
    assert min(map(len, OWN.values())) >= 20
    reasons = {reason for reason, *_ in (*ALL.values(), *REPLAYED.values())} - {None}
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
    refused(verifier, changed(good, place, lambda part: part[:at] + put + part[at + 1 :]))


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
