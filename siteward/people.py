"""Who people are: records hold pseudonyms, and names are kept apart from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from siteward.records import Kind


class PeopleUnavailable(Exception):  # noqa: N818  # reads as the state it is.
    """Names cannot be looked up now; try again later."""

    permanent = False


class People(Protocol):
    """Knows people's names by their pseudonyms. May wait for a database.

    Raises:
        PeopleUnavailable: of every method.
    """

    def pseudonym(self, dimension: str, name: str) -> str:
        """What records hold in place of a name, whether or not it is known.

        Raises:
            siteward.settings.SettingsError: there is no key, or it is not that of the names.
        """

    def names(self, pseudonyms: Collection[str]) -> Mapping[str, str]:
        """The names behind pseudonyms; those of which no name is known, or was erased, are left out."""


def personal_names(kinds: Iterable[Kind]) -> tuple[str, ...]:
    """The dimensions of some kinds that name people, each once."""
    return tuple(dict.fromkeys(column.name for kind in kinds for column in kind.columns if column.personal))


class Nobody:
    """Knows nobody: for questions that are not about people, and where nobody is to be named. See `People`."""

    def pseudonym(self, dimension: str, name: str) -> str:
        """See `People`.

        Raises:
            LookupError: the question was about people after all.
        """
        message = f"a question about nobody asks for {dimension} {name!r}"
        raise LookupError(message)

    def names(self, pseudonyms: Collection[str]) -> Mapping[str, str]:  # noqa: ARG002  # whoever they are.
        """See `People`."""
        return {}
