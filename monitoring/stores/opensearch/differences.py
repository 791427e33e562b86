"""What differs between templates and indices as they are and as the kinds say; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from monitoring.stores import StoreError
from monitoring.stores.opensearch.templates import LAYOUT, OWN, family, properties_of, settings_of, template_of
from siteward.records import Kind
from siteward.settings import MonitoringSettings

Fields = dict[str, dict[str, Any]]
"""Mappings by dotted field name."""
UPGRADE: Final = "siteward stores upgrade"
DRY_RUN: Final = f"{UPGRADE} --dry-run"
DYNAMIC: Final = ("number_of_replicas", "auto_expand_replicas", "refresh_interval")
"""Settings that an existing index can change; the number of its shards is not among them."""


class Contradiction(StoreError):  # noqa: N818  # reads as the state it is.
    """Something is there that was made for another declaration and that nothing added can mend."""

    permanent = True


class Step(StrEnum):
    """When a difference is put right."""

    START = "at start"
    """By whoever opens the store: something is added, and nobody minds."""
    UPGRADE = "by upgrade"
    """By `siteward stores upgrade`: writing goes well without it, and others may still need what is there."""
    REFUSED = "only by upgrade"
    """By `siteward stores upgrade`; before it the store does not open, since it would write something else."""
    NEVER = "never"
    """By nothing: an index cannot change what a field is."""


class Change(msgspec.Struct, frozen=True):
    """One difference between what is there and what should be.

    Attributes:
        place: `template NAME` or `index NAME`.
        what: the field or setting, or `all` where the template is missing.
        present: what is there, as text; "" for nothing.
        wanted: what should be there; "" for nothing.
        step: when it is put right.
    """

    place: str
    what: str
    present: str
    wanted: str
    step: Step = Step.START


class Present(msgspec.Struct):
    """What is there.

    Attributes:
        templates: index templates by name.
        indices: mapping properties by the name of the index.
        settings: the `index` settings by the name of the index.
    """

    templates: dict[str, Any] = {}
    indices: dict[str, Any] = {}
    settings: dict[str, Any] = {}


def flat(properties: Mapping[str, Any], before: str = "") -> Fields:
    """Mapping properties with objects resolved into dotted names."""
    fields: Fields = {}
    for name, mapped in properties.items():
        inner = mapped.get("properties")
        if inner is None:
            fields[before + name] = dict(mapped)
        else:
            fields |= flat(inner, f"{before}{name}.")
    return fields


def differences(kind: Kind, settings: MonitoringSettings, present: Present) -> list[Change]:
    """What has to change for one kind, templates first.

    A field that the kind no longer has stays in the indices and, until an upgrade, in the template: a collector
    that knows it may still be running.

    Raises:
        Contradiction: the template is another installation's, or a newer Siteward's.
    """
    name = family(settings.prefix, kind)
    wanted = flat(properties_of(kind))
    found = present.templates.get(name)
    changes: list[Change] = []
    if found is None:
        changes.append(Change(f"template {name}", "all", "", f"{len(wanted)} fields"))
    else:
        _check_owner(kind, settings, name, found)
        changes += _template_changes(kind, settings, f"template {name}", found)
    for index in sorted(present.indices):
        is_there = flat(present.indices[index])
        changes += (change for change in _field_changes(f"index {index}", wanted, is_there) if change.wanted)
        if index in present.settings:
            changes += _setting_changes(f"index {index}", settings, present.settings[index], DYNAMIC)
    return changes


def _check_owner(kind: Kind, settings: MonitoringSettings, name: str, found: Mapping[str, Any]) -> None:
    meta = (found.get("_meta") or {}).get(OWN)
    if not isinstance(meta, Mapping) or (meta.get("prefix"), meta.get("kind")) != (settings.prefix, kind.name):
        message = (
            f"the index template {name!r} is not ours (its _meta says {meta}); set monitoring.prefix to a name that "
            "no other installation on this cluster has"
        )
        raise Contradiction(message)
    if found.get("version", 0) > LAYOUT:
        message = (
            f"the index template {name!r} was made by a newer Siteward (layout {found['version']}, this one knows "
            f"{LAYOUT}); upgrade this one"
        )
        raise Contradiction(message)


def _template_changes(
    kind: Kind, settings: MonitoringSettings, place: str, found: Mapping[str, Any]
) -> Iterator[Change]:
    inner = found.get("template", {})
    is_there = flat(inner.get("mappings", {}).get("properties", {}))
    yield from _field_changes(place, flat(properties_of(kind)), is_there)
    yield from _setting_changes(place, settings, inner.get("settings", {}).get("index", {}))
    wanted = template_of(kind, settings, daily=False)
    for key in ("index_patterns", "priority", "version"):
        if found.get(key) != wanted[key]:
            yield Change(place, key, _shown(found.get(key)), _shown(wanted[key]))
    if inner.get("mappings", {}).get("dynamic") != "strict":
        yield Change(place, "dynamic", _shown(inner.get("mappings", {}).get("dynamic")), "strict")


def _field_changes(place: str, wanted: Fields, present: Fields) -> Iterator[Change]:
    for field, mapped in wanted.items():
        if field not in present:
            yield Change(place, field, "", _shown(mapped))
        elif present[field] != mapped:
            # A template is only text until an index is made from it: it can be changed, its indices cannot.
            step = Step.REFUSED if place.startswith("template ") else Step.NEVER
            yield Change(place, field, _shown(present[field]), _shown(mapped), step)
    for field in present.keys() - wanted.keys():
        yield Change(place, field, _shown(present[field]), "", Step.UPGRADE)


def _setting_changes(
    place: str, settings: MonitoringSettings, present: Mapping[str, Any], names: Sequence[str] = ()
) -> Iterator[Change]:
    for name, value in settings_of(settings)["index"].items():
        if (not names or name in names) and present.get(name) != value:
            yield Change(place, name, _shown(present.get(name)), value, Step.UPGRADE)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in sorted(value.items(), key=lambda pair: pair[0] != "type"))
    return "" if value is None else str(value)


def refusal(kind: Kind, refused: Sequence[Change]) -> str:
    """Why a kind cannot be written, and what to do."""
    first = next((change for change in refused if change.step is Step.NEVER), refused[0])
    remedy = f"change the template with `{UPGRADE}`"
    if first.step is Step.NEVER:
        remedy = "give the changed field a new name, or start anew under another monitoring.prefix"
    return (
        f"kind {kind.name!r}: field {first.what!r} is {first.wanted} now, but {first.present} in the {first.place}; "
        f"see all differences ({len(refused)} here) with `{DRY_RUN}`, and {remedy}"
    )
