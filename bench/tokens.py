"""What it costs to judge a token whose issuer's keys are known, beside the signature's own check."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from bench.asked import Asked
from siteward.server.auth.token_text import read_token
from siteward.server.auth.verifier import Verifier

if TYPE_CHECKING:
    from issuer import Issuer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
TITLE: Final = "## Tokens"
MOST_MILLISECONDS: Final = 0.2
CHECKED: Final = {"full": 3_000, "short": 300}
"""Times that each token is judged."""


def report(size: str, asked: Asked) -> Iterator[str]:
    """Measure; the lines of the section."""
    from issuer import ALGORITHMS, Clock, Issuer  # noqa: PLC0415  # the tests' tools.

    yield f"\n{TITLE}\n"
    yield f"Made by `make bench ARGS=tokens`, or within `make bench`, on {datetime.now(UTC):%Y-%m-%d}."
    yield "A WLCG token with twenty groups: read, its signature and claims judged; the keys are known.\n"
    yield "| algorithm | judged, median | the signature alone | asked |\n|---|---|---|---|"
    for algorithm in ALGORITHMS:
        issuer = Issuer(algorithm=algorithm)
        token = issuer.token(**{"wlcg.groups": [f"/dteam/group-{number}" for number in range(20)]})
        verifier = Verifier({"dteam": issuer.settings()}, lambda _, issuer=issuer: issuer, Clock())  # type: ignore[misc]  # its own.
        whole = _milliseconds(lambda token=token, verifier=verifier: verifier.verify(token), CHECKED[size])  # type: ignore[misc]
        bare = _milliseconds(_signature_check(issuer, token), CHECKED[size])
        cell = asked.judge(f"a token by {algorithm}", f"at most {MOST_MILLISECONDS} ms", met=whole <= MOST_MILLISECONDS)
        yield f"| {algorithm} | {whole:.3f} ms | {bare:.3f} ms | {cell} |"


def _milliseconds(act: Callable[[], object], count: int) -> float:
    act()
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        act()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1e6


def _signature_check(issuer: Issuer, token: str) -> Callable[[], object]:
    signed, _, _ = token.rpartition(".")
    data, signature = signed.encode(), read_token(token).signature
    key = next(reversed(issuer.keys.values()))
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key()
        return lambda: public.verify(signature, data, padding.PKCS1v15(), SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        public_ed = key.public_key()
        return lambda: public_ed.verify(signature, data)
    public_ec = key.public_key()
    half = len(signature) // 2
    numbers = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    return lambda: public_ec.verify(encode_dss_signature(*numbers), data, ec.ECDSA(SHA256()))
