"""The time limit of searches: whoever asks for too much is told what to narrow, and keeps no connection from others."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from psycopg.errors import QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

SEARCH_S: Final = 5.0
"""Seconds for a statement of a search that answers a page."""

COUNT_S: Final = 15.0
"""Seconds for a statement that reads everything that a filter chooses: a preview of a replay, or its start."""

# Searches differ too much for one plan, and a transaction that has made the same one five times would keep one.
NARROW: Final = "a smaller limit, or a tenant besides"
"""What makes most searches read less."""

TOO_BROAD: Final = "SEARCH_TOO_BROAD"

_LIMIT = text("""
WITH before AS MATERIALIZED (SELECT current_setting('statement_timeout') AS statement_timeout)
SELECT statement_timeout, set_config('statement_timeout', :limit, true),
       set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true)
FROM before
""")

_PIN_PLANS = text("""
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true), set_config('jit', 'off', true)
""")

_PLAN_ANEW = text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")

_RESTORE = text("SELECT set_config('statement_timeout', :limit, true)")


@contextmanager
def limited(
    connection: Connection,
    *,
    limit_s: float | None = None,
    pointer: str = "/limit",
    narrow: str = NARROW,
) -> Iterator[None]:
    """Limits each statement inside of it to `limit_s`, by default to `SEARCH_S`, and has it planned for its values.

    Raises InvalidInput with the code SEARCH_TOO_BROAD for one that takes longer; `pointer` and `narrow` say what the
    caller can do about it, in the words of the outermost limit. The transaction is then of no more use.
    """
    limit_s = SEARCH_S if limit_s is None else limit_s
    before: str = connection.execute(_LIMIT, {"limit": f"{max(1, round(limit_s * 1000))}ms"}).scalar_one()
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        raise too_broad(limit_s, pointer, narrow) from error
    except InvalidInput as error:
        if error.code != TOO_BROAD:
            raise
        raise InvalidInput(pointer, error.found, narrow, code=TOO_BROAD) from error
    connection.execute(_RESTORE, {"limit": before})


def too_broad(limit_s: float, pointer: str, narrow: str) -> InvalidInput:
    """How a search is refused that takes too long."""
    return InvalidInput(pointer, f"a search that takes longer than {limit_s:g} s", narrow, code=TOO_BROAD)


def pin_plans(connection: Connection) -> None:
    """Has the rest of this transaction planned as on workers' connections (`wiring.PINNED`): by index, whatever the
    statistics say.
    """
    connection.execute(_PIN_PLANS)


def plan_anew(connection: Connection) -> None:
    """Has each statement of the rest of this transaction planned for its values and the sizes of the tables."""
    connection.execute(_PLAN_ANEW)
