"""The judges alone, on evidence made for them: each finds what its promise forbids, and nothing where all is well."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest

from dispatcher.ids import format_id, uuid7
from tests.crash import judge
from tests.crash.history import History
from tests.crash.judge import Evidence, LoggedAttempt, LoggedDelivery
from tests.crash.load import Target
from tests.support.ledger import Post

WORKER = UUID(int=7)
PID = 4711
PATH = "/fail-1/x"


@dataclass
class Case:
    """One event, delivered at the second attempt: what the judges see of it."""

    history: History = field(default_factory=lambda: History(workers={WORKER: PID}))
    targets: list[Target] = field(default_factory=lambda: [Target(PATH, ("t",))])
    endpoint_ids: dict[str, UUID] = field(default_factory=dict)
    committed: set[UUID] = field(default_factory=set)
    deliveries: list[LoggedDelivery] = field(default_factory=list)
    attempts: list[LoggedAttempt] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)

    def deliver(self, at_s: float = 0.0, path: str = PATH) -> LoggedDelivery:
        event_id = uuid7()
        self.committed.add(event_id)
        name = format_id("evt", event_id)
        id_ = UUID(int=len(self.deliveries) + 1)  # in order
        delivery = LoggedDelivery(id_, (name, path), "delivered", None, 2, 0, None, False)
        self.deliveries.append(delivery)
        failed = LoggedAttempt(delivery, WORKER, "http_retryable", True, False, "retry in 0.5 s", True)
        self.attempts += [failed, replace(failed, outcome="ok", decision="delivered")]
        self.posts += [Post(name, path, at_s, "", 500, True), Post(name, path, at_s + 0.6, "", 200, True)]
        return delivery

    def evidence(self) -> Evidence:
        posts: dict[tuple[str, str], list[Post]] = {one.pair: [] for one in self.deliveries}
        for post in self.posts:
            posts.setdefault((post.webhook_id, post.path), []).append(post)
        # The pure judges ask a system for its history and targets, and a load for what was committed.
        return Evidence(self, self, {one.id: one for one in self.deliveries}, self.attempts, posts)  # type: ignore[arg-type]


PURE = (
    "lost",
    "duplicate",
    "unprovoked",
    "unlogged",
    "phantom",
    "forged",
    "early",
    "order",
    "held",
    "replayed",
    "charged",
)


def findings(case: Case) -> set[str]:
    seen = case.evidence()
    return {name for name in PURE if any(True for _ in judge.JUDGES[name](seen))}


@pytest.fixture
def case() -> Case:
    made = Case()
    made.deliver()
    return made


def test_nothing_is_found_where_all_is_well(case: Case) -> None:
    assert findings(case) == set()


def test_an_event_without_a_delivery_is_lost(case: Case) -> None:
    case.committed.add(uuid7())
    assert findings(case) == {"lost"}


@pytest.mark.parametrize("state", ["waiting", "in_flight", "exhausted", "cancelled", "expired"])
def test_a_delivery_that_ended_otherwise_is_lost(case: Case, state: str) -> None:
    case.deliveries[0] = replace(case.deliveries[0], state=state)
    assert "lost" in findings(case)


def test_a_cancelled_delivery_of_a_deleted_endpoint_is_not_lost(case: Case) -> None:
    case.deliveries[0] = replace(case.deliveries[0], state="cancelled")
    case.history.deleted.add(PATH)
    assert "lost" not in findings(case)


def test_a_request_that_is_missing_in_the_ledger_is_a_phantom_and_lost(case: Case) -> None:
    case.posts.pop()
    assert findings(case) == {"lost", "phantom"}


def test_a_second_acceptance_must_match_an_attempt_of_unknown_outcome(case: Case) -> None:
    case.posts.append(replace(case.posts[-1], received_at_s=9.0))
    assert findings(case) == {"duplicate", "unlogged"}
    lost = replace(case.attempts[0], outcome="worker_lost", is_known=False, is_charged=False)
    case.attempts.insert(0, lost)
    case.deliveries[0] = replace(case.deliveries[0], refunds=1)
    assert findings(case) == {"unprovoked"}
    case.history.taken.add(PID)
    assert findings(case) == set()
    case.posts.append(replace(case.posts[-1], received_at_s=10.0))
    assert findings(case) == {"duplicate", "unlogged"}, "one attempt explains one duplicate"


def test_a_signature_that_does_not_verify_is_forged(case: Case) -> None:
    case.posts[0] = replace(case.posts[0], verified=False)
    assert findings(case) == {"forged"}


def test_a_request_before_its_wait_is_over_is_early(case: Case) -> None:
    case.posts[1] = replace(case.posts[1], received_at_s=0.4)
    assert findings(case) == {"early"}


def test_a_later_delivery_before_the_earlier_one_was_accepted_is_out_of_order(case: Case) -> None:
    case.targets = [Target(PATH, ("t",), {"ordered": True})]
    case.deliver(at_s=1.0)
    assert findings(case) == set()
    case.deliver(at_s=1.5)
    assert findings(case) == {"order"}


def test_a_request_during_a_hold_is_found(case: Case) -> None:
    case.history.hold(PATH, "paused", -1.0)
    assert findings(case) == {"held"}


def test_a_delivery_that_was_replayed_twice_is_found(case: Case) -> None:
    replayed = replace(case.deliver(at_s=5.0), replay_of=case.deliveries[0].id, is_replay=True)
    case.deliveries[1] = replayed
    assert "replayed" not in findings(case)
    case.deliveries.append(replace(replayed, id=uuid7()))
    assert "replayed" in findings(case)


def test_attempts_charged_must_fit_the_log(case: Case) -> None:
    case.deliveries[0] = replace(case.deliveries[0], attempts=1)
    assert findings(case) == {"charged"}


def test_a_lost_worker_is_not_charged(case: Case) -> None:
    case.history.taken.add(PID)
    case.attempts[0] = replace(case.attempts[0], outcome="worker_lost", is_known=False)
    assert findings(case) == {"charged"}
