"""What is usual of a producer, learned from four weeks: no false alarms, and no gap that is missed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from accounting.completeness.cadence import HOUR, WEEK, Arrival, Cadence, Expectation

DAY: Final = 24 * HOUR
START: Final = 2900 * WEEK
"""A Thursday, as 1970 began with one."""
NOW: Final = START + 8 * WEEK


def arrivals(
    records: Callable[[int], int], until: int = NOW, lateness: Callable[[int], int] = lambda _: 0
) -> list[Arrival]:
    """What has come by an instant, of a producer that has so many records in each hour, so long after its end."""
    found = []
    for hour in range(START, until, HOUR):
        received = hour + HOUR + lateness(hour)
        if records(hour) and received <= until:
            found.append(Arrival(hour, records(hour), received, received))
    return found


def gaps(cadence: Cadence, now: int = NOW, weeks: int = 2) -> dict[int, int]:
    """Records missing on each day that is judged of the last weeks."""
    due = cadence.due(now)
    days = range(now // DAY * DAY - weeks * WEEK, due, DAY)
    return {day: missing for day in days if (missing := cadence.missing(day, min(day + DAY, due), now))}


@given(
    period=st.integers(1, 7 * 24),
    size=st.integers(1, 10**6),
    lateness=st.integers(0, 3 * DAY),
    now=st.integers(START + HOUR, NOW),
)
def test_an_exactly_regular_producer_never_alarms(period: int, size: int, lateness: int, now: int) -> None:
    """So many records every so many hours, always as late: nothing is missing, at whatever instant it is asked."""
    cadence = Cadence(
        arrivals(lambda hour: size if hour // HOUR % period == 0 else 0, now, lambda _: lateness),
    )
    assert gaps(cadence, now) == {}
    assert cadence.silence(now) is None


@given(
    week=st.lists(st.integers(0, 1000), min_size=168, max_size=168)
    | st.lists(st.just(0) | st.just(9), min_size=168, max_size=168),
    lateness=st.integers(0, 3 * DAY),
    now=st.integers(START + HOUR, NOW),
)
def test_a_week_that_repeats_itself_never_alarms(week: list[int], lateness: int, now: int) -> None:
    """Whatever its nights and weekends are like."""
    cadence = Cadence(arrivals(lambda hour: week[hour // HOUR % 168], now, lambda _: lateness))
    assert gaps(cadence, now) == {}
    assert cadence.silence(now) is None


@example(period=1, size=1, lateness=DAY, missed=2)
@given(
    period=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]),
    size=st.integers(1, 1000),
    lateness=st.integers(0, DAY),
    missed=st.integers(2, 10),
)
def test_a_day_without_records_is_found(period: int, size: int, lateness: int, missed: int) -> None:
    """That day, with all its records that are due by now, and no other."""
    day = NOW // DAY * DAY - missed * DAY

    def records(hour: int) -> int:
        return size if hour // HOUR % period == 0 and not day <= hour < day + DAY else 0

    cadence = Cadence(arrivals(records, NOW, lambda _: lateness))
    judged = range(day, min(day + DAY, cadence.due(NOW)), HOUR)
    assert len(judged) >= 24 - 1
    assert gaps(cadence) == {day: size * sum(hour // HOUR % period == 0 for hour in judged)}


def test_weekends_are_learned() -> None:
    """A producer that rests on two days of the week is not missed on them, and is on a third."""
    rest = {2, 3}

    def weekday(hour: int) -> int:
        return hour // DAY % 7

    cadence = Cadence(arrivals(lambda hour: 0 if weekday(hour) in rest else 50))
    assert gaps(cadence) == {}
    for hour in range(NOW - WEEK, NOW, HOUR):
        assert Cadence(arrivals(lambda at: 0 if weekday(at) in rest else 50, hour)).silence(hour) is None
    away = NOW - 7 * DAY
    lacking = Cadence(arrivals(lambda hour: 0 if weekday(hour) in rest or away <= hour < away + DAY else 50))
    assert gaps(lacking) == ({away: 24 * 50} if weekday(away) not in rest else {})


@given(lateness=st.integers(0, 2 * DAY), stopped=st.integers(0, 6 * 24))
def test_silence_is_found(lateness: int, stopped: int) -> None:
    """A producer of every hour that ends is silent some hours after its next records would usually have been there."""
    last = NOW - WEEK + stopped * HOUR
    came = arrivals(lambda hour: 5 if hour <= last else 0, NOW + 4 * WEEK, lambda _: lateness)
    cadence = Cadence(came)
    overdue_from = last + HOUR + lateness + HOUR
    assert cadence.silence(overdue_from) is None
    found = cadence.silence(overdue_from + 7 * HOUR)
    assert found is not None
    assert (found.last, found.usual) == (last, HOUR)
    assert cadence.silence(last + 8 * WEEK) is not None, "it is remembered for two months"
    assert cadence.silence(last + 10 * WEEK) is None, "it is forgotten after nine weeks"


def test_an_outage_does_not_become_usual() -> None:
    """Every day of five weeks without records is missed, and after them what is usual is what was before."""
    stopped, again = NOW - 6 * WEEK, NOW - WEEK
    came = arrivals(lambda hour: 0 if stopped <= hour < again else 5, NOW, lambda _: 60)
    cadence = Cadence(came)
    for day in range(stopped, again, DAY):
        assert cadence.missing(day, day + DAY, NOW) == 5 * 24
    for day in range(again, NOW - DAY, DAY):
        assert cadence.expected(day, day + DAY) == Expectation(120, 6, 5)
        assert cadence.missing(day, day + DAY, NOW) == 0


def test_who_sends_every_few_weeks_is_not_late() -> None:
    """Weeks without anything are usual once they came twice; when it stops, that is found."""
    for weeks in (2, 3, 4):

        def records(hour: int, weeks: int = weeks) -> int:
            return 30 if (hour - START) % (weeks * WEEK) < 3 * HOUR else 0

        now = START + 18 * WEEK
        cadence = Cadence(arrivals(records, now))
        assert gaps(cadence, now) == {}
        assert cadence.silence(now) is None
        silent = Cadence([each for each in arrivals(records, now) if each.hour < now - 5 * WEEK])
        assert silent.silence(now) is not None


def test_a_producer_that_varies_is_given_its_spread() -> None:
    """Noise around two hundred an hour alarms nobody; a day of half of it does."""
    chance = random.Random(1)
    noise = {hour: chance.randrange(150, 250) for hour in range(START, NOW, HOUR)}
    assert gaps(Cadence(arrivals(noise.__getitem__))) == {}
    day = NOW - 5 * DAY
    half = Cadence(arrivals(lambda hour: noise[hour] // 2 if day <= hour < day + DAY else noise[hour]))
    assert list(gaps(half)) == [day]


def test_nothing_is_expected_before_two_weeks_are_known() -> None:
    """Of a new producer nobody knows what is usual."""
    now = START + 2 * WEEK
    cadence = Cadence(arrivals(lambda _: 1, now))
    assert cadence.expected(now - DAY, now) is None
    later = Cadence(arrivals(lambda _: 1, now + DAY))
    assert later.expected(now, now + DAY) == Expectation(24, 1, 1)


def test_what_usually_comes_late_is_not_judged_early() -> None:
    """Records that come a day after their hour are not missing in that day."""
    cadence = Cadence(arrivals(lambda _: 3, NOW, lambda hour: DAY + hour // HOUR % 5 * 60))
    assert NOW - DAY - 4 * HOUR <= cadence.due(NOW) <= NOW - DAY - HOUR
    assert Cadence([]).due(NOW) == NOW
    assert Cadence([]).silence(NOW) is None
