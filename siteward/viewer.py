"""Who asks: what of the records is visible to a viewer, and whether people's names are."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Visible(StrEnum):
    """Which records a viewer may see."""

    ALL = "all"
    """Those of every VO."""
    VO = "vo"
    """Those of the viewer's VOs."""
    GROUP = "group"
    """Of those, the ones of the viewer's group."""
    OWN = "own"
    """Of those of the viewer's VOs, the viewer's own."""


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever asks. Nothing is visible that is not said here.

    Attributes:
        visible: which records.
        names: people's names are shown; else a pseudonym stands for each but the viewer's own.
        vos: the VOs whose records are visible. Shared infrastructure is the VO `all`, which is one like any other.
        group: the viewer's, where only that one's records are visible.
        person: the viewer, as records name people.
        beside: further VOs whose records are visible where they name nobody: the viewer may see names in `vos` only.
        sites: only records of these sites are visible; () for those of all.
    """

    visible: Visible
    names: bool
    vos: tuple[str, ...] = ()
    group: str = ""
    person: str = ""
    beside: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a viewer of records that nobody owns.

        Raises:
            ValueError: naming what is missing.
        """
        needed = {Visible.GROUP: ("vos", "group"), Visible.OWN: ("vos", "person"), Visible.VO: ("vos",)}
        missing = next((name for name in needed.get(self.visible, ()) if not getattr(self, name)), "")
        if missing or "" in (*self.vos, *self.sites):
            # An empty name would match the records of which it is not known.
            message = (
                f"a viewer of visible={self.visible!s} needs {missing or 'names of VOs and sites'}, and none is empty"
            )
            raise ValueError(message)
