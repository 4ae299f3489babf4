"""How many requests this process has answered, and how fast."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Scope

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OTHER: Final = "other"
"""What was no route of ours, or not by one of its methods: a client's own words would be metrics without end."""


class Traffic:
    """Counts answers: `answers` by method, route and status; `buckets` and `seconds` of how long they took, by route.

    A bucket counts what took no longer than its bound in BUCKETS_S and longer than the one before; the last has none.
    """

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, scope: Scope, status: int, took_s: float) -> None:
        """Counts one answer. It stands on the path of every request: a few look-ups, and nothing that waits."""
        route = scope.get("route")
        if route is not None and scope["method"] in route.methods:
            method, path = scope["method"], route.path
        else:
            method = path = OTHER
        self.answers[method, path, status] += 1
        buckets = self.buckets.get(path)
        if buckets is None:
            buckets = self.buckets[path] = [0] * (len(BUCKETS_S) + 1)
        buckets[bisect_left(BUCKETS_S, took_s)] += 1
        self.seconds[path] += took_s
