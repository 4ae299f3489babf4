"""Random schedules and outcomes."""

from __future__ import annotations

from datetime import timedelta
from itertools import accumulate

from hypothesis import strategies as st

from dispatcher.model.outcome import Outcome, OutcomeClass
from dispatcher.retry import RetrySchedule

_wait_ms = st.integers(min_value=0, max_value=3 * 86_400_000)
_jitter = st.floats(min_value=0, max_value=1)


@st.composite
def schedules(draw: st.DrawFn) -> RetrySchedule:
    """Schedules of both kinds, of up to a hundred attempts."""
    waits_ms = draw(st.lists(_wait_ms, min_size=1, max_size=100))
    from_first = draw(st.booleans())
    if from_first:
        waits_ms = [0, *accumulate(wait_ms % 3_600_000 + 1 for wait_ms in waits_ms[1:])]
    return RetrySchedule(
        name="drawn",
        waits=tuple(timedelta(milliseconds=ms) for ms in waits_ms),
        relative_to="first_attempt" if from_first else "previous_failure",
        jitter=draw(_jitter),
    )


def outcomes(kinds: st.SearchStrategy[OutcomeClass] | None = None) -> st.SearchStrategy[Outcome]:
    """Outcomes of the given classes, or of any, with any status and Retry-After."""
    return st.builds(
        Outcome,
        kind=kinds or st.sampled_from(OutcomeClass),
        status_code=st.none() | st.integers(min_value=100, max_value=699),
        retry_after_s=st.none() | st.floats(),
        known=st.booleans(),
    )
