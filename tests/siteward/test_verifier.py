"""Good tokens prove what they say, through rotations of their issuer's keys and through its outages."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from at_once import all_at_once
from issuer import NOW, Clock, Issuer, as_json, b64
from joserfc.jws import JWSRegistry
from structlog.testing import capture_logs

from siteward.oauth.discovery import discovery_addresses
from siteward.oauth.fetching import FetchError
from siteward.server.auth import good_signatures
from siteward.server.auth.identity import Identity
from siteward.server.auth.keys import REFRESH, RETRY
from siteward.server.auth.profiles.local import GRANTS
from siteward.server.auth.profiles.wlcg import ANY_AUDIENCE
from siteward.server.auth.refusal import Reason, TokenRefused, Waits
from siteward.server.auth.userinfo import REFUSED
from siteward.server.auth.verifier import Verifier
from siteward.settings import IssuerSettings


def trusting(issuer: Issuer, clock: Clock | None = None, /, **changes: Any) -> Verifier:
    """A verifier that trusts one issuer and has not asked it yet."""
    return Verifier({"one": issuer.settings(**changes)}, lambda _: issuer, clock or Clock())


def reason_of(verifier: Verifier, token: str) -> Reason:
    """Why a token is refused."""
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(token)
    return caught.value.reason


def aarc(issuer: Issuer, *entitlements: str, **changes: Any) -> Identity:
    """Whom a token with entitlements proves; changes go to its claims."""
    settings: dict[str, Any] = {"profile": "aarc", "vos": ("dteam", "biomed", "lab.example.org")}
    token = issuer.token(eduperson_entitlement=list(entitlements), **changes)
    return trusting(issuer, **settings).verify(token).identity


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_good_token_proves_who_its_bearer_is(algorithm: str) -> None:
    """Issuer, subject, the token's own name, the VO of the issuer, groups; by each algorithm."""
    issuer = Issuer(algorithm=algorithm)
    found = trusting(issuer).verify(issuer.token()).identity
    assert (found.issuer, found.vos, found.groups) == (issuer.url, ("dteam",), frozenset({"/dteam"}))
    assert found.subject == issuer.claims()["sub"]
    assert found.token == issuer.claims()["jti"]
    assert found.expires == NOW + 3600


def test_the_newer_name_of_an_algorithm_is_accepted() -> None:
    """RFC 9864 calls Ed25519 what most still call EdDSA."""
    issuer = Issuer(algorithm="EdDSA")
    issuer.published[0]["alg"] = "Ed25519"
    assert trusting(issuer).verify(issuer.signed(issuer.header(alg="Ed25519"), issuer.claims()))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 59},
        {"nbf": NOW + 59, "iat": NOW + 59},
        {"exp": NOW + 0.5},
        {"aud": ["https://other.example", "https://siteward.example.org"]},
        {"aud": ANY_AUDIENCE},
        {"wlcg__ver": "1.3"},
        {"nbf": None},
        {"wlcg__groups": None},
        {"sub": "a" * 255},
        {"vo": "atlas", "roles": ["platform-admin"], "siteward.grants": [{"role": "admin", "vos": ["*"]}]},
    ],
    ids=str,
)
def test_what_the_profile_allows_is_accepted(changes: dict[str, object]) -> None:
    """A minute of skew, several audiences, any minor version; unknown claims change nothing."""
    issuer = Issuer()
    found = trusting(issuer).verify(issuer.token(**changes)).identity
    assert (found.vos, found.grants) == (("dteam",), ())


def test_tokens_for_any_service_can_be_refused() -> None:
    """Who steals one from another service could use it here."""
    issuer = Issuer()
    assert reason_of(trusting(issuer, any_audience=False), issuer.token(aud=ANY_AUDIENCE)) is Reason.AUDIENCE


@pytest.mark.parametrize("scope", ["storage.read:/", "compute.read", "siteward.report"])
def test_capabilities_go_before_groups(scope: str) -> None:
    """A token with a capability was made for less than its bearer may do (profile §2.2.3)."""
    issuer = Issuer()
    found = trusting(issuer).verify(issuer.token(scope=f"openid {scope}")).identity
    assert (found.groups, found.is_limited) == (frozenset(), True)
    assert found.scopes == {"openid", scope}
    whole = trusting(issuer).verify(issuer.token(scope="openid profile")).identity
    assert (set(whole.groups), whole.is_limited) == ({"/dteam"}, False)


@pytest.mark.parametrize(
    ("subject", "scope", "host"),
    [
        ("host:ce1.site.example", "host.auth", "ce1.site.example"),
        ("host:ce1.site.example", "openid", ""),
        ("ce1.site.example", "host.auth", ""),
        ("host:CE1.site.example", "host.auth", ""),
        ("host:localhost", "host.auth", ""),
        ("host:a..b", "host.auth", ""),
        ("host:*.site.example", "host.auth", ""),
    ],
)
def test_a_host_is_one_by_subject_and_capability(subject: str, scope: str, host: str) -> None:
    """Neither alone says so, and what is no host's name is none (profile §2.2.4)."""
    issuer = Issuer()
    assert trusting(issuer).verify(issuer.token(sub=subject, scope=scope)).identity.host == host


PERSONS: dict[str, tuple[dict[str, object], bool]] = {
    "who logged in": ({"client_id": "siteward-cli", "azp": "siteward-cli"}, True),
    "of no known client": ({}, True),
    "a client for itself": ({"client_id": "my-service", "sub": "my-service"}, False),
    "a client for itself, as OpenID Connect writes it": ({"azp": "my-service", "sub": "my-service"}, False),
    "two clients": ({"azp": "another", "client_id": "my-service", "sub": "my-service"}, False),
    "a client that is no text": ({"client_id": ["d1b8c2f0"], "azp": 7}, True),
    "whom records call nothing": ({"name": None}, True),
    "whom records call no text": ({"name": 7}, True),
}


@pytest.mark.parametrize("profile", ["wlcg", "aarc"])
@pytest.mark.parametrize("case", PERSONS)
def test_a_person_is_who_asked_no_token_for_itself_as_a_client(case: str, profile: str) -> None:
    """Whether or not the issuer says what records call them."""
    issuer, (changes, is_person) = Issuer(), PERSONS[case]
    token = issuer.token(**({"name": "/CN=Somebody"} | changes))
    assert trusting(issuer, profile=profile, person="name").verify(token).identity.is_person is is_person


def test_a_host_is_no_person() -> None:
    """But who only calls itself one is, as far as anybody knows."""
    issuer, host = Issuer(), "host:ce1.site.example"
    assert not trusting(issuer).verify(issuer.token(sub=host, scope="host.auth")).identity.is_person
    assert trusting(issuer).verify(issuer.token(sub=host)).identity.is_person


@pytest.mark.parametrize("profile", ["wlcg", "aarc"])
@pytest.mark.parametrize("name", ["x" * 1001, "a\nb", "\0", "\ud800"])
def test_a_name_that_no_record_holds_is_refused(name: str, profile: str) -> None:
    """Instead of making somebody nobody, whose subject would be shown."""
    issuer = Issuer()
    verifier = trusting(issuer, profile=profile, person="name")
    assert reason_of(verifier, issuer.token(name=name)) is Reason.CLAIM
    assert verifier.verify(issuer.token(name="/CN=Ünna " + "x" * 990)).identity.is_person


def test_entitlements_tell_groups_roles_and_sites() -> None:
    """The authority behind # does not matter (AARC-G069); digits and dots occur; portal roles name sites."""
    found = aarc(
        Issuer(),
        "urn:mace:egi.eu:group:dteam:role=ops#aai.egi.eu",
        "urn:mace:egi.eu:group:lab.example.org:sub2:role=member#other",
        "urn:mace:egi.eu:group:unknown:role=member#aai.egi.eu",
        "urn:geant:other.example:group:biomed:role=ops#aai.egi.eu",
        "urn:mace:egi.eu:goc.egi.eu:104G0:SITE-A:Site+Administrator@egi.eu",
        "nonsense",
    )
    assert found.vos == ("dteam", "lab.example.org")
    assert "urn:mace:egi.eu:group:dteam:role=ops" in found.entitlements
    assert found.sites == (("SITE-A", "Site Administrator"),)


def test_a_token_without_audience_needs_a_known_client() -> None:
    """Check-in gives audiences only to those who ask; then the client that asked has to be ours."""
    issuer = Issuer()
    clients: dict[str, Any] = {"profile": "aarc", "clients": ("siteward-web",)}
    verifier = trusting(issuer, **clients)
    assert verifier.verify(issuer.token(aud=None, azp="siteward-web"))
    assert reason_of(verifier, issuer.token(aud=None, azp="other")) is Reason.AUDIENCE
    assert reason_of(verifier, issuer.token(aud=None)) is Reason.AUDIENCE
    assert reason_of(verifier, issuer.token(aud="https://other.example", azp="siteward-web")) is Reason.AUDIENCE
    assert reason_of(trusting(issuer, profile="aarc"), issuer.token(aud=None, azp="siteward-web")) is Reason.AUDIENCE


@pytest.mark.parametrize("sort", ["ID", "Refresh", "Offline"])
def test_what_is_no_access_token_is_refused(sort: str) -> None:
    """The same issuer signs others with the same key."""
    issuer = Issuer()
    assert reason_of(trusting(issuer, profile="aarc"), issuer.token(typ=sort)) is Reason.CLAIM


def test_an_issuer_is_asked_for_its_keys_once() -> None:
    """Fifty tokens, two questions: its description and its keys."""
    issuer = Issuer()
    verifier = trusting(issuer)
    for number in range(50):
        verifier.verify(issuer.token(jti=str(number)))
    assert len(issuer.asked) == 2


def test_many_at_once_ask_an_issuer_once() -> None:
    """Whoever comes while it is asked waits for the same answer."""
    issuer = Issuer()
    verifier, token = trusting(issuer), issuer.token()
    assert not all_at_once([lambda: verifier.verify(token)] * 16)
    assert len(issuer.asked) == 2


def test_new_keys_are_found_when_they_are_first_used() -> None:
    """Also a moment after keys were asked for: a rotation is one question more; the withdrawn key proves nothing."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)
    old = issuer.token()
    verifier.verify(old)
    issuer.rotate("RS256")
    assert verifier.verify(issuer.token())
    assert len(issuer.asked) == 4
    assert reason_of(verifier, old) is Reason.UNAVAILABLE
    clock.now += 60
    assert reason_of(verifier, old) is Reason.KEY
    assert len(issuer.asked) == 6


def invented(issuer: Issuer, number: int = 0) -> str:
    """A token by a key that its issuer never had."""
    return issuer.signed(issuer.header(kid=f"invented-{number}"), issuer.claims())


def test_unknown_keys_do_not_make_us_ask_again_and_again() -> None:
    """A thousand tokens with invented keys are one question a minute; what is not asked is not said."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token())
    told = []
    for number in range(1000):
        reason = reason_of(verifier, invented(issuer, number))
        assert reason in {Reason.KEY, Reason.UNAVAILABLE}
        if reason is Reason.KEY:
            told.append(clock.now - NOW)
        clock.now += 0.25
    assert told == [0.0, 60.0, 120.0, 180.0, 240.0]
    assert len(issuer.asked) == 2 + 2 * len(told)


def test_a_stranger_delays_a_new_key_by_a_minute_at_most() -> None:
    """Who uses up the question keeps nobody out for good: what cannot be asked now is not refused for ever."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token())
    assert reason_of(verifier, invented(issuer)) is Reason.KEY
    issuer.rotate()
    token = issuer.token()
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(token)
    assert (caught.value.reason, caught.value.permanent) == (Reason.UNAVAILABLE, False)
    clock.now += 59
    assert reason_of(verifier, token) is Reason.UNAVAILABLE
    assert len(issuer.asked) == 4
    clock.now += 1
    # Whoever it is that asks, all keys are told.
    assert reason_of(verifier, invented(issuer)) is Reason.KEY
    assert verifier.verify(token)
    assert len(issuer.asked) == 6


def test_several_new_keys_are_one_question() -> None:
    """An issuer that publishes some at once, old ones among them, is asked once, whichever comes first."""
    issuer = Issuer()
    verifier = trusting(issuer)
    old, published, tokens = issuer.token(), [*issuer.published], []
    verifier.verify(old)
    for algorithm in ("ES256", "EdDSA", "RS256"):
        issuer.rotate(algorithm)
        published += issuer.published
        tokens.append(issuer.token())
    issuer.published = published
    for token in (*tokens, old):
        assert verifier.verify(token)
    assert len(issuer.asked) == 4


def test_an_outage_keeps_a_new_key_out_for_a_minute_at_most() -> None:
    """A question that was not answered counts, too; while the issuer is silent no unknown key is refused for good."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token())
    issuer.rotate()
    issuer.is_up = False
    for _ in range(10):
        assert reason_of(verifier, issuer.token()) is Reason.UNAVAILABLE
    assert len(issuer.asked) == 3
    issuer.is_up = True
    clock.now += 59
    assert reason_of(verifier, issuer.token()) is Reason.UNAVAILABLE
    clock.now += 1
    assert verifier.verify(issuer.token())


def test_a_clock_that_is_set_back_keeps_no_new_key_out() -> None:
    """The minute is over then."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token())
    reason_of(verifier, invented(issuer))
    issuer.rotate()
    clock.now -= 30
    assert verifier.verify(issuer.token())


def test_each_issuer_has_a_question_of_its_own() -> None:
    """Invented keys of one keep no new key of another out."""
    one, other = Issuer(), Issuer("https://other.iam.example")
    by_url: dict[str, Issuer] = {one.url: one, other.url: other}
    settings = {"one": one.settings(), "other": other.settings(vos=("other",))}
    verifier = Verifier(settings, lambda each: by_url[each.url], Clock())
    for issuer in (one, other):
        verifier.verify(issuer.token())
    for number in range(3):
        reason_of(verifier, invented(one, number))
    other.rotate()
    assert verifier.verify(other.token())


class Line:
    """The turn of those who want to ask an issuer, which tells who has come to it."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self._lock = threading.Lock()

    def acquire(self, *, blocking: bool) -> bool:
        self.came.release()
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()


def test_many_with_one_new_key_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the answer takes no further one, and is told the same; also of a key that there is not."""
    issuer, clock, line = Issuer(), Clock(), Line()
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token())
    issuer.rotate()
    token, unknown = issuer.token(), invented(issuer)
    assert not all_at_once([lambda: verifier.verify(token)] * 16)
    assert len(issuer.asked) == 4

    def slow(_headers: Mapping[str, str]) -> object:
        assert all(line.came.acquire(timeout=30) for _ in range(4))
        return {"keys": issuer.published}

    clock.now += 60
    issuer.extra[f"{issuer.url}/jwks"] = slow
    monkeypatch.setattr(verifier.trusted(issuer.url).keys, "_asking", line)
    refusals = all_at_once([lambda: verifier.verify(unknown)] * 4)
    assert [each.reason for each in refusals if isinstance(each, TokenRefused)] == [Reason.KEY] * 4
    assert len(issuer.asked) == 6


def test_a_known_name_with_another_algorithm_is_no_question() -> None:
    """It is a try to confuse, not a new key."""
    issuer = Issuer()
    verifier = trusting(issuer)
    verifier.verify(issuer.token())
    for _ in range(3):
        assert reason_of(verifier, issuer.signed(issuer.header(alg="RS256"), issuer.claims())) is Reason.KEY
    assert len(issuer.asked) == 2


def test_keys_are_asked_for_again_after_six_hours() -> None:
    """Not a second before (WLCG Common JWT Profile 1.3); from then on a withdrawn key proves nothing."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)
    token = issuer.token(exp=NOW + 10**6)
    verifier.verify(token)
    issuer.rotate()
    clock.now = NOW + 6 * 3600 - 1
    assert verifier.verify(token)
    assert len(issuer.asked) == 2
    clock.now = NOW + 6 * 3600 + 1
    assert reason_of(verifier, token) is Reason.KEY
    assert len(issuer.asked) == 4


def test_keys_are_believed_for_two_days_without_their_issuer() -> None:
    """Then nothing is (the same profile); and all is well again as soon as it answers."""
    issuer, clock = Issuer(), Clock()
    verifier = trusting(issuer, clock)

    def token() -> str:
        return issuer.token(iat=clock.now, nbf=clock.now, exp=clock.now + 600)

    verifier.verify(token())
    issuer.is_up = False
    for clock.now in (NOW + 6 * 3600 - 1, NOW + 6 * 3600 + 1, NOW + 2 * 24 * 3600 - 1):
        assert verifier.verify(token())
    clock.now = NOW + 2 * 24 * 3600 + 1
    assert reason_of(verifier, token()) is Reason.UNAVAILABLE
    issuer.is_up = True
    clock.now += RETRY
    assert verifier.verify(token())


@pytest.mark.parametrize("profile", ["wlcg", "aarc", "local"])
def test_clocks_may_differ_by_a_minute(profile: str) -> None:
    """Whatever the profile: a token is good from 60 seconds before it begins to 60 after its end, by our clock."""
    issuer, clock = Issuer(), Clock()
    issuer.further[GRANTS] = []
    verifier = trusting(issuer, clock, profile=profile)
    begins = (issuer.token(iat=NOW, nbf=None, exp=NOW + 600), issuer.token(iat=NOW - 600, nbf=NOW, exp=NOW + 600))
    for token in begins:
        for clock.now in (NOW - 60, NOW + 600, NOW + 600 + 59):
            assert verifier.verify(token)
        clock.now = NOW - 61
        assert reason_of(verifier, token) is Reason.EARLY
        clock.now = NOW + 600 + 60
        assert reason_of(verifier, token) is Reason.EXPIRED


def test_an_issuer_that_does_not_answer_is_not_asked_all_the_time() -> None:
    """Once a minute, however many tokens come."""
    issuer, clock = Issuer(), Clock()
    issuer.is_up = False
    verifier = trusting(issuer, clock)
    for _ in range(100):
        assert reason_of(verifier, issuer.token()) is Reason.UNAVAILABLE
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(("lasting", "refreshed"), [(60.0, 3600.0), (7200.0, 7200.0), (10**9, 6 * 3600.0)])
def test_keys_are_kept_for_an_hour_to_six(lasting: float, refreshed: float) -> None:
    """Whatever the issuer says: never less than an hour, never more than six."""
    issuer, clock = Issuer(), Clock()
    issuer.lasting = lasting
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token(exp=NOW + 10**6))
    clock.now = NOW + refreshed - 1
    verifier.verify(issuer.token(exp=NOW + 10**6))
    assert len(issuer.asked) == 2
    clock.now = NOW + refreshed
    verifier.verify(issuer.token(exp=NOW + 10**6))
    assert len(issuer.asked) == 4


class TestRestart:
    """A start while an issuer does not answer knows as much as who has run through it."""

    @pytest.fixture
    def clock(self) -> Clock:
        """A clock to move."""
        return Clock()

    @pytest.fixture
    def issuer(self) -> Issuer:
        """An issuer."""
        return Issuer()

    def started(self, folder: Path, issuer: Issuer, clock: Clock) -> Verifier:
        """As after a restart of the process."""
        return Verifier({"one": issuer.settings()}, lambda _: issuer, clock, folder)

    def lasting(self, issuer: Issuer) -> str:
        """A token that is good for long enough."""
        return issuer.token(exp=NOW + 10**6)

    def test_it_believes_for_two_days(self, tmp_path: Path, issuer: Issuer, clock: Clock) -> None:
        """Counted from when the issuer was asked, however often it is started since."""
        self.started(tmp_path, issuer, clock).verify(self.lasting(issuer))
        issuer.is_up = False
        for clock.now in (NOW + 60, NOW + 2 * 24 * 3600 - 1):
            assert self.started(tmp_path, issuer, clock).verify(self.lasting(issuer))
        clock.now = NOW + 2 * 24 * 3600 + 1
        assert reason_of(self.started(tmp_path, issuer, clock), self.lasting(issuer)) is Reason.UNAVAILABLE

    def test_it_asks_first(self, tmp_path: Path, issuer: Issuer, clock: Clock) -> None:
        """A start is a way to forget withdrawn keys at once."""
        old = self.lasting(issuer)
        self.started(tmp_path, issuer, clock).verify(old)
        issuer.rotate()
        again = self.started(tmp_path, issuer, clock)
        assert reason_of(again, old) is Reason.KEY
        assert again.verify(self.lasting(issuer))

    def test_userinfo_is_found_again(self, tmp_path: Path, issuer: Issuer, clock: Clock) -> None:
        """Where the issuer tells its keys no more, but still of its bearers."""
        issuer.extra[f"{issuer.url}/userinfo"] = lambda _: {"sub": issuer.claims()["sub"], "entitlements": []}
        settings = {"one": issuer.settings(profile="aarc", userinfo=True)}
        Verifier(settings, lambda _: issuer, clock, tmp_path).verify(issuer.token())

        def away(_headers: Mapping[str, str]) -> object:
            message = "no answer"
            raise FetchError(message)

        issuer.extra[f"{issuer.url}/.well-known/openid-configuration"] = away
        assert Verifier(settings, lambda _: issuer, clock, tmp_path).verify(issuer.token())

    def test_the_file_is_for_its_owner_and_holds_nothing_private(
        self, tmp_path: Path, issuer: Issuer, clock: Clock
    ) -> None:
        """Not even what the issuer has published by mistake."""
        issuer.published[0]["d"] = "the-private-part"
        self.started(tmp_path / "keys", issuer, clock).verify(self.lasting(issuer))
        (file,) = (tmp_path / "keys").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "key-1" in file.read_text()
        assert "private" not in file.read_text()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda _: "",
            lambda text: text[:-20],
            lambda _: "[" * 100_000,
            lambda text: text.replace("dteam.iam.example", "other.iam.example"),
            lambda text: text.replace(str(NOW), str(NOW + 3600)),
            lambda text: text.replace('"keys":[', '"keys":[1,'),
            lambda text: text.replace('"metadata":{', '"metadata":{"x":1,'),
        ],
    )
    def test_a_damaged_file_is_ignored(
        self,
        tmp_path: Path,
        issuer: Issuer,
        clock: Clock,
        damage: Callable[[str], str],
    ) -> None:
        """With a warning; the issuer is asked as at the first start, and the file is whole again."""
        self.started(tmp_path, issuer, clock).verify(self.lasting(issuer))
        (file,) = tmp_path.iterdir()
        whole = file.read_text()
        file.write_text(damage(whole))
        assert file.read_text() != whole
        issuer.is_up = False
        with capture_logs() as said:
            assert reason_of(self.started(tmp_path, issuer, clock), self.lasting(issuer)) is Reason.UNAVAILABLE
        assert "kept keys of an issuer not used" in [each["event"] for each in said]
        issuer.is_up = True
        assert self.started(tmp_path, issuer, clock).verify(self.lasting(issuer))
        assert file.read_text() == whole

    def test_a_file_that_others_may_change_is_ignored(self, tmp_path: Path, issuer: Issuer, clock: Clock) -> None:
        """They could have put their own keys there."""
        self.started(tmp_path, issuer, clock).verify(self.lasting(issuer))
        (file,) = tmp_path.iterdir()
        file.chmod(0o622)
        issuer.is_up = False
        assert reason_of(self.started(tmp_path, issuer, clock), self.lasting(issuer)) is Reason.UNAVAILABLE

    def test_where_nothing_can_be_kept_it_goes_on(self, tmp_path: Path, issuer: Issuer, clock: Clock) -> None:
        """A full disk refuses no token."""
        (tmp_path / "keys").write_text("in the way")
        assert self.started(tmp_path / "keys", issuer, clock).verify(self.lasting(issuer))


class TestRepeated:
    """A token that comes again costs no second computation of its signature, and is judged all the same."""

    @pytest.fixture
    def computed(self, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        """The signatures that were computed."""
        algorithm, computed = JWSRegistry.algorithms["ES256"], []
        verify = algorithm.verify

        def counted(message: bytes, signature: bytes, key: Any) -> bool:
            computed.append(signature)
            return bool(verify(message, signature, key))

        monkeypatch.setattr(algorithm, "verify", counted)
        return computed

    def test_it_is_computed_once(self, computed: list[bytes]) -> None:
        """Of each token."""
        issuer = Issuer()
        verifier = trusting(issuer)
        one, other = issuer.token(), issuer.token(jti="another")
        for _ in range(5):
            assert verifier.verify(one).identity.token != verifier.verify(other).identity.token
        assert len(computed) == 2

    def test_its_times_are_judged_each_time(self) -> None:
        """It is over when it is over."""
        issuer, clock = Issuer(), Clock()
        verifier = trusting(issuer, clock)
        token = issuer.token(exp=NOW + 100)
        assert verifier.verify(token)
        clock.now = NOW + 160
        assert reason_of(verifier, token) is Reason.EXPIRED

    def test_an_altered_one_is_computed(self, computed: list[bytes]) -> None:
        """With other claims, another header or another signature, it is another token."""
        issuer = Issuer()
        verifier = trusting(issuer)
        good = issuer.token()
        verifier.verify(good)
        header, claims, signature = good.split(".")
        other = issuer.token(sub="admin").split(".")
        for altered in (
            f"{header}.{other[1]}.{signature}",
            f"{b64(as_json(issuer.header(typ='at+jwt')))}.{claims}.{signature}",
            f"{header}.{claims}.{other[2]}",
        ):
            before = len(computed)
            assert reason_of(verifier, altered) is Reason.SIGNATURE
            assert reason_of(verifier, altered) is Reason.SIGNATURE
            assert len(computed) == before + 2

    def test_one_by_a_withdrawn_key_is_refused_at_the_next_refresh(self) -> None:
        """As if it came for the first time."""
        issuer, clock = Issuer(), Clock()
        verifier = trusting(issuer, clock)
        token = issuer.token(exp=NOW + 10**6)
        assert verifier.verify(token)
        issuer.rotate()
        clock.now += REFRESH
        assert reason_of(verifier, token) is Reason.KEY

    def test_one_by_a_key_that_was_replaced_is_refused(self) -> None:
        """The new one of the same name has not signed it."""
        issuer, clock = Issuer(), Clock()
        verifier = trusting(issuer, clock)
        token = issuer.token(exp=NOW + 10**6)
        assert verifier.verify(token)
        issuer.rotate()
        issuer.published[0]["kid"] = "key-1"
        clock.now += REFRESH
        assert reason_of(verifier, token) is Reason.SIGNATURE

    def test_only_so_many_are_known(self, computed: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that come again and again stay."""
        monkeypatch.setattr(good_signatures, "MOST", 3)
        issuer = Issuer()
        verifier = trusting(issuer)
        usual, others = issuer.token(), [issuer.token(jti=str(number)) for number in range(10)]
        for other in others:
            verifier.verify(usual)
            verifier.verify(other)
        assert len(computed) == 11
        verifier.verify(others[0])
        assert len(computed) == 12


def test_nobody_with_an_old_key_waits_for_a_slow_issuer() -> None:
    """One asks; the others go on with what is known."""
    issuer, clock, hangs, goes_on = Issuer(), Clock(), threading.Event(), threading.Event()
    verifier = trusting(issuer, clock)
    verifier.verify(issuer.token(exp=NOW + 10**6))
    clock.now += REFRESH

    def slow(_headers: Mapping[str, str]) -> object:
        hangs.set()
        assert goes_on.wait(10)
        return {"keys": issuer.published}

    issuer.extra[f"{issuer.url}/jwks"] = slow
    first = threading.Thread(target=verifier.verify, args=(issuer.token(exp=NOW + 10**6),))
    first.start()
    assert hangs.wait(10)
    assert verifier.verify(issuer.token(exp=NOW + 10**6, jti="another"))
    goes_on.set()
    first.join()


def test_it_says_when_it_would_have_to_wait() -> None:
    """So that the event loop never does."""
    issuer = Issuer()
    verifier = trusting(issuer)
    with pytest.raises(Waits):
        verifier.verify(issuer.token(), may_wait=False)
    verifier.verify(issuer.token())
    assert verifier.verify(issuer.token(), may_wait=False)


def test_an_issuer_with_a_path_is_found_both_ways() -> None:
    """RFC 8414 puts the well-known name before the path, OpenID Connect Discovery behind it."""
    assert discovery_addresses("https://aai.example/auth/realms/one") == (
        "https://aai.example/.well-known/openid-configuration/auth/realms/one",
        "https://aai.example/auth/realms/one/.well-known/openid-configuration",
    )
    assert discovery_addresses("https://iam.example/") == ("https://iam.example/.well-known/openid-configuration",)
    issuer = Issuer("https://aai.example/auth/realms/one")
    assert trusting(issuer).verify(issuer.token())
    assert len(issuer.asked) == 3


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://other.example", "jwks_uri": "https://dteam.iam.example/jwks"},
        {"issuer": "https://dteam.iam.example", "jwks_uri": "http://dteam.iam.example/jwks"},
        {"issuer": "https://dteam.iam.example", "jwks_uri": "file:///etc/keys"},
        {"issuer": "https://dteam.iam.example"},
        {"jwks_uri": "https://dteam.iam.example/jwks"},
        ["https://dteam.iam.example"],
    ],
    ids=str,
)
def test_a_description_of_somebody_else_is_not_believed(described: object) -> None:
    """Nor one whose keys would come over an open line."""
    issuer = Issuer()
    issuer.extra[f"{issuer.url}/.well-known/openid-configuration"] = lambda _: described
    assert reason_of(trusting(issuer), issuer.token()) is Reason.UNAVAILABLE


class TestUserinfo:
    """Entitlements that stand only where the issuer is asked with the token."""

    @pytest.fixture
    def asked(self) -> list[str]:
        """The tokens with which it was asked."""
        return []

    @pytest.fixture
    def issuer(self, asked: list[str]) -> Issuer:
        """An issuer that tells them."""
        issuer = Issuer()

        def told(headers: Mapping[str, str]) -> object:
            asked.append(headers["Authorization"])
            return {
                "sub": issuer.claims()["sub"],
                "eduperson_entitlement": ["urn:mace:egi.eu:group:dteam:role=member#aai.egi.eu"],
                "aud": "https://other.example",
                "exp": NOW + 10**9,
            }

        issuer.extra[f"{issuer.url}/userinfo"] = told
        return issuer

    @pytest.fixture
    def clock(self) -> Clock:
        """A clock to move."""
        return Clock()

    @pytest.fixture
    def verifier(self, issuer: Issuer, clock: Clock) -> Verifier:
        """One that asks there."""
        return trusting(issuer, clock, profile="aarc", userinfo=True)

    def test_they_are_asked_for_once_per_token(self, verifier: Verifier, issuer: Issuer, asked: list[str]) -> None:
        """As long as it is valid; nothing else that is told there replaces what was signed."""
        token = issuer.token()
        for _ in range(5):
            found = verifier.verify(token).identity
        assert (found.vos, found.expires) == (("dteam",), NOW + 3600)
        assert asked == [f"Bearer {token}"]
        verifier.verify(issuer.token(jti="another"))
        assert len(asked) == 2

    def test_many_at_once_ask_once(self, verifier: Verifier, issuer: Issuer, asked: list[str]) -> None:
        """Sixteen requests with one token are one question."""
        token = issuer.token()
        assert not all_at_once([lambda: verifier.verify(token)] * 16)
        assert len(asked) == 1

    def test_a_bad_token_is_never_sent_there(self, verifier: Verifier, issuer: Issuer, asked: list[str]) -> None:
        """It is refused before."""
        assert reason_of(verifier, issuer.token(exp=NOW - 100)) is Reason.EXPIRED
        assert reason_of(verifier, issuer.token(aud="https://other.example")) is Reason.AUDIENCE
        assert not asked

    def test_an_outage_is_no_answer(self, verifier: Verifier, issuer: Issuer, clock: Clock) -> None:
        """Who cannot be asked about is refused for now, and let in when the issuer answers again."""
        verifier.verify(issuer.token())
        issuer.is_up = False
        token = issuer.token(jti="another")
        assert reason_of(verifier, token) is Reason.UNAVAILABLE
        issuer.is_up = True
        assert reason_of(verifier, token) is Reason.UNAVAILABLE
        clock.now += RETRY
        assert verifier.verify(token)

    def test_an_answer_lasts_as_long_as_the_token(
        self, verifier: Verifier, issuer: Issuer, asked: list[str], clock: Clock
    ) -> None:
        """The minute by which clocks may differ included."""
        token = issuer.token(exp=NOW + 100)
        for clock.now in (NOW, NOW + 90, NOW + 110, NOW + 159):
            assert verifier.verify(token)
        assert len(asked) == 1

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_token_that_its_issuer_refuses_is_refused(self, verifier: Verifier, issuer: Issuer, status: int) -> None:
        """It was taken back: trying again later does not help."""

        def refuse(_headers: Mapping[str, str]) -> object:
            message = "refused"
            raise FetchError(message, status)

        issuer.extra[f"{issuer.url}/userinfo"] = refuse
        assert reason_of(verifier, issuer.token()) is Reason.DENIED

    def test_many_with_a_refused_token_ask_once(self, verifier: Verifier, issuer: Issuer, clock: Clock) -> None:
        """A refusal is kept for a minute, and no longer than the token is valid."""
        answer, refusals = issuer.extra[f"{issuer.url}/userinfo"], []

        def refuse(_headers: Mapping[str, str]) -> object:
            refusals.append(1)
            message = "refused"
            raise FetchError(message, 401)

        issuer.extra[f"{issuer.url}/userinfo"] = refuse
        token, brief = issuer.token(), issuer.token(exp=NOW - 50)
        told = all_at_once([lambda: verifier.verify(token)] * 10)
        assert [each.reason for each in told if isinstance(each, TokenRefused)] == [Reason.DENIED] * 10
        assert len(refusals) == 1
        issuer.extra[f"{issuer.url}/userinfo"] = answer
        clock.now += REFUSED - 1
        assert reason_of(verifier, token) is Reason.DENIED
        clock.now += 1
        assert verifier.verify(token)
        clock.now = NOW
        issuer.extra[f"{issuer.url}/userinfo"] = refuse
        assert reason_of(verifier, brief) is Reason.DENIED
        clock.now = NOW + 10
        assert reason_of(verifier, brief) is Reason.EXPIRED
        assert len(refusals) == 2

    def test_what_records_call_a_person_may_stand_there(self, issuer: Issuer, clock: Clock) -> None:
        """As Check-in's `voperson_id` does; nothing else is kept of what is told."""
        told = {"sub": issuer.claims()["sub"], "voperson_id": "anna@example.org", "address": "x" * 1000}
        issuer.extra[f"{issuer.url}/userinfo"] = lambda _: told
        verifier = trusting(issuer, clock, profile="aarc", userinfo=True, person="voperson_id")
        assert verifier.verify(issuer.token()).identity.person == "anna@example.org"

    def test_what_is_told_of_another_is_nobodys(self, verifier: Verifier, issuer: Issuer) -> None:
        """OpenID Connect Core §5.3.2."""
        assert reason_of(verifier, issuer.token(sub="somebody-else")) is Reason.UNAVAILABLE

    def test_it_says_when_it_would_have_to_wait(self, verifier: Verifier, issuer: Issuer) -> None:
        """Also when only userinfo is missing."""
        token = issuer.token()
        verifier.verify(token)
        with pytest.raises(Waits):
            verifier.verify(issuer.token(jti="another"), may_wait=False)
        assert verifier.verify(token, may_wait=False)


def test_two_issuers_do_not_speak_for_each_other() -> None:
    """A token of one, signed with the key of the other under the same name, is nobody's."""
    one, other = Issuer(), Issuer("https://other.iam.example")
    by_url: dict[str, Issuer] = {one.url: one, other.url: other}

    def asks(settings: IssuerSettings) -> Issuer:
        return by_url[settings.url]

    settings = {"one": one.settings(), "other": other.settings(vos=("other",))}
    verifier = Verifier(settings, asks, Clock())
    assert verifier.verify(one.token()).identity.vos == ("dteam",)
    assert verifier.verify(other.token()).identity.vos == ("other",)
    assert reason_of(verifier, other.token(iss=one.url)) is Reason.SIGNATURE
