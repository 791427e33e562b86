"""The Emitter for asyncio programs: the same, and nothing that waits runs in the event loop."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from siteward.emit.emitter import CLOSE_SECONDS, Emitter
from siteward.records import Record, Refused
from siteward.settings import Settings


class AsyncEmitter:
    """`async with AsyncEmitter() as e: await e.emit(record)`; see Emitter."""

    def __init__(self, settings: Settings | str | None = None, *, producer: str = "", durable: bool = False) -> None:
        """Prepare; see Emitter."""
        self._durable = durable
        self._emitter = Emitter(settings, producer=producer, durable=durable, when_full="refuse")

    async def __aenter__(self) -> Self:
        """The emitter itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left and close."""
        await self.close()

    async def emit(self, record: Record) -> Refused | None:
        """Take one record; only a durable emitter's waits, in a thread, for the disk."""
        if self._durable:
            return await asyncio.to_thread(self._emitter.emit, record)
        return self._emitter.emit(record)

    async def flush(self, timeout: float = CLOSE_SECONDS) -> bool:  # noqa: ASYNC109  # the same word as Emitter's.
        """Wait until everything emitted so far is confirmed or on disk; False when time is up first."""
        return await asyncio.to_thread(self._emitter.flush, timeout)

    async def close(self) -> bool:
        """Flush and stop; False when something was still in memory when time was up."""
        return await asyncio.to_thread(self._emitter.close)
