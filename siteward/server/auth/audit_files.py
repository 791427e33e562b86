"""Entries of the audit that have left the database: files of lines, whose digests go on from one to the next.

The first line says after which entry it begins, each other one is an entry as it was stored. Nothing but the standard
library is needed to read one: `zcat`, and SHA-256.
"""

from __future__ import annotations

import filecmp
import gzip
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from siteward.private_files import PRIVATE
from siteward.server.auth.audit_tables import digest_of

SUFFIX: Final = ".jsonl.gz"


Stored = tuple[Mapping[str, Any], Iterable[str]]
"""An entry as it is in the database, and its VOs."""


class AuditFileError(Exception):
    """A file is none of the audit's, or another one's; the message names it."""

    permanent = True


class Begin(msgspec.Struct, frozen=True):
    """Where a file begins: the number and the digest of the last entry before; 0 and "" for none."""

    number: int
    digest: str


class Kept(msgspec.Struct, frozen=True):
    """A file.

    Attributes:
        file: its name.
        begin: after which entry.
        entries: how many it has.
        number: the last one's.
        digest: the last one's.
        wrong: the first number at which something was changed, put in or taken away; None where nothing was.
    """

    file: str
    begin: Begin
    entries: int
    number: int
    digest: str
    wrong: int | None


def write_entries(folder: Path, begin: Begin, last: int, rows: Iterable[Stored]) -> Path:
    """Write entries into a file of their own, for its owner only, whole or not at all; where it is.

    Args:
        folder: made at need.
        begin: after which entry.
        last: the number of the last one.
        rows: entries as they are stored, with their VOs, in order.

    Raises:
        AuditFileError: a file of that name has other entries, which may be nowhere else; it stays.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"audit-{begin.number + 1}-{last}{SUFFIX}"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "wb") as raw:
            # Without a time or a name in it: the same entries are the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
                file.write(msgspec.json.encode(begin) + b"\n")
                for row, vos in rows:
                    # As texts: a digest is of the very bytes, which another encoder might write otherwise.
                    states = {name: bytes(row[name]).decode() for name in ("before", "after")}
                    file.write(msgspec.json.encode({**row, **states, "vos": sorted(vos)}) + b"\n")
            raw.flush()
            os.fsync(raw.fileno())
        if path.exists() and not filecmp.cmp(draft, path, shallow=False):
            message = (
                f"{path} is there and has other entries, such as those of a database that was here before: put it "
                "elsewhere, or give another --folder; nothing is taken out"
            )
            raise AuditFileError(message)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of a file as they were stored, with their VOs, in order.

    Raises:
        AuditFileError: it cannot be read.
    """
    with _told(path), gzip.open(path, "rb") as file:
        msgspec.json.decode(file.readline(), type=Begin)
        for line in file:
            row: dict[str, Any] = msgspec.json.decode(line)
            yield row | {name: row[name].encode() for name in ("before", "after")}


def verified(path: Path) -> Kept:
    """Compute every digest of a file again.

    Raises:
        AuditFileError: it cannot be read.
    """
    with _told(path), gzip.open(path, "rb") as file:
        begin = msgspec.json.decode(file.readline(), type=Begin)
    number, digest, count = begin.number, begin.digest, 0
    wrong: int | None = None
    for row in read_entries(path):
        number, count = int(row["number"]), count + 1
        digest = digest_of(digest, row, row["vos"])
        wrong = number if wrong is None and digest != row["digest"] else wrong
        # One that is wrong does not make all others so.
        digest = str(row["digest"])
    return Kept(path.name, begin, count, number, digest, wrong)


def digest_in(path: Path, number: int) -> str:
    """The digest of one entry of a file; "" where it is not there.

    Raises:
        AuditFileError: it cannot be read.
    """
    return next((str(row["digest"]) for row in read_entries(path) if row["number"] == number), "")


class _told:  # noqa: N801  # it is used as a function.
    """Whatever is wrong with a file as one error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing is wrong yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, EOFError, KeyError, TypeError, UnicodeError, ValueError, msgspec.MsgspecError)):
            message = f"{self._path} is no file of the audit, or not a whole one: {error}"
            raise AuditFileError(message) from error
