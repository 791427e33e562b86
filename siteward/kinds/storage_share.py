"""The kind `storage-share`: what one share, group or user held on one storage at one instant."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from siteward.records import Dimension, Measure, Snapshot

_EXABYTE: Final = 2**60


class StorageShare(
    Snapshot,
    kind="storage-share",
    identity=(
        "producer",
        "time",
        "storage",
        "share",
        "path",
        "media",
        "storage_class",
        "group",
        "subgroup",
        "role",
        "user",
        "local_user",
        "local_group",
    ),
    retention=timedelta(days=400),
):
    """Space that one share, group or user of a storage held at one instant, as StAR and the WLCG's SRR tell it.

    The finest that is known: one record for each share, or for each user of each share. A StAR record's time is the
    end of its interval. What the SRR says of a share that several VOs have is one record of `all`: with one for each,
    its space would count more than once.
    """

    site: Annotated[str, Dimension("site the storage belongs to")]
    storage: Annotated[str, Dimension("storage system: its host or name")]
    share: Annotated[str, Dimension("part of the storage that is given out as a whole")] = ""
    path: Annotated[str, Dimension("directory concerned; of several the first", max_length=1000, bucketed=False)] = ""
    media: Annotated[str, Dimension("disk, tape or other")] = "disk"
    storage_class: Annotated[str, Dimension("quality of the storage in its own words, such as replicated")] = ""
    access_latency: Annotated[str, Dimension("online, nearline or offline")] = ""
    retention_policy: Annotated[str, Dimension("how safely it is kept, such as replica, custodial or none")] = ""
    state: Annotated[str, Dimension("whether it serves: open, closed, draining")] = ""
    group: Annotated[str, Dimension("group within the VO that it is for")] = ""
    subgroup: Annotated[str, Dimension("group within that group", live=False)] = ""
    role: Annotated[str, Dimension("role within the group", live=False)] = ""
    user: Annotated[str, Dimension("whose data it is", personal=True)] = ""
    local_user: Annotated[str, Dimension("account at the site that holds it", personal=True, bucketed=False)] = ""
    local_group: Annotated[str, Dimension("group at the site that holds it", live=False)] = ""
    capacity_used: Annotated[int, Measure("used on the media, with every copy", unit="B", limit=_EXABYTE)]
    capacity_allocated: Annotated[int | None, Measure("set aside for it", unit="B", limit=_EXABYTE)] = None
    logical_used: Annotated[int | None, Measure("size of the data, copies left out", unit="B", limit=_EXABYTE)] = None
    files: Annotated[int | None, Measure("files stored", unit="1", limit=10**12)] = None
