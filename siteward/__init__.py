"""Siteward: monitoring, accounting and resource status for distributed computing.

This package is the shared language: what a record is, how to emit one, how to ask. Names load when first used, so
that importing it costs a pilot next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siteward.client import Client
    from siteward.emit import AsyncEmitter, Emitter
    from siteward.kinds.cloud_vm import CloudVm
    from siteward.kinds.data_operation import DataOperation
    from siteward.kinds.downtime import Downtime
    from siteward.kinds.host import Host
    from siteward.kinds.job import Job
    from siteward.kinds.network import Network
    from siteward.kinds.pilot import Pilot
    from siteward.kinds.pilot_submission import PilotSubmission
    from siteward.kinds.storage_occupancy import StorageOccupancy
    from siteward.kinds.storage_share import StorageShare
    from siteward.kinds.wms_history import WmsHistory
    from siteward.records import (
        Bound,
        Combine,
        Dimension,
        Event,
        Interval,
        Measure,
        Product,
        Ratio,
        Refused,
        Snapshot,
    )

__version__ = "0.1.0"

_PLACES = {
    "AsyncEmitter": "siteward.emit",
    "Bound": "siteward.records",
    "Client": "siteward.client",
    "CloudVm": "siteward.kinds.cloud_vm",
    "Combine": "siteward.records",
    "DataOperation": "siteward.kinds.data_operation",
    "Dimension": "siteward.records",
    "Downtime": "siteward.kinds.downtime",
    "Emitter": "siteward.emit",
    "Event": "siteward.records",
    "Host": "siteward.kinds.host",
    "Interval": "siteward.records",
    "Job": "siteward.kinds.job",
    "Measure": "siteward.records",
    "Network": "siteward.kinds.network",
    "Pilot": "siteward.kinds.pilot",
    "PilotSubmission": "siteward.kinds.pilot_submission",
    "Product": "siteward.records",
    "Ratio": "siteward.records",
    "Refused": "siteward.records",
    "Snapshot": "siteward.records",
    "StorageOccupancy": "siteward.kinds.storage_occupancy",
    "StorageShare": "siteward.kinds.storage_share",
    "WmsHistory": "siteward.kinds.wms_history",
}

__all__ = [
    "AsyncEmitter",
    "Bound",
    "Client",
    "CloudVm",
    "Combine",
    "DataOperation",
    "Dimension",
    "Downtime",
    "Emitter",
    "Event",
    "Host",
    "Interval",
    "Job",
    "Measure",
    "Network",
    "Pilot",
    "PilotSubmission",
    "Product",
    "Ratio",
    "Refused",
    "Snapshot",
    "StorageOccupancy",
    "StorageShare",
    "WmsHistory",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module attribute of any type.
    if name not in _PLACES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_PLACES[name]), name)
