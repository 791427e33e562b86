"""Emitting records: validated at once, sent in the background, confirmed by the broker or spooled to disk."""

from siteward.emit.asynchronous import AsyncEmitter
from siteward.emit.emitter import Emitter

__all__ = ["AsyncEmitter", "Emitter"]
