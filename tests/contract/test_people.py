"""People's names on every database: known by pseudonym until they are erased, and then to nobody any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from at_once import all_at_once
from ledger_databases import Place

from siteward.people import PeopleUnavailable
from siteward.server.database import Database
from siteward.server.people_table import AT_ONCE, TRUSTED, PeopleTable
from siteward.settings import Settings, SettingsError
from siteward.settings_sections import AccessSettings

KEY = "of pseudonyms in tests, which nobody knows"
Open = Callable[..., PeopleTable]


class Clock:
    """Told what time it is."""

    def __init__(self) -> None:
        """Some day."""
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Seconds since 1970 UTC."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Of all tables of a test."""
    return Clock()


@pytest.fixture
def opening(ledger_place: Place, tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens the table, as often as processes would."""
    with ExitStack() as stack:

        def open_table(key: str = KEY) -> PeopleTable:
            access = AccessSettings(url=ledger_place.url, password=ledger_place.password, pseudonym_key=key)
            settings = Settings(data=str(tmp_path), access=access)
            return stack.enter_context(closing(PeopleTable(settings, clock)))

        yield open_table


def entry(people: PeopleTable, *names: str, dimension: str = "user") -> dict[str, tuple[str, str]]:
    """Names as they are entered."""
    return {people.pseudonym(dimension, name): (dimension, name) for name in names}


def test_a_name_is_found_by_its_pseudonym(opening: Open) -> None:
    """In every process; whatever it is made of, and nobody else by it."""
    odd = ["anna", "Anna", "anna ", "/DC=example/CN=Änna|\\*?%_'", "安娜", "a" * 1000]
    writing, reading = opening(), opening()
    codes = entry(writing, *odd)
    assert len(codes) == len(odd)
    writing.enter(codes)
    assert reading.names(codes) == {code: name for code, (_, name) in codes.items()}
    assert reading.names([]) == reading.names([writing.pseudonym("user", "boris")]) == {}


def test_more_names_than_one_statement_takes(opening: Open) -> None:
    """They are looked up in portions."""
    people = opening()
    codes = entry(people, *(f"user{number}" for number in range(2 * AT_ONCE + 1)))
    people.enter(codes)
    assert len(people.names(codes)) == len(people.find(codes)) == 2 * AT_ONCE + 1


def test_the_same_names_entered_at_once_are_there_once(opening: Open) -> None:
    """Collectors of several queues see the same people at the same moment, in any order."""
    tables = [opening() for _ in range(4)]
    codes = entry(tables[0], *(f"user{number}" for number in range(200)))
    assert not all_at_once([partial(table.enter, codes) for table in tables])
    assert tables[0].names(codes) == {code: name for code, (_, name) in codes.items()}


def test_an_erased_name_does_not_come_back(opening: Open, clock: Clock) -> None:
    """With later records neither, from whichever process; others stay."""
    people, other = opening(), opening()
    codes = entry(people, "anna", "boris")
    anna, boris = codes
    people.enter(codes)
    assert people.erase({anna: "user"}) == 1
    for table in (people, other):
        clock.now += TRUSTED + 1
        table.enter(codes)
        assert table.names(codes) == {boris: "boris"}
    (erased, *_) = (each for each in other.find(codes) if each.pseudonym == anna)
    assert (erased.name, erased.dimension) == ("", "user")
    assert erased.erased is not None
    assert erased.erased < clock.now * 1_000_000
    assert people.erase({anna: "user"}) == 0


def test_who_never_came_can_be_erased(opening: Open) -> None:
    """The name is not entered when it comes."""
    people = opening()
    codes = entry(people, "anna")
    assert people.erase(dict.fromkeys(codes, "user")) == 0
    opening().enter(codes)
    assert people.names(codes) == {}


def test_an_erased_name_can_be_allowed_again(opening: Open, clock: Clock) -> None:
    """It comes with the next records; also in a collector that has entered it before."""
    people, collector = opening(), opening()
    codes = entry(people, "anna")
    collector.enter(codes)
    people.erase(dict.fromkeys(codes, "user"))
    assert people.allow(codes) == 1
    assert people.allow(codes) == 0
    assert people.names(codes) == {}
    clock.now += TRUSTED + 1
    collector.enter(codes)
    assert list(people.names(codes).values()) == ["anna"]


def test_another_key_is_refused(opening: Open) -> None:
    """Everybody would be somebody else from then on: a process with the wrong key enters and shows nobody."""
    people = opening()
    codes = entry(people, "anna")
    people.enter(codes)
    wrong = opening(KEY[::-1])
    for ask in (
        wrong.check,
        lambda: wrong.pseudonym("user", "anna"),
        lambda: wrong.enter(codes),
        lambda: wrong.names(codes),
        lambda: wrong.erase({}),
    ):
        with pytest.raises(SettingsError, match="the key of pseudonyms is not the one with which"):
            ask()
    assert people.names(codes)


def test_nobody_is_anybody_while_the_table_is_away(tmp_path: Path) -> None:
    """With a key that is not known to be that of the names no pseudonym is made; no error tells whom it is about."""
    access = AccessSettings(url="postgresql://siteward@127.0.0.1:1/none")
    with closing(PeopleTable(Settings(data=str(tmp_path), access=access))) as people:
        for ask in (
            people.check,
            lambda: people.pseudonym("user", "anna"),
            lambda: people.names(["pseudonym-00000000000000000000"]),
            lambda: people.enter({"pseudonym-00000000000000000000": ("user", "anna")}),
        ):
            with pytest.raises(PeopleUnavailable, match="cannot be looked up now") as refused:
                ask()
            assert not refused.value.permanent
            assert "anna" not in str(refused.value)


def test_what_is_sealed_here_is_known_here_only(opening: Open, tmp_path: Path) -> None:
    """A record that comes back with a sealed pseudonym is that person's; any other text is a name."""
    people = opening()
    code = people.pseudonym("user", "anna")
    assert people.received("user", people.sealed(code)) == code
    other = Settings(data=str(tmp_path / "other"))
    with closing(PeopleTable(other)) as others:
        for text in (code, f"{code}.", f"{code}.{'0' * 20}", others.sealed(code), f"{people.sealed(code)} "):
            assert people.received("user", text) == people.pseudonym("user", text) != code


def test_an_erased_name_is_in_no_file(tmp_path: Path) -> None:
    """Neither in a page that is free, nor in the log of changes."""
    settings = Settings(data=str(tmp_path), access=AccessSettings(pseudonym_key=KEY))
    name = "somebody whose name stands nowhere else"
    with closing(PeopleTable(settings)) as people, closing(Database(settings.access_url)) as reader:
        codes = entry(people, name, *(f"user{number}" for number in range(1000)))
        people.enter(codes)
        with reader.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM people").all()
        assert any(name.encode() in file.read_bytes() for file in tmp_path.iterdir())
        people.erase({people.pseudonym("user", name): "user"})
        people.scrub()
        assert not any(name.encode() in file.read_bytes() for file in tmp_path.iterdir())
        assert len(people.names(codes)) == 1000


def test_what_is_held_is_not_waited_for_without_end(opening: Open, ledger_place: Place) -> None:
    """Whoever reads the table for long keeps it from being written anew, which says so; nobody else is stopped."""
    people = opening()
    people.enter(entry(people, "anna"))
    people.erase({people.pseudonym("user", "anna"): "user"})
    if ledger_place.url.startswith("sqlite"):
        people.scrub()
        return
    with pytest.MonkeyPatch.context() as patch:
        for sort in ("postgresql", "mariadb"):
            patch.setattr(f"siteward.server.database.{sort}.SCRUB_SECONDS", 1)
        with closing(Database(ledger_place.url, ledger_place.password)) as reader, reader.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM people").all()
            with pytest.raises(PeopleUnavailable):
                people.scrub()
        people.scrub()
        assert people.names([people.pseudonym("user", "boris")]) == {}
