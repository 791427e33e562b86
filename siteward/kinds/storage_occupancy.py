"""The kind `storage-occupancy`: how full one storage was at one instant."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from siteward.records import Dimension, Measure, Snapshot


class StorageOccupancy(Snapshot, kind="storage-occupancy", retention=timedelta(days=400)):
    """Space of one storage at one instant: all of it, used, reserved, and the number of files."""

    site: Annotated[str, Dimension("site the storage belongs to")]
    endpoint: Annotated[str, Dimension("address of the storage service")] = ""
    storage: Annotated[str, Dimension("storage element or area")]
    media: Annotated[str, Dimension("disk, tape or other")] = "disk"
    total: Annotated[int, Measure("size", unit="B")]
    used: Annotated[int, Measure("used", unit="B")]
    reserved: Annotated[int, Measure("promised to others but not used", unit="B")] = 0
    files: Annotated[int | None, Measure("files stored", unit="1")] = None
