"""Takes the steps of an exchange: by a thread that waits, or on an event loop. All that differs is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import httpx

from dispatcher.client.answer import Intake
from dispatcher.client.call import after
from dispatcher.client.exchange import Wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dispatcher.client.call import Call, Described
    from dispatcher.client.exchange import Exchange, Outcome
    from dispatcher.shapes import Page

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Executor:
    """Waits for each step. `answer_s` is how long an answer may take to come in, once it has begun."""

    http: httpx.Client
    exchange: Exchange
    sleep: Callable[[float], object]
    answer_s: float

    def run(self, described: Described[T]) -> T:
        """What the operation answers."""
        steps = self.exchange.conversation(described)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Wait):
                self.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def pages(self, call: Call[Page[T]]) -> Iterator[T]:
        """What stands on all pages; each is asked for when it is come to."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = self.run(following)
            yield from page["data"]
            following = after(following, page)

    def _send(self, request: httpx.Request) -> Outcome:
        try:
            response = self.http.send(request, stream=True)
            try:
                clock = self.exchange.clock
                intake = Intake(response, clock.monotonic() + self.answer_s, clock.monotonic)
                for chunk in response.iter_bytes():
                    intake.add(chunk)
                return intake.whole()
            finally:
                response.close()
        except httpx.TransportError as error:
            return error


@dataclass(frozen=True, slots=True)
class AsyncExecutor:
    """Awaits each step."""

    http: httpx.AsyncClient
    exchange: Exchange
    sleep: Callable[[float], Awaitable[object]]
    answer_s: float

    async def run(self, described: Described[T]) -> T:
        """What the operation answers."""
        steps = self.exchange.conversation(described)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Wait):
                await self.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def pages(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """What stands on all pages; each is asked for when it is come to."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = await self.run(following)
            for one in page["data"]:
                yield one
            following = after(following, page)

    async def _send(self, request: httpx.Request) -> Outcome:
        try:
            response = await self.http.send(request, stream=True)
            try:
                clock = self.exchange.clock
                intake = Intake(response, clock.monotonic() + self.answer_s, clock.monotonic)
                async for chunk in response.aiter_bytes():
                    intake.add(chunk)
                return intake.whole()
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            return error
