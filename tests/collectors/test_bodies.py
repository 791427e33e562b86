"""Bodies piece by piece: the same records whatever the pieces, and a clear word about what is broken."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collectors.bodies import Element, elements, limited, lines, plain
from siteward.records import Refused
from siteward.server.problems import Problem

LONGEST = 1_000
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def cut(body: bytes, size: int) -> Iterator[bytes]:
    """A body in pieces."""
    return (body[start : start + size] for start in range(0, len(body), size))


def no_units(units: object) -> None:
    pytest.fail(f"there are no units here: {units}")


def split(pieces: Iterable[bytes], longest: int = LONGEST) -> list[Element]:
    return list(elements(pieces, longest, no_units))


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=4), max_size=6), st.integers(1, 40), st.booleans())
def test_an_array_is_split_as_json_would_split_it(records: list[dict[str, Any]], size: int, escaped: bool) -> None:  # noqa: FBT001  # drawn.
    """Strings with brackets, quotes and escapes are text, wherever the pieces end."""
    body = json.dumps(records, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    found = split(cut(body, size), 10**6)
    assert [json.loads(bytes(each)) for each in found if isinstance(each, bytes)] == records


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=4), min_size=1, max_size=6), st.integers(1, 40))
def test_lines_are_split_wherever_the_pieces_end(records: list[dict[str, Any]], size: int) -> None:
    """One record per line; blank lines are nothing, the last one needs no end."""
    body = "\r\n\n".join(json.dumps(record) for record in records).encode()
    found = lines(cut(body, size), 10**6)
    assert [json.loads(bytes(each)) for each in found if isinstance(each, bytes)] == records


def test_a_byte_order_mark_is_passed_over() -> None:
    """Some editors write one; UTF-16 is refused by name."""
    assert split(cut(b'\xef\xbb\xbf[{"a":1}]', 2)) == [b'{"a":1}']
    assert list(lines(cut(b'\xef\xbb\xbf{"a":1}\n', 2), LONGEST)) == [b'{"a":1}']
    with pytest.raises(Problem, match="UTF-16"):
        split([json.dumps([{}]).encode("utf-16")])


def test_one_object_is_one_record() -> None:
    """A single record needs no array around it."""
    assert split(cut(b' {"a": [1, {}], "records": "no array"} ', 3)) == [b'{"a": [1, {}], "records": "no array"}']


def test_units_are_checked_before_the_first_record() -> None:
    """They stand in front, so that a wrong unit refuses the body before anything is queued."""
    seen: list[object] = []
    body = b'{ "units": {"wall_time": "s"}, "records": [{"a": 1}, {"b": 2}] }'
    assert list(elements(cut(body, 5), LONGEST, seen.append)) == [b'{"a": 1}', b'{"b": 2}']
    assert seen == [{"wall_time": "s"}]
    assert split([b'{"records": []}']) == []
    with pytest.raises(Problem, match="stands before"):
        split([b'{"records": [{}], "units": {}}'])


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_record_that_is_too_long_is_refused_and_passed_over(size: int) -> None:
    """Constant memory: the long record is never held; its neighbours are taken."""
    long = json.dumps({"text": 'x"]},{' * 1_000}).encode()
    assert len(long) > 5 * LONGEST
    for found in (
        split(cut(b"[{}," + long + b",[1]]", size)),
        list(lines(cut(b"{}\n" + long + b"\n[1]", size), LONGEST)),
    ):
        first, second, third = found
        assert (first, third) == (b"{}", b"[1]")
        assert isinstance(second, Refused)
        assert "larger than 1000 bytes" in second.reason


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"[", "ends before its JSON array"),
        (b'[{"a":1}', "ends before its JSON array"),
        (b'[{"a":"', "ends before its JSON array"),
        (b'[{"a":"\\', "ends before its JSON array"),
        (b'{"a":1', "ends before its JSON object"),
        (b"[,]", "comma without a record"),
        (b"[{},]", "comma without a record"),
        (b"[{},,{}]", "comma without a record"),
        (b"[}]", "closing brace"),
        (b"[{}] x", "something else follows"),
        (b"[{}][{}]", "something else follows"),
        (b'{"records":[{}]', "something else follows"),
        (b'"text"', "expected a JSON array"),
        (b"NaN", "expected a JSON array"),
        (b"\x00\x01", "UTF-16"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'[{"a":' * 100_000, "nested more than 64 deep"),
        (b'{"units":{"a":1e},"records":[]}', "units:"),
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_is_not_json_is_named(body: bytes, detail: str, size: int) -> None:
    """400 says what is wrong, wherever the pieces end."""
    with pytest.raises(Problem, match=detail) as caught:
        split(cut(body, size) if len(body) < 1_000 else [body])
    assert caught.value.status == 400


@pytest.mark.parametrize("end", [b"[]", b"{}", b""])
def test_white_space_takes_neither_memory_nor_time(end: bytes) -> None:
    """A bomb of nothing but spaces in front of the records is read and forgotten piece by piece."""
    spaces = [b" " * 2**16] * 512
    tracemalloc.start()
    try:
        with contextlib.suppress(Problem):
            split([*spaces, end])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_one_object_that_is_too_large_is_413() -> None:
    """It may be many records in the wrong order; the answer says which order is right."""
    with pytest.raises(Problem, match="in this order") as caught:
        split(cut(b'{"x":"' + b"y" * 5_000 + b'"}', 100))
    assert caught.value.status == 413


def zstd(body: bytes) -> bytes:
    return zstandard.compress(body)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
@pytest.mark.parametrize("size", [1, 13, 5_000])
def test_compressed_bodies_are_unpacked_piece_by_piece(
    encoding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    """Several streams one behind the other are one body, as the formats allow."""
    text = bytes(range(256)) * 300
    body = compress(text) + compress(b"") + compress(b"end")
    assert b"".join(plain(cut(body, size), encoding)) == text + b"end"


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_broken_compression_is_named(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Cut off, followed by rubbish, or not compressed at all."""
    body = compress(b"some text that is long enough")
    for broken, detail in (
        (body[:-3], "ends before its"),
        (body[:5], "ends before its"),
        (body + b"rubbish of some length", f"not {encoding}"),
        (b"[{}] and more text", f"not {encoding}"),
    ):
        with pytest.raises(Problem, match=detail) as caught:
            list(plain([broken], encoding))
        assert caught.value.status == 400


def test_an_unknown_encoding_is_415() -> None:
    """Before anything is read."""
    with pytest.raises(Problem, match="'br' is unknown") as caught:
        plain([], "br")
    assert caught.value.status == 415


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_a_bomb_goes_off_in_small_pieces(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Gigabytes from kilobytes: the limit is met with megabytes in memory."""
    bomb = compress(b"\0" * 2**27)
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="larger than 67108864 bytes after decompression") as caught:
            for _ in limited(plain(cut(bomb, 2**16), encoding), 2**26, "after decompression"):
                pass
        assert caught.value.status == 413
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
