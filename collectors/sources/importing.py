"""One import: from a file's rows to the Emitter, with a checkpoint from which an interrupted one goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import msgspec

from collectors.sources import Options, Source, SourceError
from siteward.records import Kind, Refused, Row

CHECKPOINT_ROWS: Final = 100_000
"""Rows between checkpoints: an import that was killed repeats at most so many, and their ids make that harmless."""
FLUSH_SECONDS: Final = 120.0


class Takes(Protocol):
    """What an import needs of an Emitter."""

    def emit_row(self, kind: Kind, row: Row) -> Refused | None:
        """Take a validated row, or say why not."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything taken is confirmed or on disk; False when time is up first."""


class ImportStopped(RuntimeError):  # noqa: N818  # reads as the state it is.
    """Records are not taken any more; what was taken is safe, and the same import can go on later."""

    permanent = False


class Tally(msgspec.Struct):
    """How far an import is.

    Attributes:
        position: the last place read.
        imported: rows emitted.
        malformed: places that could not be read.
        passed: readable places that are no records of their own.
    """

    position: int = 0
    imported: int = 0
    malformed: int = 0
    passed: int = 0


class Checkpoint:
    """The tally of an unfinished import, on disk; gone when it is finished."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is read yet."""
        self._path = path

    def load(self) -> Tally:
        """The tally of the last checkpoint, or of the beginning where there is none that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Tally)
        except (OSError, msgspec.MsgspecError):
            return Tally()

    def save(self, tally: Tally) -> None:
        """Replace the file in one step, after everything that the tally counts is safe."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(tally))
        draft.replace(self._path)

    def forget(self) -> None:
        """Start from the beginning next time."""
        self._path.unlink(missing_ok=True)


def checkpoint_of(folder: Path, name: str, options: Options, file: BinaryIO) -> Checkpoint:
    """The checkpoint of importing these bytes, as this source, with these options; the file's name does not matter.

    Args:
        folder: the data folder.
        name: the source's name.
        options: of the import.
        file: read to its end and set back to its beginning.
    """
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    content = digest.hexdigest()
    file.seek(0)
    parts = (name, options.vo, options.site, options.submit_host, content)
    key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
    return Checkpoint(folder / "imports" / f"{key}.json")


def import_rows(  # noqa: PLR0913  # each is a party to the import.
    source: Source,
    file: BinaryIO,
    options: Options,
    emitter: Takes,
    checkpoint: Checkpoint,
    *,
    now: int,
    malformed: Callable[[int, str], None],
    advanced: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Emit every row of a file after the checkpoint, in constant memory.

    Args:
        source: reads the format.
        file: open at its beginning.
        options: what the file does not say.
        emitter: should wait when full rather than refuse.
        checkpoint: where to go on; kept up to date, and gone at the end.
        now: microseconds since 1970 UTC.
        malformed: told the place and reason of each malformed line.
        advanced: told the tally about every thousand places.

    Raises:
        ImportStopped: the emitter refused a row, or did not get rid of its rows in time.
        collectors.sources.SourceError: the file is not usable, or breaks off; what came before is imported and
            in the checkpoint.
    """
    tally = checkpoint.load()
    saved = tally.position
    try:
        for read in source.rows(file, options, tally.position, now):
            if read.row is not None:
                _emit(emitter, source.kind, read.row, read.position)
                tally.imported += 1
            elif read.malformed:
                tally.malformed += 1
                malformed(read.position, read.malformed)
            else:
                tally.passed += 1
            tally.position = read.position
            if read.position % 1000 == 0:
                advanced(tally)
            if read.position - saved >= CHECKPOINT_ROWS:
                _settle(emitter, checkpoint, tally)
                saved = read.position
    except (KeyboardInterrupt, ImportStopped):
        _settle(emitter, checkpoint, tally)
        raise
    except SourceError as error:
        _settle(emitter, checkpoint, tally)
        message = f"{error}; imported before that: {tally.imported} records"
        raise SourceError(message) from error
    _settle(emitter, checkpoint, tally)
    checkpoint.forget()
    return tally


def _emit(emitter: Takes, kind: Kind, row: Row, position: int) -> None:
    refused = emitter.emit_row(kind, row)
    if refused is not None:
        message = f"at place {position}: {refused}"
        raise ImportStopped(message)


def _settle(emitter: Takes, checkpoint: Checkpoint, tally: Tally) -> None:
    if not emitter.flush(FLUSH_SECONDS):
        message = f"records were neither confirmed by the broker nor written to disk within {FLUSH_SECONDS:.0f} s"
        raise ImportStopped(message)
    checkpoint.save(tally)
