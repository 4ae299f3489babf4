"""The demo's verdict: what the merchants' own ledger says, against what the delivery log says.

A pair is an event and a merchant. It should be delivered if the event was accepted (202, or listed by `events send`)
and the merchant's event types name its type. A replay of what ran out is no duplicate: nothing had been answered 200.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

MEANING = {
    "accepted": "events that the system said it had taken",
    "delivered": "pairs of event and merchant with a POST answered 200",
    "exhausted": "deliveries in the log whose schedule ran out",
    "retried": "deliveries in the log that took more than one attempt",
    "replayed": "deliveries in the log that are replays of others",
    "lost": "pairs that should have such a POST and have none",
    "duplicates": "POSTs answered 200 beyond the first of their pair",
    "posts": "POSTs in the ledger, whatever was answered",
    "signatures_verified": "of these, those that standardwebhooks verified",
    "disagreements": "contradictions between ledger and log",
    "seconds": "from the first server's start to the verdict",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The numbers of `MEANING`; `findings` has a sentence for whatever is not as it should be."""

    accepted: int
    delivered: int
    exhausted: int
    retried: int
    replayed: int
    lost: int
    duplicates: int
    posts: int
    signatures_verified: int
    disagreements: int
    seconds: float
    findings: tuple[str, ...] = field(default=())

    @property
    def numbers(self) -> dict[str, float]:
        """What the RESULT line holds."""
        return {name: value for name, value in asdict(self).items() if name != "findings"}

    @property
    def exit_code(self) -> int:
        """0 only if everything arrived once, every signature verified, and ledger and log tell the same story."""
        return 0 if self.accepted > 0 and not self.findings else 1


def judge(
    expected: set[tuple[str, str]],
    ledger: list[dict[str, Any]],
    log: list[dict[str, Any]],
    *,
    accepted: int,
    seconds: float,
) -> Verdict:
    """Compares them.

    `expected` are the pairs (merchant, event id) that the merchants' event types ask for. `ledger` has an entry for
    each POST that a merchant received: `merchant`, `event_id`, the `status` answered (0 for none) and whether its
    signature was `verified`. `log` has one for each delivery: `merchant`, `event_id`, `status`, `attempts`,
    `replay_of` (None for an original) and `sent`, how many of its attempts reached the wire.
    """
    received: Counter[tuple[str, str]] = Counter()
    successes: Counter[tuple[str, str]] = Counter()
    for post in ledger:
        pair = post["merchant"], post["event_id"]
        received[pair] += 1
        successes[pair] += post["status"] == 200
    successes = +successes
    sent: Counter[tuple[str, str]] = Counter()
    stories: dict[tuple[str, str], list[str]] = {}
    for one in log:
        pair = one["merchant"], one["event_id"]
        sent[pair] += one["sent"]
        stories.setdefault(pair, []).append(one["status"])

    lost = sorted(expected - set(successes))
    disagreements = []
    for pair in sorted(expected | set(received) | set(stories)):
        merchant, event_id = pair
        story = stories.get(pair, [])
        if pair not in expected:
            disagreements.append(f"{merchant} did not ask for {event_id}")
        if ("delivered" in story) != (successes[pair] > 0):
            said = ", ".join(story) or "nothing"
            disagreements.append(f"{merchant} accepted {event_id} {successes[pair]} times, the log says {said}")
        if open_ := {"waiting", "in_flight"} & set(story):
            disagreements.append(f"the delivery of {event_id} to {merchant} has not ended: {', '.join(open_)}")
        if received[pair] != sent[pair]:
            disagreements.append(f"{merchant} received {event_id} {received[pair]} times, the log says {sent[pair]}")
    findings = [f"{merchant} never accepted {event_id}" for merchant, event_id in lost]
    findings += [f"{merchant} accepted {event_id} {n} times" for (merchant, event_id), n in successes.items() if n > 1]
    findings += [
        f"the signature of {post['event_id']} did not verify at {post['merchant']}"
        for post in ledger
        if not post["verified"]
    ]
    return Verdict(
        accepted=accepted,
        delivered=len(successes),
        exhausted=sum(one["status"] == "exhausted" for one in log),
        retried=sum(one["attempts"] > 1 for one in log),
        replayed=sum(one["replay_of"] is not None for one in log),
        lost=len(lost),
        duplicates=successes.total() - len(successes),
        posts=len(ledger),
        signatures_verified=sum(post["verified"] for post in ledger),
        disagreements=len(disagreements),
        seconds=round(seconds, 1),
        findings=(*findings, *disagreements),
    )
