"""Importers: one file each, on top of siteward.formats; each turns a file into rows and malformed lines.

A Source is registered under the entry-point group `siteward.sources`; its name is what `siteward import` takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

import msgspec

from siteward.records import Kind, Row


class SourceError(ValueError):
    """A file that cannot be imported, or not to its end; the message says what to change."""

    permanent = True


class Options(msgspec.Struct, frozen=True):
    """What a file does not say about its own records.

    Attributes:
        vo: VO of every record.
        site: site where it happened.
        submit_host: makes ids of different files different; "" takes what the file says of its origin.
    """

    vo: str
    site: str
    submit_host: str = ""


class Read(msgspec.Struct, gc=False):
    """What one place of the file gave: a row, or the reason why there is none.

    Attributes:
        position: where reading may go on after it; for text files the line number, counted from 1.
        row: a validated record.
        malformed: why the place cannot be read as a record; "" where it can.
        passed: why a readable place is no record of its own, such as a detail of another; "" where it is one.
    """

    position: int
    row: Row | None = None
    malformed: str = ""
    passed: str = ""


class Source(Protocol):
    """Reads one format into records of one kind."""

    @property
    def kind(self) -> Kind:
        """The kind of every record it gives."""

    def rows(self, file: BinaryIO, options: Options, position: int, now: int) -> Iterator[Read]:
        """Read forward, in constant memory, giving every place once; the same file and options give the same ids.

        Args:
            file: open at its beginning; its `tell()` shows how far reading came.
            options: what the file does not say.
            position: go on after this place; 0 is the beginning.
            now: microseconds since 1970 UTC, for the check against times in the future.

        Raises:
            SourceError: the file as a whole is not usable, or breaks off; all before that has been given.
        """
