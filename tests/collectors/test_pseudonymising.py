"""Before any sink sees a record, people's names are apart from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from examples import JOB, NOON, batch_of, job_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.pseudonymising import Enter, Pseudonymise, final_id
from collectors.steps import Haul
from siteward.kinds.storage_share import StorageShare
from siteward.people import PeopleUnavailable
from siteward.pseudonyms import PSEUDONYM, is_pseudonym, pseudonym, sealed
from siteward.records import DeclarationError, Kind, Row, kind_from_table, kind_of, microseconds
from siteward.server.people_table import PeopleTable
from siteward.settings import Settings
from siteward.settings_sections import AccessSettings
from siteward.sinks import Batch

KEY: Final = "of pseudonyms in tests, which nobody knows"
SHARE: Final = kind_of(StorageShare)
MADE: Final = {"doc": "Something.", "shape": "event", "identity": ["name"], "measures": {}}


@pytest.fixture
def people(tmp_path: Path) -> Iterator[PeopleTable]:
    """A table of people."""
    made = Settings(data=str(tmp_path), access=AccessSettings(pseudonym_key=KEY))
    with closing(PeopleTable(made)) as table:
        yield table


def hauled(*batches: Batch) -> Haul:
    """A haul behind the steps before."""
    haul = Haul((), 0)
    haul.batches.update({batch.kind.name: batch for batch in batches})
    return haul


def shares(users: list[str], changed: str = "") -> Batch:
    """Shares of these users, one after the other."""
    rows = [
        SHARE.row_of(
            StorageShare(
                vo="example", time=NOON, producer="p", site="S", storage="s", user=user, path=changed, capacity_used=1
            ),
            microseconds(NOON),
        )
        for user in users
    ]
    return batch_of(SHARE, rows)


def rows_of(batch: Batch) -> list[Row]:
    """The records of a batch."""
    return [SHARE.row(*values) for values in zip(*(batch.columns[name] for name in SHARE.names), strict=True)]


def test_names_become_pseudonyms(people: PeopleTable) -> None:
    """In every personal field, each as of its own; who nobody is stays nobody, and the names are left to be entered."""
    rows = job_rows(3)
    rows[1].user, rows[1].local_user = "", "grid7"  # type: ignore[attr-defined]  # a row's fields are those of its kind.
    batch = batch_of(JOB, rows)
    before = dict(batch.columns)
    haul = hauled(batch)
    Pseudonymise(people)(haul)
    key = KEY.encode()
    assert batch.columns["user"] == [pseudonym(key, "user", "user0"), "", pseudonym(key, "user", "user2")]
    assert batch.columns["local_user"] == ["", pseudonym(key, "local_user", "grid7"), ""]
    assert haul.people == {
        pseudonym(key, "user", "user0"): ("user", "user0"),
        pseudonym(key, "user", "user2"): ("user", "user2"),
        pseudonym(key, "local_user", "grid7"): ("local_user", "grid7"),
    }
    others = set(JOB.names) - {"user", "local_user"}
    assert all(batch.columns[name] is before[name] for name in others)
    assert before["user"] == ["user0", "", "user2"]


def test_what_looks_like_a_pseudonym_is_a_name(people: PeopleTable) -> None:
    """Nobody sends records as somebody else by a pseudonym from an answer; what was sealed here is taken as it is."""
    rows = job_rows(2)
    code = people.pseudonym("user", "anna")
    rows[0].user, rows[1].user = code, people.sealed(code)  # type: ignore[attr-defined]  # as above.
    batch = batch_of(JOB, rows)
    haul = hauled(batch)
    Pseudonymise(people)(haul)
    assert batch.columns["user"] == [people.pseudonym("user", code), code]
    assert list(haul.people.values()) == [("user", code)]


def test_ids_that_are_made_of_names_tell_none(people: PeopleTable) -> None:
    """Trying names against an id finds nobody; a record has the same one with a name and its sealed pseudonym."""
    users = ["anna", "boris", ""]
    batch, again = shares(users), shares(users)
    sent = list(batch.ids)
    Pseudonymise(people)(hauled(batch))
    Pseudonymise(people)(hauled(again))
    assert batch.ids == again.ids
    assert not set(batch.ids[:2]) & set(sent)
    assert batch.ids[2] == sent[2]
    assert [each[:6] for each in batch.ids] == [each[:6] for each in sent]
    assert {len(each) for each in batch.ids} == {16}
    back = shares([people.sealed(people.pseudonym("user", "anna")), "boris", ""])
    Pseudonymise(people)(hauled(back))
    assert back.ids == batch.ids
    assert batch.ids == [SHARE.id_of(row) for row in rows_of(batch)]
    assert [final_id(SHARE, row, people, b"") for row in rows_of(shares(users))] == batch.ids
    jobs = batch_of(JOB, job_rows(3))
    ids = list(jobs.ids)
    Pseudonymise(people)(hauled(jobs))
    assert jobs.ids == ids


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    users=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9), max_size=9)
)
def test_who_is_who_stays_the_same(people: PeopleTable, users: list[str]) -> None:
    """Two records are one person's behind the step exactly if they were before it."""
    batch = batch_of(JOB, [row for number, user in enumerate(users) for row in job_rows(number + 1, user=user)[-1:]])
    haul = hauled(batch)
    Pseudonymise(people)(haul)
    codes = batch.columns["user"]
    for one, code in zip(users, codes, strict=True):
        assert [each == one for each in users] == [each == code for each in codes]
        assert code == "" if one == "" else is_pseudonym(code)
    Enter(people)(haul)
    assert set(people.names(codes).values()) == {each for each in users if each}


def test_nothing_is_written_before_its_names_are(people: PeopleTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the table of people is away the haul waits; nobody's record is stored without its name."""

    def away(_names: object) -> None:
        message = "away"
        raise PeopleUnavailable(message)

    monkeypatch.setattr(people, "enter", away)
    haul = hauled(batch_of(JOB, job_rows(1)))
    Pseudonymise(people)(haul)
    with pytest.raises(PeopleUnavailable):
        Enter(people)(haul)
    nameless = hauled(batch_of(JOB, job_rows(1, user="")))
    Pseudonymise(people)(nameless)
    Enter(people)(nameless)


@pytest.mark.parametrize(("length", "is_right"), [(50, False), (51, True), (1000, True), (1001, False)])
def test_a_personal_field_takes_a_pseudonym(length: int, is_right: bool) -> None:  # noqa: FBT001  # a parameter.
    """A kind whose field could not hold one, or hold names that the table could not, is refused as it is declared."""
    assert len(sealed(b"", pseudonym(b"", "user", "x"))) == 51
    assert PSEUDONYM.fullmatch(pseudonym(b"", "user", "x"))
    table = MADE | {
        "dimensions": {
            "name": {"doc": "its own"},
            "user": {"doc": "whose", "personal": True, "optional": True, "max_length": length},
        }
    }
    if is_right:
        assert isinstance(kind_from_table("made", table), Kind)
        return
    with pytest.raises(DeclarationError, match="must take from 51 to 1000 characters"):
        kind_from_table("made", table)
