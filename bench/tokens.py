"""What it costs to judge a token whose issuer's keys are known: at first, and when it comes again."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
"""Tokens, and how often one of them comes again."""


def report(size: str, asked: Asked) -> Iterator[str]:
    """Measure; the lines of the section."""
    from issuer import ALGORITHMS, Clock, Issuer  # noqa: PLC0415  # the tests' tools.

    yield f"\n{TITLE}\n"
    yield f"Made by `make bench ARGS=tokens`, or within `make bench`, on {datetime.now(UTC):%Y-%m-%d}."
    yield "A WLCG token with twenty groups; the issuer's keys are known. At first it is read, its signature computed"
    yield "and its claims judged; when the same one comes again, all is done but the signature.\n"
    yield "| algorithm | at first, median | the signature alone | again, median | asked |\n|---|---|---|---|---|"
    for algorithm in ALGORITHMS:
        issuer = Issuer(algorithm=algorithm)
        groups = [f"/dteam/group-{number}" for number in range(20)]
        tokens = [issuer.token(jti=str(number), **{"wlcg.groups": groups}) for number in range(CHECKED[size])]
        verifier = Verifier({"dteam": issuer.settings()}, lambda _, issuer=issuer: issuer, Clock())  # type: ignore[misc]  # its own.
        verifier.verify(issuer.token())
        first = _milliseconds(verifier.verify, tokens)
        bare = _milliseconds(_signature_check(issuer, tokens[0]), tokens)
        again = _milliseconds(verifier.verify, tokens[:1] * len(tokens))
        cell = asked.judge(
            f"a token by {algorithm}, again", f"at most {MOST_MILLISECONDS} ms", met=again <= MOST_MILLISECONDS
        )
        yield f"| {algorithm} | {first:.3f} ms | {bare:.3f} ms | {again:.3f} ms | {cell} |"


def _milliseconds(act: Callable[[str], object], tokens: Sequence[str]) -> float:
    times = []
    for token in tokens:
        began = time.perf_counter_ns()
        act(token)
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1e6


def _signature_check(issuer: Issuer, token: str) -> Callable[[str], object]:
    signed, _, _ = token.rpartition(".")
    data, signature = signed.encode(), read_token(token).signature
    key = next(reversed(issuer.keys.values()))
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key()
        return lambda _: public.verify(signature, data, padding.PKCS1v15(), SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        public_ed = key.public_key()
        return lambda _: public_ed.verify(signature, data)
    public_ec = key.public_key()
    half = len(signature) // 2
    numbers = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    return lambda _: public_ec.verify(encode_dss_signature(*numbers), data, ec.ECDSA(SHA256()))
