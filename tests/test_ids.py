"""Ids that are made one after the other sort in that order."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import RFC_4122

from dispatcher.ids import NOUNS, Prefix, created_at, uuid7, uuid7_in_order


def day(n: int) -> datetime:
    """An instant of the test's own: what was made before is of the process."""
    return datetime(2026, 3, n, 9, tzinfo=UTC)


def test_within_a_millisecond_ids_rise() -> None:
    at = day(1)
    made = [uuid7_in_order(at) for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {"specified in RFC 4122"}
    assert {created_at(one) for one in made} == {at}


def test_a_clock_that_is_set_back_a_little_does_not_break_the_order() -> None:
    instants = [day(5) + timedelta(milliseconds=ms) for ms in (0, 5, 4, 4, 3, 6, -900)]
    made = [uuid7_in_order(at) for at in instants]
    assert made == sorted(made)


def test_a_clock_that_is_set_back_far_starts_anew() -> None:
    uuid7_in_order(day(11))
    assert created_at(uuid7_in_order(day(10))) == day(10)


def test_threads_share_the_order_and_no_id() -> None:
    def make(_: int) -> list[object]:
        return [uuid7_in_order(day(15)) for _ in range(500)]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(8)))
    assert all(one == sorted(one) for one in made)  # type: ignore[type-var]
    assert len({id_ for one in made for id_ in one}) == 4000


FORK = """
import os
from datetime import datetime, timezone
from dispatcher.ids import uuid7, uuid7_in_order
at = datetime(2026, 3, 2, tzinfo=timezone.utc)
uuid7_in_order(at)
if os.fork() == 0:
    os.write(1, uuid7_in_order(at).bytes + uuid7(at).bytes)
    os._exit(0)
os.wait()
os.write(1, uuid7_in_order(at).bytes + uuid7(at).bytes)
"""


def test_a_forked_child_makes_others() -> None:
    made = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True).stdout
    theirs, their_second, mine, my_second = (made[start : start + 16] for start in range(0, 64, 16))
    assert theirs[:6] == mine[:6] == their_second[:6] == my_second[:6]
    assert theirs[6:12] != mine[6:12]  # where the child counts, not only its random end
    assert their_second[6:] != my_second[6:]  # though the parent had random bytes in stock


def test_random_bits_are_given_once() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = [uuid7(at) for _ in range(2_000)]  # more than one stock holds
    assert len(set(made)) == len({id_.int & (1 << 62) - 1 for id_ in made}) == 2_000
    assert {(id_.version, id_.variant) for id_ in made} == {(7, RFC_4122)}


def test_every_prefix_has_a_noun() -> None:
    assert list(NOUNS) == list(get_args(Prefix))
