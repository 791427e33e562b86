"""Bringing templates and indices up to the kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError

from monitoring.stores.opensearch.differences import DYNAMIC, Change, Contradiction, Present, Step, differences, refusal
from monitoring.stores.opensearch.errors import ClusterError, cluster_error, status_of
from monitoring.stores.opensearch.templates import (
    DAY,
    OWN,
    family,
    is_daily,
    is_named_by_day,
    period_end,
    properties_of,
    searched,
    settings_of,
    template_of,
)
from siteward.records import Kind
from siteward.settings import MonitoringSettings

_NOT_FOUND: Final = 404


def read_present(client: OpenSearch, where: str, settings: MonitoringSettings, kind: Kind) -> Present:
    """What is there for one kind; an index whose name says no period, such as an operator's copy, is none of ours.

    Raises:
        ClusterError: the cluster does not answer, or the user may not look.
    """
    try:
        templates = _templates(client, family(settings.prefix, kind))
        path = searched(settings.prefix, kind)
        mappings = client.transport.perform_request("GET", f"/{path}/_mapping")
        names = ",".join(f"index.{name}" for name in DYNAMIC)
        shown = client.transport.perform_request("GET", f"/{path}/_settings/{names}")
    except OpenSearchException as error:
        raise cluster_error(error, where) from error
    return Present(
        templates,
        {
            index: found["mappings"].get("properties", {})
            for index, found in mappings.items()
            if period_end(settings.prefix, kind, index) is not None
        },
        {index: found["settings"].get("index", {}) for index, found in shown.items()},
    )


def _templates(client: OpenSearch, name: str) -> dict[str, Any]:
    try:
        answer = client.transport.perform_request("GET", f"/_index_template/{name}")
    except TransportError as error:
        if status_of(error) == _NOT_FOUND:
            return {}
        raise
    return {found["name"]: found["index_template"] for found in answer["index_templates"]}


def bring_up(client: OpenSearch, where: str, settings: MonitoringSettings, kind: Kind) -> Brought:
    """Make or change the kind's template and add fields to its indices, as far as opening a store may.

    Several processes may do so at once: each request says what should be, not what to do.

    Raises:
        Contradiction: something is there that only an upgrade, or nothing, can change; nothing was changed.
        ClusterError: the cluster does not answer, or the user may not.
    """
    present = read_present(client, where, settings, kind)
    changes = differences(kind, settings, present)
    refused = [change for change in changes if change.step in {Step.REFUSED, Step.NEVER}]
    if refused:
        raise Contradiction(refusal(kind, refused))
    added = [change for change in changes if change.step is Step.START]
    is_new = family(settings.prefix, kind) not in present.templates
    try:
        apply(client, where, settings, kind, present, added)
    except ClusterError:
        if not is_new or not read_present(client, where, settings, kind).templates:
            raise
        # Another process was faster, and may have made it for another declaration; what it says now holds for both.
        return bring_up(client, where, settings, kind)
    if is_new:
        present = read_present(client, where, settings, kind)
    return Brought(added, is_daily=_is_daily(kind, settings, present))


class Brought(msgspec.Struct, frozen=True):
    """What bringing a kind up came to.

    Attributes:
        changes: what was changed.
        is_daily: whether the kind's indices are of a day each; see `templates.template_of`.
    """

    changes: list[Change]
    is_daily: bool


def apply(
    client: OpenSearch,
    where: str,
    settings: MonitoringSettings,
    kind: Kind,
    present: Present,
    changes: Sequence[Change],
) -> None:
    """Put some differences right.

    Args:
        client: of the cluster.
        where: the cluster, as messages name it.
        settings: prefix, shards, replicas, refresh.
        kind: as it is declared now.
        present: what is there.
        changes: some of its differences, none of which is put right never.

    Raises:
        ClusterError: the cluster does not answer, or the user may not; some may be done.
    """
    places: dict[str, set[str]] = {}
    for change in changes:
        places.setdefault(change.place, set()).add(change.what)
    is_whole = any(change.step is not Step.START for change in changes)
    name = family(settings.prefix, kind)
    body = template_of(kind, settings, daily=_is_daily(kind, settings, present))
    if not is_whole and name in present.templates:
        _keep(body, present.templates[name])
    try:
        if f"template {name}" in places:
            # One that another process made meanwhile is not written over: its indices may be of another period.
            parameters = {} if name in present.templates else {"create": "true"}
            client.transport.perform_request("PUT", f"/_index_template/{name}", params=parameters, body=body)
        for index in present.indices:
            _apply_to_index(client, settings, kind, index, places.get(f"index {index}", set()))
    except OpenSearchException as error:
        raise cluster_error(error, where) from error


def _apply_to_index(
    client: OpenSearch, settings: MonitoringSettings, kind: Kind, index: str, whats: AbstractSet[str]
) -> None:
    wanted = settings_of(settings)["index"]
    if whats - wanted.keys():
        body: dict[str, Any] = {"properties": properties_of(kind)}
        client.transport.perform_request("PUT", f"/{index}/_mapping", body=body)
    if whats & wanted.keys():
        body = {"index": {name: wanted[name] for name in wanted if name in DYNAMIC}}
        client.transport.perform_request("PUT", f"/{index}/_settings", body=body)


def _is_daily(kind: Kind, settings: MonitoringSettings, present: Present) -> bool:
    """As the template says, whatever the kind's retention is by now: a record that is sent again has to meet itself.

    Where somebody deleted the template, the newest of the indices says so by its name.
    """
    found = present.templates.get(family(settings.prefix, kind))
    if found is not None:
        return bool(found["_meta"][OWN].get("period") == DAY)
    return is_named_by_day(settings.prefix, kind, max(present.indices)) if present.indices else is_daily(kind)


def make_indices(client: OpenSearch, where: str, indices: Sequence[str]) -> None:
    """Make indices from their templates, for clusters that make none by themselves; those that are there stay.

    Raises:
        ClusterError: the cluster does not answer, or the user may not.
    """
    for index in indices:
        try:
            client.transport.perform_request("PUT", f"/{index}")
        except OpenSearchException as error:
            failed = cluster_error(error, where)
            if failed.type != "resource_already_exists_exception":
                raise failed from error


def _keep(body: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Leave in a template what others may still need: fields that this process's declaration does not have."""
    inner = found.get("template", {})
    body["template"]["mappings"]["properties"] = _merged(
        inner.get("mappings", {}).get("properties", {}), body["template"]["mappings"]["properties"]
    )


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, mapped in new.items():
        inner = mapped.get("properties")
        before = old.get(name, {}).get("properties")
        merged[name] = {"properties": _merged(before, inner)} if inner and before else mapped
    return merged
