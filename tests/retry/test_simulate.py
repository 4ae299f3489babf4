"""What schedules make of outages, against the waits written out by hand."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import DecisionRules, RetrySchedule, load_schedule, shipped_schedules_dir, simulate

STANDARD = load_schedule(shipped_schedules_dir() / "standard.toml").schedule
HOURS = st.integers(0, 48).map(lambda n: timedelta(hours=n))


UNAVAILABLE = Outcome(OutcomeClass.HTTP_RETRYABLE, status_code=503)
THROTTLED = Outcome(OutcomeClass.THROTTLED, status_code=429, retry_after_s=8)
GONE = Outcome(OutcomeClass.GONE, status_code=410)


def seconds(*values: float) -> list[timedelta]:
    return [timedelta(seconds=value) for value in values]


def test_a_receiver_that_never_fails_is_delivered_to_at_once() -> None:
    done = simulate(STANDARD, [])
    assert (done.ended, done.delay, len(done.attempts)) == ("delivered", timedelta(0), 1)


def test_an_outage_of_three_hours_is_over_by_the_sixth_attempt() -> None:
    done = simulate(STANDARD, [(timedelta(0), timedelta(hours=3))])
    assert [one.offset for one in done.attempts] == seconds(0, 5, 305, 2105, 9305, 27305)
    assert [one.ok for one in done.attempts] == [False] * 5 + [True]
    assert done.ended == "delivered"


def test_what_failing_takes_puts_every_later_attempt_off() -> None:
    done = simulate(STANDARD, [(timedelta(0), timedelta(minutes=1))], takes=timedelta(seconds=15))
    assert [one.offset for one in done.attempts] == seconds(0, 20, 335)


def test_offsets_from_the_first_attempt_are_not_put_off() -> None:
    schedule = RetrySchedule("offsets", tuple(seconds(0, 60, 3600)), relative_to="first_attempt")
    done = simulate(schedule, [(timedelta(0), timedelta(seconds=61))], takes=timedelta(seconds=15))
    assert [one.offset for one in done.attempts] == seconds(0, 60, 3600)


def test_the_first_wait_counts_from_the_event() -> None:
    done = simulate(RetrySchedule("late", tuple(seconds(10, 5))), [(timedelta(0), timedelta(seconds=11))])
    assert [one.offset for one in done.attempts] == seconds(10, 15)


def test_answers_come_first_and_outages_after_them() -> None:
    down = [(timedelta(0), timedelta(minutes=6))]
    done = simulate(STANDARD, down, answers=[UNAVAILABLE])
    assert [one.offset for one in done.attempts] == seconds(0, 5, 305, 2105)
    assert simulate(STANDARD, down, answers=[Outcome(OutcomeClass.OK, status_code=200)]).delay == timedelta(0)


def test_a_profiles_rules_end_a_delivery_or_put_it_off() -> None:
    assert simulate(STANDARD, [], answers=[GONE]).ended == "delivered"
    gone = simulate(STANDARD, [], answers=[UNAVAILABLE, GONE], rules=DecisionRules(disable_on=frozenset({410})))
    assert (gone.ended, gone.reason, len(gone.attempts)) == ("rejected", "gone 410", 2)
    later = simulate(STANDARD, [], answers=[THROTTLED], rules=DecisionRules(retry_after="extend"))
    assert [one.offset for one in later.attempts] == seconds(0, 8)


def test_what_ends_it_is_told_as_the_log_has_it() -> None:
    two = RetrySchedule("two", tuple(seconds(0, 5)))
    assert simulate(two, [], answers=[UNAVAILABLE] * 3).reason == "http_retryable 503"
    assert simulate(two, [(timedelta(0), timedelta(hours=1))]).reason == "connect"
    assert simulate(two, []).reason == "ok"


@given(begin=HOURS, lasts=HOURS)
def test_a_delivery_ends_exhausted_exactly_if_every_attempt_fell_into_the_outage(
    begin: timedelta, lasts: timedelta
) -> None:
    done = simulate(STANDARD, [(begin, begin + lasts)])
    assert len(done.attempts) <= STANDARD.attempts
    assert done.attempts[-1].ok == (done.ended == "delivered")
    assert not any(one.ok for one in done.attempts[:-1])
    if done.ended == "exhausted":
        assert len(done.attempts) == STANDARD.attempts
