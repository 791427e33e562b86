"""The kinds that the ledger takes, and whether the settings name such; who only emits needs nothing of the ledger."""

from __future__ import annotations

from siteward.kinds import Kinds
from siteward.records import Kind
from siteward.records.doors import nearest
from siteward.settings import Settings, SettingsError


def booked_kinds(settings: Settings, kinds: Kinds) -> dict[str, Kind]:
    """The kinds that the ledger takes: all but those that say otherwise, and those left out.

    Raises:
        siteward.settings.SettingsError: a kind is to be left out, or kept, that there is not, or that is never kept.
    """
    left_out, kept = settings.accounting.leave_out, settings.accounting.kinds
    for setting, names in (("leave_out", left_out), ("kinds", kept)):
        for name in names:
            if name not in kinds:
                message = f"setting accounting.{setting}: no kind is called {name!r}{nearest(name, tuple(kinds))}"
                raise SettingsError(message)
    for name, each in kept.items():
        if not kinds[name].booked or (each.keep_records and not kinds[name].archived):
            why = "archived" if kinds[name].booked else "booked"
            message = f"setting accounting.kinds.{name}: records of {name} are not {why}; take it away"
            raise SettingsError(message)
    return {name: kind for name, kind in kinds.items() if kind.booked and name not in left_out}
