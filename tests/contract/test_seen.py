"""What a viewer sees of a store is what the store would answer if nothing else were in it; on every implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from examples import JOB, NOON, NOW, batch_of, job
from hypothesis import given
from hypothesis import strategies as st
from opened_stores import IMPLEMENTATIONS, KINDS, opened
from searching import searched
from viewers import EVERYTHING, KEY, PEOPLE, without_names

from monitoring.stores import Store
from siteward.kinds.job import Job
from siteward.pseudonyms import is_pseudonym, pseudonym
from siteward.query import Filter, Function, Query, QueryError, Wanted
from siteward.server.seen import SeenStore
from siteward.viewer import Viewer, Visible

START, END = NOON - timedelta(days=1), NOON + timedelta(days=1)
VOS: Final = ("alpha", "beta", "all")
NAMES: Final = ("anna", "boris", "carla")
SITES: Final = ("ONE", "TWO")


def made(number: int) -> Job:
    """A job of some VO, person and site; every combination occurs several times."""
    vo, person, site = VOS[number % 3], NAMES[number // 3 % 3], SITES[number // 9 % 2]
    return job(number, vo=vo, user=person, site=site, wall_time=60 + number, group=f"{vo}-g")


JOBS: Final = [made(number) for number in range(54)]
ROWS: Final = [JOB.row_of(each, NOW) for each in JOBS]
VIEWERS: Final = {
    "everything": EVERYTHING,
    "alpha": Viewer(visible=Visible.VO, names=True, vos=("alpha",)),
    "alpha and shared": Viewer(visible=Visible.VO, names=True, vos=("alpha", "all")),
    "alpha with names, and shared without": Viewer(visible=Visible.VO, names=True, vos=("alpha",), beside=("all",)),
    "alpha without names": Viewer(visible=Visible.VO, names=False, vos=("alpha",)),
    "a group": Viewer(visible=Visible.GROUP, names=True, vos=("beta",), group="beta-g"),
    "own": Viewer(visible=Visible.OWN, names=False, vos=("alpha",), person="anna"),
    "a site": Viewer(visible=Visible.VO, names=False, vos=("alpha", "beta"), sites=("ONE",)),
    "nobody's": Viewer(visible=Visible.VO, names=True, vos=("gamma",)),
}


def is_seen(viewer: Viewer, each: Job) -> bool:
    """Whether a viewer may see a job; written down once more, by itself."""
    if viewer.visible is not Visible.ALL and each.vo not in viewer.vos:
        return False
    if viewer.sites and each.site not in viewer.sites:
        return False
    if viewer.visible is Visible.GROUP and each.group != viewer.group:
        return False
    return viewer.visible is not Visible.OWN or each.user == viewer.person


def told(viewer: Viewer, person: str) -> str:
    """How a person is called before a viewer."""
    if viewer.names or person == viewer.person:
        return person
    return pseudonym(KEY, "user", person)


def seen(store: Store, viewer: Viewer) -> SeenStore:
    """The store behind a viewer's eyes."""
    return SeenStore(store, KINDS, viewer, PEOPLE)


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with everybody's jobs."""
    for store in opened(request.param, tmp_path_factory.mktemp("seen"), request):
        store.write(without_names(batch_of(JOB, ROWS)))
        yield store


@pytest.mark.parametrize("name", VIEWERS)
def test_records_are_those_that_the_viewer_may_see(store: Store, name: str) -> None:
    """Neither more nor fewer, by window and by id; with people called as the viewer may know them."""
    viewer = VIEWERS[name]
    wanted = sorted((each.local_job_id, told(viewer, each.user)) for each in JOBS if is_seen(viewer, each))
    eyes = seen(store, viewer)
    found = eyes.records("job", start=START, end=END, limit=1000)
    assert sorted((each.fields["local_job_id"], each.fields["user"]) for each in found) == wanted
    ids = batch_of(JOB, ROWS).ids
    by_id = eyes.records("job", ids=ids, limit=1000)
    assert sorted((each.fields["local_job_id"], each.fields["user"]) for each in by_id) == wanted


@pytest.mark.parametrize("name", VIEWERS)
@pytest.mark.parametrize("field", ["vo", "user", "site", "group", "state", "local_job_id"])
def test_values_are_those_of_records_that_the_viewer_may_see(store: Store, name: str, field: str) -> None:
    """Also values tell who works where."""
    viewer = VIEWERS[name]
    own = {getattr(each, field) for each in JOBS if is_seen(viewer, each)}
    wanted = {told(viewer, each) for each in own} if field == "user" else own
    assert set(seen(store, viewer).values("job", field, limit=1000)) == wanted


questions = st.builds(
    Query,
    kind=st.just("job"),
    wanted=st.lists(
        st.sampled_from(
            [
                Wanted(Function.COUNT),
                Wanted(Function.SUM, "wall_time"),
                Wanted(Function.MAX, "wall_time"),
                Wanted(Function.MEAN, "cpu_time"),
            ]
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ).map(tuple),
    start=st.just(START),
    end=st.just(END),
    by=st.lists(st.sampled_from(["vo", "user", "site", "state"]), max_size=2, unique=True).map(tuple),
    filters=st.lists(
        st.sampled_from(
            [
                Filter("vo", ("beta",)),
                Filter("vo", ("alpha", "gamma")),
                Filter("vo", ("alpha",), negated=True),
                Filter("vo", ("*",), wildcard=True),
                Filter("site", ("ONE",)),
                Filter("wall_time", minimum=80),
                Filter("user", (pseudonym(KEY, "user", "boris"),)),
            ]
        ),
        max_size=2,
    ).map(tuple),
    width=st.sampled_from([0, 3600]),
    top=st.sampled_from([0, 1, 2]),
)


def counted(viewer: Viewer, query: Query) -> int:
    """How many jobs a question is about, counted by itself."""

    def holds(each: Job, condition: Filter) -> bool:
        if condition.minimum is not None:
            return bool(getattr(each, condition.field) >= condition.minimum)
        value = getattr(each, condition.field)
        # A pseudonym can be asked for by those, too, who are told the name.
        meant = {told(viewer, value), pseudonym(KEY, "user", value)} if condition.field == "user" else {value}
        return condition.wildcard or (not meant.isdisjoint(condition.values)) is not condition.negated

    return sum(is_seen(viewer, each) and all(holds(each, condition) for condition in query.filters) for each in JOBS)


@searched(15)
@given(query=questions, name=st.sampled_from(sorted(VIEWERS)))
def test_an_answer_is_of_what_the_viewer_may_see(store: Store, query: Query, name: str) -> None:
    """No filter, group, or ranking reaches beyond; the rows add up to what is counted by hand."""
    viewer = VIEWERS[name]
    counting = msgspec.structs.replace(query, wanted=(Wanted(Function.COUNT), *query.wanted[:2]), top=query.top)
    answer = seen(store, viewer).query(counting)
    assert answer.totals[0] == counted(viewer, query)
    assert sum(int(each.values[0] or 0) for each in answer.rows) == counted(viewer, query)
    visible = [each for each in JOBS if is_seen(viewer, each)]
    for each in answer.rows:
        for field, value in zip(query.by, each.group, strict=False):
            known = {getattr(one, field) for one in visible}
            assert value in ({told(viewer, one) for one in known} if field == "user" else known)


def test_the_conditions_stand_in_the_answer(store: Store) -> None:
    """Whoever reads it later knows of what it is."""
    viewer = VIEWERS["alpha"]
    answer = seen(store, viewer).query(Query(kind="job", wanted=(Wanted(Function.COUNT),), start=START, end=END))
    assert answer.query.filters == (Filter("vo", ("alpha",)),)


@pytest.mark.parametrize(
    "condition",
    [
        Filter("user", ("boris",)),
        Filter("user", ("b*",), wildcard=True),
        Filter("user", ("boris",), negated=True),
    ],
    ids=str,
)
def test_names_cannot_be_asked_for(store: Store, condition: Filter) -> None:
    """Neither one, nor by trying letters; by every way to ask."""
    eyes = seen(store, VIEWERS["alpha without names"])
    query = Query(kind="job", wanted=(Wanted(Function.COUNT),), start=START, end=END, filters=(condition,))
    asking: Sequence[Any] = (
        lambda: eyes.query(query),
        lambda: eyes.values("job", "site", (condition,)),
        lambda: eyes.records("job", start=START, end=END, filters=(condition,)),
    )
    for ask in asking:
        with pytest.raises(QueryError, match="names of user are not shown"):
            ask()


def test_a_pseudonym_is_the_same_in_every_answer_and_can_be_asked_for(store: Store) -> None:
    """Rows are in its order, not in that of the names behind."""
    eyes = seen(store, VIEWERS["alpha without names"])
    query = Query(kind="job", wanted=(Wanted(Function.COUNT),), start=START, end=END, by=("user",))
    people = [each.group[0] for each in eyes.query(query).rows]
    assert people == sorted(told(VIEWERS["alpha without names"], each) for each in NAMES)
    assert all(is_pseudonym(str(each)) for each in people)
    one = Filter("user", (str(people[0]),))
    assert eyes.query(msgspec.structs.replace(query, filters=(one,))).totals == (6,)
    assert len(eyes.records("job", start=START, end=END, filters=(one,))) == 6


def test_a_kind_without_owners_has_no_own_records(store: Store, tmp_path: Path) -> None:
    """It is refused, and not answered as if there were nothing."""
    del tmp_path
    with pytest.raises(QueryError, match="do not say whose they are"):
        seen(store, VIEWERS["own"]).records("test-event", start=START, end=END)
