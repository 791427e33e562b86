"""Static files of the pages, read once and addressed by a version, so that browsers may keep them for ever."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = Path(__file__).parent / "static"
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What a browser is told a file is; a file of another type is not served."""


class Asset(msgspec.Struct, frozen=True):
    """One static file.

    Attributes:
        content: its bytes.
        media_type: value of its Content-Type.
        etag: quoted hash of its content.
    """

    content: bytes
    media_type: str
    etag: str


class Assets:
    """All static files below a folder.

    The version is part of the path and not of the query: modules import each other by relative paths, which keep
    the version of the page that asked for the first one, so that a browser never mixes two releases.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read the files once; they are few and small."""
        self.files = {path.name: _asset(path) for path in sorted(folder.iterdir()) if path.suffix in MEDIA_TYPES}
        self.version = blake2b("".join(asset.etag for asset in self.files.values()).encode(), digest_size=6).hexdigest()

    def url(self, name: str) -> str:
        """Where a page finds a file.

        Raises:
            KeyError: there is no such file.
        """
        if name not in self.files:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, MEDIA_TYPES[path.suffix], f'"{blake2b(content, digest_size=12).hexdigest()}"')
