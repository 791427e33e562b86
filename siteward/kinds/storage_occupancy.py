"""The kind `storage-occupancy`: how full one storage was at one instant."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from siteward.records import Dimension, Measure, Snapshot


class StorageOccupancy(Snapshot, kind="storage-occupancy", retention=timedelta(days=400)):
    """Space of one storage at one instant: all of it, used, free, reserved, guaranteed, and the number of files."""

    site: Annotated[str, Dimension("site the storage belongs to")]
    endpoint: Annotated[str, Dimension("address of the storage service")] = ""
    storage: Annotated[str, Dimension("storage element or area")]
    media: Annotated[str, Dimension("disk, tape or other")] = "disk"
    total: Annotated[int, Measure("size", unit="B", limit=2**60)]
    used: Annotated[int, Measure("used", unit="B", limit=2**60)]
    free: Annotated[
        int | None, Measure("free to write; less than size minus used where some is kept back", unit="B", limit=2**60)
    ] = None
    reserved: Annotated[int, Measure("promised to others but not used", unit="B", limit=2**60)] = 0
    guaranteed: Annotated[int | None, Measure("promised to the VO whatever others do", unit="B", limit=2**60)] = None
    files: Annotated[int | None, Measure("files stored", unit="1", limit=10**12)] = None
