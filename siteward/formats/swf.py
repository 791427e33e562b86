"""The Standard Workload Format: one finished job per line in 18 whole numbers, after a header of comments.

Defined by the Parallel Workloads Archive (Chapin et al., 1999). `-1` means unknown everywhere.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple, cast

import msgspec

MAX_LINE: Final = 4096
"""Longest line read, in bytes; a longer one is malformed, and is passed over without being held in memory."""
UNKNOWN: Final = -1
_GZIP: Final = b"\x1f\x8b"
_COMMENT: Final = b";"
_NAMED: Final = re.compile(r"(\d+)\s+(\S.*)")
_QUANTITY: Final = re.compile(r"'(\w+)'\s+column relates to:\s*quantity=(\w+)")


class SwfError(ValueError):
    """The file as a whole cannot be read, or not to its end; single bad lines are Malformed instead."""

    permanent = True


class SwfJob(NamedTuple):
    """One line, in the order of its columns.

    Times in seconds; `submit` counts from the header's UnixStartTime. Memory in kilobytes (1024 bytes).
    By the definition, `cpu_used`, `memory_used` and `memory_requested` are averages per processor; Header.quantities
    says where a log departs from that. -1 is unknown.
    """

    number: int
    submit: int
    wait: int
    run: int
    processors: int
    cpu_used: int
    memory_used: int
    processors_requested: int
    time_requested: int
    memory_requested: int
    status: int
    user: int
    group: int
    application: int
    queue: int
    partition: int
    preceding: int
    think_time: int


COLUMNS: Final = len(SwfJob._fields)
_AVERAGES: Final = frozenset({SwfJob._fields.index("cpu_used"), SwfJob._fields.index("memory_used")})
"""Columns that some logs write with decimals, being averages; they are rounded."""


class Malformed(NamedTuple):
    """A line that is no job, and why."""

    reason: str


class Header(msgspec.Struct, frozen=True):
    """What the comments before the first job say.

    Attributes:
        fields: every `Key: value`, all values of a key in order.
        queues: names of queues by number.
        partitions: names of partitions by number.
        quantities: for `mem_used`, `cpu_used` and `mem_req`, what a value is of: `per_job` or `per_process`.
    """

    fields: dict[str, list[str]]
    queues: dict[int, str]
    partitions: dict[int, str]
    quantities: dict[str, str]

    def first(self, key: str) -> str:
        """The first value of a key; "" where the header does not have it."""
        return self.fields.get(key, [""])[0]

    def number(self, key: str) -> int | None:
        """The leading whole number of a key's first value, such as `MaxNodes: 70  (dual)`; None without one."""
        found = re.match(r"-?\d+", self.first(key))
        return int(found[0]) if found else None

    @property
    def start(self) -> int | None:
        """UnixStartTime: seconds since 1970 UTC from which submit times count; None where it is not said."""
        return self.number("UnixStartTime")


class Log:
    """An open log: its header, then its lines, each read once and in order."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Args:
            file: plain or gzip-compressed bytes from the beginning, as a file on disk; never closed.

        Raises:
            SwfError: the bytes are not what a log begins with.
        """
        self._stream = _decompressed(file)
        self._number = 0
        self._pending = b""
        self.header = self._read_header()

    def lines(self, after: int = 0) -> Iterator[tuple[int, SwfJob | Malformed]]:
        """Jobs and malformed lines with their line numbers, counted from 1; empty lines and comments have none.

        Args:
            after: pass over lines up to this number unread, to go on where an earlier reading ended.

        Raises:
            SwfError: the file breaks off or is damaged; all lines before that have been given.
        """
        line, number = self._pending, self._number
        self._pending = b""
        while line:
            if number > after:
                if len(line) > MAX_LINE:
                    yield number, Malformed(f"is longer than {MAX_LINE} bytes")
                else:
                    parsed = _parsed(line)
                    if parsed is not None:
                        yield number, parsed
            line = self._next_line()
            number = self._number

    def _read_header(self) -> Header:
        texts: list[str] = []
        while line := self._next_line():
            if not line.startswith(_COMMENT) and line.strip():
                break
            texts.append(line.decode("utf-8", "replace"))
        self._pending = line
        return header_of(texts)

    def _next_line(self) -> bytes:
        """The next line, or b"" at the end; of an over-long one its beginning, longer than MAX_LINE."""
        try:
            line = self._stream.readline(MAX_LINE + 1)
            rest = line
            while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
                rest = self._stream.readline(MAX_LINE + 1)
        except (OSError, EOFError, zlib.error) as error:
            message = f"the file cannot be read beyond line {self._number}: {error}"
            raise SwfError(message) from error
        self._number += 1
        return line


def header_of(lines: list[str]) -> Header:
    """The header that comment lines make."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        key, colon, value = line.strip().lstrip(";").partition(":")
        if colon and key.strip().isalpha():
            fields.setdefault(key.strip(), []).append(value.strip())
    return Header(
        fields=fields,
        queues=_names(fields.get("Queue", [])),
        partitions=_names(fields.get("Partition", [])),
        quantities={
            found[1]: found[2] for note in fields.get("Note", []) if (found := _QUANTITY.search(note)) is not None
        },
    )


def _names(values: list[str]) -> dict[int, str]:
    return {int(found[1]): found[2].strip() for value in values if (found := _NAMED.fullmatch(value))}


def _decompressed(file: BinaryIO) -> BinaryIO:
    start = file.read(len(_GZIP))
    file.seek(-len(start), io.SEEK_CUR)
    if start == _GZIP:
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=file), 2**17))
    return file


def _parsed(line: bytes) -> SwfJob | Malformed | None:
    """A line as a job; None where it is empty or a comment."""
    words = line.split()
    try:
        job = SwfJob._make(map(int, words))
    except (ValueError, TypeError):
        return _second_look(words)
    # int() takes the digit groups of Python, which no log means.
    return job if b"_" not in line else _second_look(words)


def _second_look(words: list[bytes]) -> SwfJob | Malformed | None:
    """What is wrong with a line that is not 18 whole numbers, unless it is an average with decimals."""
    if not words or words[0].startswith(_COMMENT):
        return None
    if len(words) != COLUMNS:
        return Malformed(f"has {len(words)} columns, expected {COLUMNS}")
    values: list[int] = []
    for position, word in enumerate(words):
        text = word.decode("utf-8", "replace")
        if re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
            values.append(int(text))
        elif position in _AVERAGES and re.fullmatch(r"[+-]?\d{1,15}\.\d*", text, re.ASCII):
            values.append(round(float(text)))
        else:
            return Malformed(f"column {position + 1} ({SwfJob._fields[position]}) is not a whole number: {text[:40]!r}")
    return SwfJob._make(values)
