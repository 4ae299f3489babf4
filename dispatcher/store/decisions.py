"""How the decision about an attempt is stored, and how it is read in whichever form it was stored.

Since schema number 0009 it is data: `charged`, and for a retry `wait_s` and `from_first_attempt`; `decision` holds the
final state, or for a retry a sentence. Before, there was only `decision`. The version with number 0008 reads the
sentence, and works beside this one during an upgrade, so `sentence` goes on being stored for this one number: the next
one stores "retry" in its place, which `DECIDED` reads already, and removes `sentence`. `DECIDED` must read sentences
for as long as retention keeps rows that have nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dispatcher.model.delivery import RetryAt

_UNCHARGED: Final = "starts_with(a.decision, 'not charged')"

# `delivered` overrules the other columns: the version with number 0008 stores only that when a success comes in late,
# for an attempt that was logged as lost, and leaves the columns that it does not know.
DECIDED: Final = f"""
CROSS JOIN LATERAL (
    SELECT CASE WHEN a.decision = 'delivered' THEN a.decision
                WHEN a.wait_s IS NOT NULL OR starts_with(a.decision, 'retry ') OR {_UNCHARGED} THEN 'retry'
                ELSE a.decision END AS kind,
           a.decision = 'delivered' OR coalesce(a.charged, NOT {_UNCHARGED}) AS charged,
           CASE WHEN a.decision <> 'delivered'
                THEN coalesce(a.wait_s, CAST(substring(a.decision FROM ' ([0-9][-+.e0-9]*) s') AS real))
                END AS wait_s,
           a.decision <> 'delivered'
           AND coalesce(a.from_first_attempt, a.decision LIKE '% from the first attempt') AS from_first_attempt
) decided
"""
"""SQL that gives the attempt `a` its decision as data. `kind` is "retry" or a final state; a retry has `wait_s`."""


def sentence(change: RetryAt) -> str:
    """What the version before reads of a retry. Of an end it reads the state."""
    if not change.charged:
        return f"not charged, again in {change.wait_s:g} s"
    if change.from_first_attempt:
        return f"retry at {change.wait_s:g} s from the first attempt"
    return f"retry in {change.wait_s:g} s"
