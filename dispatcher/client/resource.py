"""Operations, written once as functions that describe a call, and had by both clients as methods that make it.

    class Events(Resource[X]):
        @operation
        def get(self, event_id: str) -> Call[Event]:
            return Call("GET", path("events", event_id))

`Client().events.get(…)` is an Event, `AsyncClient().events.get(…)` is to be awaited for one; mypy and editors know
which, and the parameters, from this one function.
"""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Self

    from dispatcher.client.call import Call, Described
    from dispatcher.client.executor import AsyncExecutor, Executor
    from dispatcher.shapes import Page

P = ParamSpec("P")
T = TypeVar("T")
X = TypeVar("X", bound="Executor | AsyncExecutor")


class Resource(Generic[X]):
    """Operations that belong together, and what carries them out."""

    def __init__(self, executor: X) -> None:
        self._executor: X = executor


class operation(Generic[P, T]):  # noqa: N801 - a decorator
    """A method that makes the call, or the calls, that the function describes."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Described[T]]) -> None:
        self.describe = describe
        update_wrapper(self, describe)  # type: ignore[arg-type]

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: Resource[Executor], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[AsyncExecutor], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        if resource is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource._executor.run(self.describe(resource, *args, **kwargs))  # noqa: SLF001 - of this module

        return update_wrapper(call, self.describe)


class paging(Generic[P, T]):  # noqa: N801 - stands where a method would
    """A method that iterates over all pages of an operation that answers one, asking for each when it is come to."""

    def __init__(self, of: operation[P, Page[T]]) -> None:
        self._describe: Callable[..., Any] = of.describe
        self.__doc__ = f"{of.__doc__} All of them: each page is asked for when it is come to."

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: Resource[Executor], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: Resource[AsyncExecutor], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        if resource is None:
            return self

        def iterate(*args: P.args, **kwargs: P.kwargs) -> Any:
            call: Call[Page[T]] = self._describe(resource, *args, **kwargs)
            return resource._executor.pages(call)  # noqa: SLF001 - of this module

        return iterate
