"""A token bucket: how often something may be done, with room for what comes at once."""

from __future__ import annotations

from typing import NamedTuple


class Bucket(NamedTuple):
    """How many tokens were there, at a second of the monotonic clock."""

    tokens: float
    at_s: float


def take(bucket: Bucket | None, now_s: float, *, rate: float, most: float) -> tuple[Bucket, float]:
    """Takes a token: the bucket afterwards, and 0, or how many seconds are missing until there is one.

    `rate` tokens a second come in, up to `most`. None is a bucket that nothing was taken from.

    >>> bucket, wait_s = take(None, 100.0, rate=2.0, most=1.0)
    >>> take(bucket, 100.1, rate=2.0, most=1.0)[1]
    0.4
    """
    tokens = most if bucket is None else min(most, bucket.tokens + (now_s - bucket.at_s) * rate)
    if tokens < 1:
        return Bucket(tokens, now_s), round((1 - tokens) / rate, 9)
    return Bucket(tokens - 1, now_s), 0.0
