"""From a call to its answer, retries in between, as steps that somebody else takes: this sends nothing and sleeps not.

A step is a request to send, answered by an `Answer` or by the httpx error that came instead, or a `Wait`. So the two
clients differ in how they take a step, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import httpx

from dispatcher.client.answer import Answer, error_of
from dispatcher.client.errors import Unreachable
from dispatcher.model.retry_after import parse_retry_after

if TYPE_CHECKING:
    from dispatcher.client.call import Call, Described
    from dispatcher.clock import Clock

T = TypeVar("T")

BUSY: Final = frozenset({429, 503})
"""Statuses that say: not done, come back."""

NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""The request did not get as far as the server."""

NO_ANSWER: Final = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
"""The server may have done what was asked for."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done for this long."""

    seconds: float


Step: TypeAlias = httpx.Request | Wait
Outcome: TypeAlias = Answer | httpx.TransportError
Conversation: TypeAlias = Generator[Step, Outcome | None, T]


@dataclass(frozen=True, slots=True)
class Exchange:
    """How calls are made. `build` makes a call's request; waits are in seconds.

    Without a Retry-After, a wait is drawn from 0 to twice the longest one before, from `first_wait_s` up, so that
    many clients do not come back at once. No wait is longer than `max_wait_s`, whatever the server asks for.
    """

    build: Callable[[Call[Any]], httpx.Request]
    clock: Clock
    max_retries: int
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0

    def conversation(self, described: Described[T]) -> Conversation[T]:
        """The steps of an operation, of one call or of several."""
        steps = iter(described)
        answer = None
        while True:
            try:
                call = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = yield from self._call(call)

    def _call(self, call: Call[T]) -> Conversation[T]:
        """The same request, under the same Idempotency-Key, until it is answered. Raises ApiError or Unreachable."""
        request = self.build(call)
        may_be_done = False
        for tried in count():
            outcome = yield request
            if isinstance(outcome, httpx.TransportError):
                may_be_done |= isinstance(outcome, NO_ANSWER) and not isinstance(outcome, NOT_SENT)
                if tried >= self.max_retries or not _may_repeat(call, outcome):
                    raise _unreachable(request, outcome) from outcome
                yield Wait(self._backoff(tried))
                continue
            assert outcome is not None
            if outcome.is_success:
                return call.read(outcome)
            if call.method == "DELETE" and outcome.status == httpx.codes.NOT_FOUND and may_be_done:
                return call.read(outcome)  # the try before, whose answer was lost, deleted it
            if outcome.status not in BUSY or tried >= self.max_retries:
                raise error_of(outcome)
            asked = parse_retry_after(outcome.headers.get("retry-after", ""), self.clock.now())
            yield Wait(self._backoff(tried) if asked is None else min(asked, self.max_wait_s))
        raise AssertionError  # count() does not end

    def _backoff(self, tried: int) -> float:
        longest = min(self.max_wait_s, self.first_wait_s * 2 ** min(tried, 32))
        return self.clock.uniform(0.0, longest)


def _may_repeat(call: Call[Any], error: httpx.TransportError) -> bool:
    """Whether sending it again can do no harm. A POST is known by its key; a PATCH might undo a change after it."""
    return isinstance(error, NOT_SENT) or (isinstance(error, NO_ANSWER) and call.method != "PATCH")


def _unreachable(request: httpx.Request, error: httpx.TransportError) -> Unreachable:
    server = request.url.copy_with(raw_path=b"/")
    said = " ".join(str(error).split()) or type(error).__name__
    return Unreachable(f"{request.method} {request.url.path}: no answer from {server}: {said}")
