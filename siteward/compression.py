"""Size-limited decompression, for bodies that come from anywhere; zstd is an extra, gzip is always there."""

from __future__ import annotations

import zlib
from typing import Final

from siteward.records import Refused

GZIP_WINDOW: Final = 31
"""zlib's word for a gzip header."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The plain body.

    Args:
        body: as it arrived.
        encoding: "", "identity", "gzip" or "zstd".
        limit: most bytes that may come out; more is refused without having been held in memory.

    Raises:
        Refused: unknown encoding, broken data, data that ends early, or more than `limit` bytes.
    """
    match encoding:
        case "" | "identity":
            plain, whole = body[: limit + 1], True
        case "gzip":
            plain, whole = _gunzip(body, limit)
        case "zstd":
            plain, whole = _unzstd(body, limit)
        case _:
            reason = "expected gzip, zstd or identity"
            raise Refused(reason, field="content_encoding", value=encoding)
    if len(plain) > limit:
        reason = f"is larger than {limit} bytes when decompressed"
        raise Refused(reason, field="body", value=f"{len(body)} bytes compressed")
    if not whole:
        reason = f"ends before its {encoding} stream does"
        raise Refused(reason, field="body", value=f"{len(body)} bytes")
    return plain


def compress_zstd(body: bytes) -> bytes:
    """The body as one zstd frame.

    Raises:
        ImportError: the extra `siteward[zstd]` is not installed.
    """
    import zstandard  # noqa: PLC0415  # an extra.

    return zstandard.ZstdCompressor(level=1).compress(body)


def _gunzip(body: bytes, limit: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj(GZIP_WINDOW)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        reason = f"is not gzip: {error}"
        raise Refused(reason, field="body", value=body[:20]) from error
    return plain, stream.eof or len(plain) > limit


def _unzstd(body: bytes, limit: int) -> tuple[bytes, bool]:
    try:
        import zstandard  # noqa: PLC0415  # an extra.
    except ImportError as error:
        reason = "zstd needs the extra siteward[zstd]; send gzip instead"
        raise Refused(reason, field="content_encoding", value="zstd") from error
    stream = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
    plain = bytearray()
    try:
        # One call's output cannot be limited, only its input: 64 bytes hold 16 blocks at most, of 128 KiB at most.
        for start in range(0, len(body), 64):
            plain += stream.decompress(body[start : start + 64])
            if len(plain) > limit or stream.eof:
                break
    except zstandard.ZstdError as error:
        reason = f"is not zstd: {error}"
        raise Refused(reason, field="body", value=body[:20]) from error
    return bytes(plain), stream.eof or len(plain) > limit
