"""What one viewer sees of one kind: the records, as conditions of the question, and people's names or pseudonyms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

from siteward.pseudonyms import is_pseudonym, pseudonym
from siteward.query import Filter, QueryError
from siteward.records import Column, Kind
from siteward.viewer import Viewer, Visible

Key = Callable[[], bytes]
"""Gives the key of pseudonyms; asked only where there is one to be made."""
GROUP: Final = "group"
"""The dimension that names the group whose record it is."""
SITE: Final = "site"
"""The dimension that names the site where it is."""


class Sight:
    """One viewer's sight of one kind.

    Attributes:
        conditions: what every record has to meet, beside what is asked.
        hidden: names of which pseudonyms are shown in place of values.
    """

    def __init__(
        self, kind: Kind, viewer: Viewer, dimensions: Mapping[str, Column], fields: Mapping[str, Column], key: Key
    ) -> None:
        """Work it out.

        Args:
            kind: the kind asked.
            viewer: who asks.
            dimensions: by which it can be told whose a record is.
            fields: what may be grouped and filtered by.
            key: of pseudonyms.

        Raises:
            QueryError: records of this kind do not say whether they are the viewer's.
        """
        self._person = (_person_of(dimensions), viewer.person)
        self._key = key
        self._known: dict[tuple[str, str], str] = {}
        self.conditions = _conditions(kind, viewer, dimensions)
        self.hidden = frozenset(() if viewer.names else (name for name, each in fields.items() if each.personal))

    def shown(self, name: str, value: Any) -> Any:  # noqa: ANN401  # of any dimension.
        """A value of a dimension, or of what is told of it, as this viewer may see it."""
        person = (name, value)
        if name not in self.hidden or not value or person == self._person:
            return value
        if person not in self._known:
            self._known[person] = pseudonym(self._key(), *person)
        return self._known[person]

    def is_visible(self, fields: Mapping[str, Any]) -> bool:
        """Whether a single record is; one of which nothing is known is not, unless all are."""
        return all(fields.get(each.field) in each.values for each in self.conditions)

    def check(self, filters: Iterable[Filter]) -> None:
        """Refuse conditions by which somebody could find out names.

        Raises:
            QueryError: whatever the names in the ledger are, so that the refusal does not tell them either.
        """
        for condition in filters:
            if condition.field in self.hidden and not self._tells_nothing(condition):
                _refuse(
                    f"names of {condition.field} are not shown to you, and cannot be asked for; name a pseudonym from "
                    "an answer, yourself, or the empty text, without wildcards"
                )

    def _tells_nothing(self, condition: Filter) -> bool:
        if condition.wildcard or condition.minimum is not None or condition.maximum is not None:
            return False
        return all(
            each == "" or (condition.field, each) == self._person or is_pseudonym(str(each))
            for each in condition.values
        )


def _person_of(dimensions: Mapping[str, Column]) -> str:
    """The dimension that names the person whose record it is: the first personal one; "" where there is none."""
    return next((name for name, column in dimensions.items() if column.personal), "")


def _conditions(kind: Kind, viewer: Viewer, dimensions: Mapping[str, Column]) -> tuple[Filter, ...]:
    names_people = any(column.personal for column in kind.columns)
    vos = viewer.vos if names_people else (*viewer.vos, *viewer.beside)
    found = [] if viewer.visible is Visible.ALL else [Filter("vo", vos)]
    if viewer.visible is Visible.GROUP:
        found.append(_owned(kind, GROUP if GROUP in dimensions else "", viewer.group, "your group"))
    if viewer.visible is Visible.OWN:
        found.append(_owned(kind, _person_of(dimensions), viewer.person, "your own"))
    if viewer.sites:
        if SITE not in dimensions:
            _refuse(f"you see records of your sites only, and those of {kind.name} do not say at which they are")
        found.append(Filter(SITE, viewer.sites))
    return tuple(found)


def _owned(kind: Kind, dimension: str, owner: str, whose: str) -> Filter:
    if not dimension:
        _refuse(f"you see records of {whose} only, and those of {kind.name} do not say whose they are")
    return Filter(dimension, (owner,))


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
