"""Who asks the ledger: the one place from which routes and commands take their viewer."""

from __future__ import annotations

from siteward.settings import Settings
from siteward.viewer import Viewer, Visible


def viewer_of(settings: Settings) -> Viewer:
    """Whoever passed the door, or runs a command here: one local person, who sees everything.

    People's names are shown unless `accounting.names` says otherwise.
    """
    # TODO(#6): VOs, group, person and the right to names come from the token.
    return Viewer(visible=Visible.ALL, names=settings.accounting.names)
