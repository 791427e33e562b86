"""What one viewer sees of one kind: the records, as conditions of the question, and people's names or pseudonyms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, Final, NoReturn

import msgspec

from siteward.people import People
from siteward.pseudonyms import is_pseudonym
from siteward.query import Filter, QueryError, is_met
from siteward.records import Column, Kind
from siteward.viewer import Viewer, Visible

GROUP: Final = "group"
"""The dimension that names the group whose record it is."""
SITE: Final = "site"
"""The dimension that names the site where it is."""
MOST_PEOPLE: Final = 30_000
"""People among whom a pattern is looked for."""
Present = Callable[[str], Iterable[Any]]
"""Gives what a field is in some records, each once."""


class Sight:
    """One viewer's sight of one kind, whose records hold pseudonyms.

    Attributes:
        conditions: what every record has to meet, beside what is asked.
        hidden: names of which pseudonyms are shown in place of values.
    """

    def __init__(
        self, kind: Kind, viewer: Viewer, dimensions: Mapping[str, Column], fields: Mapping[str, Column], people: People
    ) -> None:
        """Work it out.

        Args:
            kind: the kind asked.
            viewer: who asks.
            dimensions: by which it can be told whose a record is.
            fields: what may be grouped and filtered by.
            people: their names.

        Raises:
            QueryError: records of this kind do not say whether they are the viewer's.
        """
        self._people = people
        self._viewer = viewer
        self._own = _person_of(dimensions)
        self._stored = frozenset(column.name for column in kind.columns if column.personal)
        self._names: dict[str, str] = {}
        self.conditions = tuple(map(self._of_own, _conditions(kind, viewer, dimensions)))
        self.hidden = frozenset(() if viewer.names else (name for name, each in fields.items() if each.personal))

    @property
    def told(self) -> tuple[Filter, ...]:
        """The conditions as the viewer reads them: with the own name in place of its pseudonym."""
        return tuple(
            msgspec.structs.replace(each, values=(self._viewer.person,)) if each.field in self._stored else each
            for each in self.conditions
        )

    def names_people(self, fields: Iterable[str]) -> bool:
        """Whether values of one of some fields are pseudonyms in the store."""
        return not self._stored.isdisjoint(fields)

    def look_up(self, name: str, values: Iterable[Any]) -> None:
        """Find out whom some values of a field name, all at once, for `shown`."""
        if name not in self._stored or name in self.hidden:
            return
        wanted = {value for value in values if isinstance(value, str) and is_pseudonym(value)}
        missing = wanted - self._names.keys()
        if missing:
            # Who has no name is not asked for again.
            self._names |= {each: each for each in missing} | dict(self._people.names(missing))

    def shown(self, name: str, value: Any) -> Any:  # noqa: ANN401  # of any dimension.
        """A value of a dimension, or of what is told of it, as this viewer may see it."""
        if not isinstance(value, str) or not value:
            return value
        if name in self._stored:
            return self._person(name, value)
        # What is told of a person is kept as it is, and tells as much.
        return self._people.pseudonym(name, value) if name in self.hidden else value

    def is_visible(self, fields: Mapping[str, Any]) -> bool:
        """Whether a single record, as it is stored, is; one of which nothing is known is not, unless all are."""
        return all(fields.get(each.field) in each.values for each in self.conditions)

    def asked(self, filters: Iterable[Filter], present: Present) -> tuple[Filter, ...]:
        """Conditions as the store's records meet them: pseudonyms in place of names.

        Args:
            filters: as they were asked.
            present: what a field is in those records that the viewer may see.

        Raises:
            QueryError: somebody could find out names by them, whatever the names are, so that the refusal does not
                tell them either; or a pattern means too many.
        """
        found = []
        for condition in filters:
            if condition.field in self.hidden and not self._tells_nothing(condition):
                _refuse(
                    f"names of {condition.field} are not shown to you, and cannot be asked for; name a pseudonym from "
                    "an answer, yourself, or the empty text, without wildcards"
                )
            found.append(stored(condition, self._people, present) if condition.field in self._stored else condition)
        return tuple(found)

    def _person(self, name: str, value: str) -> str:
        if name in self.hidden:
            code = pseudonym_of(self._people, name, value)
            return self._viewer.person if self._is_own(name, code) else code
        self.look_up(name, [value])
        return self._names.get(value, value)

    def _is_own(self, name: str, code: str) -> bool:
        return name == self._own and bool(self._viewer.person) and self._own_code == code

    @cached_property
    def _own_code(self) -> str:
        return self._people.pseudonym(self._own, self._viewer.person)

    def _of_own(self, condition: Filter) -> Filter:
        """A condition on the viewer's own records as the store's records meet it.

        What has the form of a pseudonym is a name here: a token must not make anybody somebody else.
        """
        if condition.field not in self._stored:
            return condition
        return Filter(condition.field, (self._people.pseudonym(condition.field, self._viewer.person),))

    def _tells_nothing(self, condition: Filter) -> bool:
        if condition.wildcard or condition.minimum is not None or condition.maximum is not None:
            return False
        return all(
            each == "" or (condition.field, each) == (self._own, self._viewer.person) or is_pseudonym(str(each))
            for each in condition.values
        )


def pseudonym_of(people: People, dimension: str, value: str) -> str:
    """What stands for a value in a question; what has the form of a pseudonym is one, from an answer."""
    return value if is_pseudonym(value) else people.pseudonym(dimension, value)


def stored(condition: Filter, people: People, present: Present) -> Filter:
    """A condition on people's names as records meet it, which hold pseudonyms.

    A pattern is about names: whoever has none that is known meets none. It means those who are present.

    Raises:
        QueryError: it is a pattern, and among more people than can be looked through.
    """
    if not condition.wildcard:
        values = tuple(each and pseudonym_of(people, condition.field, str(each)) for each in condition.values)
        return msgspec.structs.replace(condition, values=values)
    meant = msgspec.structs.replace(condition, negated=False)
    there = set(islice(present(condition.field), MOST_PEOPLE + 1))
    if len(there) > MOST_PEOPLE:
        _refuse(f"there are more than {MOST_PEOPLE} people to find a pattern among; name them without wildcards")
    names = people.names({each for each in there if isinstance(each, str) and is_pseudonym(each)})
    values = tuple(code for code, name in names.items() if is_met(meant, name))
    values += ("",) if is_met(meant, "") else ()
    # Whoever nobody is called, nobody is: no record holds a pattern.
    nobody = tuple(people.pseudonym(condition.field, str(each)) for each in condition.values)
    return Filter(condition.field, values or nobody, condition.negated)


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
