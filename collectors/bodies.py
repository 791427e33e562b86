"""Request bodies piece by piece: decompressed, limited and split into records without ever being held whole."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

import zstandard

from siteward.compression import GZIP_WINDOW
from siteward.records import Refused, Row
from siteward.server.problems import Problem

PIECE: Final = 2**16
"""Bytes that one step of decompression gives at most (gzip), or usually (zstd)."""
ZSTD_INPUT: Final = 64
"""A zstd block of 4 bytes may become 128 KiB; this many bytes at once become 2 MiB at worst."""
ZSTD_WINDOW: Final = 2**23
"""RFC 9659: a zstd content coding needs no larger window than 8 MiB."""
DEEPEST: Final = 64
"""Records are flat; arrays and objects within arrays and objects beyond this depth are an attack."""

Element = bytes | Row | Refused
"""The bytes of one record, the record itself where its door has read it, or why there is none to look at."""

_OUTER: Final = re.compile(rb'[^"{}\[\],]*+')
_INNER: Final = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_FORM: Final = re.compile(rb'\{\s*(?:"units"\s*:\s*(\{[^{}]*\})\s*,\s*)?"records"\s*:\s*\[')
_QUOTE, _COMMA, _BACKSLASH = b'",\\'
_OPENING, _CLOSING, _END = b"{[", b"}]", ord("]")


def broken(detail: str) -> Problem:
    """The body is not what it claims to be."""
    return Problem(400, detail, title="Broken body")


def limited(pieces: Iterable[bytes], most: int, what: str) -> Iterator[bytes]:
    """The same pieces, until they are more than `most` bytes.

    Raises:
        Problem: 413, as soon as there is one byte too many.
    """
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            message = f"the body is larger than {most} bytes {what}; send it in parts"
            raise Problem(413, message)
        yield piece


def plain(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The decompressed pieces.

    Args:
        pieces: as they arrive.
        encoding: "", "identity", "gzip" or "zstd".

    Raises:
        Problem: 415 for another encoding; 400 while iterating, for data that is broken or ends early.
    """
    match encoding:
        case "" | "identity":
            return iter(pieces)
        case "gzip" | "x-gzip":
            return _gunzip(pieces)
        case "zstd":
            return _unzstd(pieces)
    message = f"the content encoding {encoding[:40]!r} is unknown here; send gzip, zstd or none"
    raise Problem(415, message)


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    stream = None
    for piece in pieces:
        rest, more = piece, False
        while rest or more:
            stream = stream or zlib.decompressobj(GZIP_WINDOW)
            try:
                out = stream.decompress(rest, PIECE)
            except zlib.error as error:
                message = f"the body is not gzip: {error}"
                raise broken(message) from error
            if out:
                yield out
            rest, more = stream.unconsumed_tail, len(out) == PIECE
            if stream.eof:
                # A file may be several gzip streams, one behind the other.
                rest, more, stream = stream.unused_data, False, None
    if stream is not None:
        message = "the body ends before its gzip stream does"
        raise broken(message)


def _unzstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    stream = None
    for piece in pieces:
        for start in range(0, len(piece), ZSTD_INPUT):
            rest = piece[start : start + ZSTD_INPUT]
            while rest:
                stream = stream or decompressor.decompressobj()
                try:
                    out = stream.decompress(rest)
                except zstandard.ZstdError as error:
                    message = f"the body is not zstd: {error}"
                    raise broken(message) from error
                if out:
                    yield out
                rest = b""
                if stream.eof:
                    rest, stream = stream.unused_data, None
    if stream is not None:
        message = "the body ends before its zstd stream does"
        raise broken(message)


def too_long(longest: int) -> Refused:
    """The refusal of a record that is larger than any may be."""
    reason = f"is larger than {longest} bytes"
    return Refused(reason, field="record")


def lines(pieces: Iterable[bytes], longest: int) -> Iterator[Element]:
    """The records of an NDJSON body: one per line that is not blank.

    Raises:
        Problem: 400 for a body without any.
    """
    rest, skipping, seen = b"", False, False
    for piece in chain(_unmarked(pieces), [b"\n"]):
        parts = (rest + piece).split(b"\n")
        rest = parts.pop()
        for part in parts:
            text = part.strip()
            if skipping or len(text) > longest:
                seen, skipping = True, False
                yield too_long(longest)
            elif text:
                seen = True
                yield text
        if len(rest) > longest:
            rest, skipping = b"", True
    if not seen:
        message = "the body holds no record; write one JSON object per line"
        raise broken(message)


def elements(pieces: Iterable[bytes], longest: int, check_units: Callable[[object], None]) -> Iterator[Element]:
    """The records of a JSON body: an array of objects, one object, or `{"units": {…}, "records": […]}`.

    Args:
        pieces: of the body, decompressed.
        longest: largest record in bytes; the whole of a larger one is passed over.
        check_units: called with the value of `units`, if there is one, before the first record.

    Raises:
        Problem: 400 while iterating, for a body that is not JSON, ends early or is nested too deeply; the records
            before have been given out.
    """
    rest = _unmarked(pieces)
    head = b""
    for piece in rest:
        # White space in front is dropped at once: it may be all that a body of any length holds.
        head = (head + piece).lstrip()
        if len(head) > longest or head[:1] == b"[":
            break
    if head[:1] == b"[":
        return _array(chain([head[1:]], rest), longest, b"")
    form = _FORM.match(head)
    if form:
        if form[1]:
            check_units(_units(form[1]))
        return _array(chain([head[form.end() :]], rest), longest, b"}")
    return _single(head, longest)


def _unmarked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces without a byte order mark, which some editors put in front.

    Raises:
        Problem: 400 for the marks of UTF-16 and UTF-32, and for their zeros.
    """
    rest = iter(pieces)
    first = b""
    for piece in rest:
        first += piece
        if len(first) >= len(codecs.BOM_UTF8):
            break
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in first[: len(codecs.BOM_UTF8)]:
        message = "the body is UTF-16 or UTF-32; send UTF-8"
        raise broken(message)
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from rest


def _units(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"units: {error}"
        raise broken(message) from error


def _single(head: bytes, longest: int) -> Iterator[Element]:
    text = head.strip()
    if not text:
        message = "the body is empty"
        raise broken(message)
    if text[:1] != b"{":
        message = "expected a JSON array of records, one record, or an object with `units` and `records`"
        raise broken(message)
    if len(text) > longest:
        message = (
            f"one JSON object may have {longest} bytes; "
            'send many records as an array, or as {"units": {…}, "records": […]} in this order'
        )
        raise Problem(413, message)
    if text[-1:] != b"}":
        message = "the body ends before its JSON object does"
        raise broken(message)
    yield text


def _array(pieces: Iterable[bytes], longest: int, ending: bytes) -> Iterator[Element]:
    """The elements of an array whose opening bracket is read; behind it nothing but `ending` may stand."""
    scanner = _Scanner(longest)
    for piece in pieces:
        yield from scanner.feed(piece)
    if not scanner.closed:
        message = "the body ends before its JSON array does"
        raise broken(message)
    if scanner.tail.split() != ([ending] if ending else []):
        message = "after the array of records something else follows; `units` stands before `records`"
        raise broken(message)


class _Scanner:
    """Finds where the elements of a JSON array end, looking at brackets, commas and strings only."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._text = b""
        self._at = 0
        self._depth = 0
        self._in_string = False
        self._too_long = False
        self._empty = True
        self.closed = False
        self.tail = b""

    def feed(self, piece: bytes) -> Iterator[Element]:
        """The elements that end within this piece."""
        if self.closed:
            self.tail = (self.tail + piece.strip())[:PIECE]
            return
        self._text += piece
        start = 0
        while (end := self._next_end()) >= 0:
            element = self._element(start, end)
            if element is not None:
                yield element
            start = end + 1
            if self.closed:
                self.tail = self._text[start:].strip()[:PIECE]
                return
        self._text = self._text[start:]
        self._at -= start
        if len(self._text) > self._longest:
            # What was looked at already is of no more use, since it will be refused.
            self._too_long = True
            self._text, self._at = self._text[self._at :], 0

    def _next_end(self) -> int:
        """The place of the next comma or closing bracket between elements; -1 where it has not arrived."""
        text = self._text
        while self._at < len(text):
            if self._in_string:
                self._at = _STRING.match(text, self._at).end()  # type: ignore[union-attr]  # matches anything.
                if self._at == len(text) or text[self._at] == _BACKSLASH:
                    return -1
                self._in_string = False
                self._at += 1
                continue
            pattern = _INNER if self._depth else _OUTER
            self._at = pattern.match(text, self._at).end()  # type: ignore[union-attr]  # matches anything.
            if self._at == len(text):
                return -1
            self._at += 1
            if self._is_end(text[self._at - 1]):
                return self._at - 1
        return -1

    def _is_end(self, character: int) -> bool:
        """Whether an element ends at this bracket, comma or quote."""
        if character == _QUOTE:
            self._in_string = True
        elif character in _OPENING:
            self._depth += 1
            if self._depth > DEEPEST:
                message = f"the body is nested more than {DEEPEST} deep; records are flat"
                raise broken(message)
        elif self._depth:
            self._depth -= 1
        elif character in (_COMMA, _END):
            self.closed = character == _END
            return True
        else:
            message = "the body has a closing brace where no object is open"
            raise broken(message)
        return False

    def _element(self, start: int, end: int) -> Element | None:
        text = self._text[start:end].strip()
        first, self._empty = self._empty, False
        if self._too_long or len(text) > self._longest:
            self._too_long = False
            return too_long(self._longest)
        if text:
            return text
        if self.closed and first:
            return None
        message = "the body has a comma without a record"
        raise broken(message)
