"""The protocol of claim, POST, record and rescue as an explicit state machine, small enough to be searched whole.

What `dispatcher.store.deliveries` writes in SQL stands here as one function a statement, over tuples. Bells and lanes
are left out: a claim may happen at any time, which covers a bell that is lost, late or doubled. Time is left out too:
whatever may happen next is tried, so a wait is of any length. What can go wrong is bounded by a budget: workers that
crash, heartbeats that lapse although the worker lives (it is overrun), commits whose answer is lost. After a crash
there is a new worker at once; that it is idle for a while is one of the orders that are searched.

`explore` visits every reachable state breadth first and checks, in each:

- the attempts of a delivery have claim numbers of their own, and so have the claims that workers hold;
- a delivery is live or has ended, once;
- `exhausted` means N charged attempts, each a POST or a lost worker beyond those forgiven;
- at most N + 3 POSTs; none starts once the delivery has ended, but by a worker that was overrun;
- `delivered` means that a success was logged;
- an end is reachable for every delivery without any further fault.

`Rules` says which fences there are. Each of its fields can be turned off, and the search then finds a counterexample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["ok", "failed", "lost", "released"]


@dataclass(frozen=True)
class Rules:
    """The protocol's fences; the defaults are what is implemented."""

    claims_only_waiting: bool = True
    claim_raises_seq: bool = True
    charges_at_record: bool = True  # else at the claim
    fenced_by_seq: bool = True
    fenced_by_state: bool = True  # a failure counts only while in flight
    late_success_counts: bool = True
    one_row_a_claim: bool = True
    gives_up_unknown_claims: bool = True
    refunds: int = 3
    bounded_refunds: bool = True


@dataclass(frozen=True)
class Size:
    """What is searched: how many of each, and how often each fault may happen."""

    deliveries: int = 1
    workers: int = 2
    attempts: int = 2  # of the schedule
    crashes: int = 0
    lapses: int = 0
    lost_answers: int = 0


class Delivery(NamedTuple):
    """A row of deliveries or ended_deliveries, and behind it what only the checker knows."""

    state: str = "waiting"
    seq: int = 0
    attempts: int = 0
    refunds: int = 0
    owner: int | None = None  # a worker's place, or DEAD
    rows: tuple[tuple[int, str], ...] = ()  # attempts: (seq, outcome), sorted
    posts: int = 0
    rescues: int = 0
    ends: int = 0


class Task(NamedTuple):
    """A claim in a worker's hands: from "claimed" over "posting" to its result."""

    delivery: int
    seq: int
    attempts: int
    refunds: int
    phase: str = "claimed"
    overrun: bool = False  # the worker's heartbeat has lapsed since


class Worker(NamedTuple):
    fresh: bool = True  # its heartbeat
    tasks: tuple[Task, ...] = ()


class State(NamedTuple):
    deliveries: tuple[Delivery, ...]
    workers: tuple[Worker, ...]
    crashes: int
    lapses: int
    lost_answers: int


class Step(NamedTuple):
    name: str
    fault: bool
    state: State
    broken: str | None = None


LIVE = ("waiting", "in_flight")
DEAD = -1


class Model:
    def __init__(self, rules: Rules, size: Size) -> None:
        self.rules = rules
        self.size = size

    def start(self) -> State:
        size = self.size
        return State(
            (Delivery(),) * size.deliveries, (Worker(),) * size.workers, size.crashes, size.lapses, size.lost_answers
        )

    # --- the statements

    def claim(self, d: Delivery, owner: int) -> Delivery:
        return d._replace(
            state="in_flight",
            owner=owner,
            seq=d.seq + self.rules.claim_raises_seq,
            attempts=d.attempts + (not self.rules.charges_at_record),
        )

    def record(self, d: Delivery, task: Task, kind: Kind) -> Delivery:
        """One result against one delivery: the evidence, then the move if the claim still holds."""
        rules = self.rules
        if kind != "released":
            d = d._replace(rows=self._with_row(d.rows, task.seq, kind))
        if d.state not in LIVE:
            return d
        if d.seq != task.seq and rules.fenced_by_seq:
            return d
        final, charged, refunded = self._decide(task, kind)
        in_flight = d.state == "in_flight" or not rules.fenced_by_state
        if not (in_flight or (final == "delivered" and rules.late_success_counts)):
            return d
        d = d._replace(
            attempts=d.attempts + (charged and rules.charges_at_record), refunds=d.refunds + refunded, owner=None
        )
        return d._replace(state="waiting") if final is None else d._replace(state=final, ends=d.ends + 1)

    def _with_row(self, rows: tuple[tuple[int, str], ...], seq: int, kind: Kind) -> tuple[tuple[int, str], ...]:
        if not self.rules.one_row_a_claim:
            return tuple(sorted((*rows, (seq, kind))))
        kept = dict(rows)
        if kept.get(seq) in (None, "lost"):
            kept[seq] = kind
        return tuple(sorted(kept.items()))

    def _decide(self, task: Task, kind: Kind) -> tuple[str | None, bool, bool]:
        """Final state, charged, refunded: what `retry.decide` answers."""
        number = task.attempts + self.rules.charges_at_record
        match kind:
            case "ok":
                return "delivered", True, False
            case "released":
                return None, False, False
            case "lost" if task.refunds < self.rules.refunds or not self.rules.bounded_refunds:
                return None, False, True
            case _:
                return ("exhausted" if number >= self.size.attempts else None), True, False

    # --- what may happen next

    def steps(self, s: State) -> Iterator[Step]:
        for w, worker in enumerate(s.workers):
            yield from self._claims(s, w, worker)
            for task in worker.tasks:
                yield from self._progress(s, w, worker, task)
            if s.crashes:
                orphans = tuple(d._replace(owner=DEAD) if d.owner == w else d for d in s.deliveries)
                gone = self._put(s, w, Worker())._replace(deliveries=orphans, crashes=s.crashes - 1)
                yield Step("crash", True, gone)
            if not worker.fresh:
                yield Step("heartbeat", False, self._put(s, w, worker._replace(fresh=True)))
            elif s.lapses:
                tasks = tuple(task._replace(overrun=True) for task in worker.tasks)
                late = worker._replace(fresh=False, tasks=tasks)
                yield Step("lapse", True, self._put(s, w, late)._replace(lapses=s.lapses - 1))
        for n, d in enumerate(s.deliveries):
            if d.owner is None:
                continue
            claim = Task(n, d.seq, d.attempts, d.refunds)
            worker = s.workers[d.owner]
            if d.owner == DEAD or not worker.fresh:
                rescued = self.record(d, claim, "lost")._replace(rescues=d.rescues + 1)
                yield Step("rescue", False, self._set(s, n, rescued))
            elif self.rules.gives_up_unknown_claims and not any(
                (t.delivery, t.seq) == (n, d.seq) for t in worker.tasks
            ):
                yield Step("give up", False, self._set(s, n, self.record(d, claim, "released")))

    def _claims(self, s: State, w: int, worker: Worker) -> Iterator[Step]:
        if not worker.fresh:
            return
        for n, d in enumerate(s.deliveries):
            held = any(task.delivery == n for task in worker.tasks)
            if d.state == "waiting" or (d.state == "in_flight" and not self.rules.claims_only_waiting and not held):
                taken = self._set(s, n, self.claim(d, w))
                mine = taken.deliveries[n]
                task = Task(n, mine.seq, mine.attempts, mine.refunds)
                yield Step("claim", False, self._put(taken, w, _with(worker, task)))
                if s.lost_answers:
                    yield Step("claim unknown", True, taken._replace(lost_answers=s.lost_answers - 1))

    def _progress(self, s: State, w: int, worker: Worker, task: Task) -> Iterator[Step]:
        d = s.deliveries[task.delivery]
        match task.phase:
            case "claimed" if worker.fresh:
                broken = None
                if d.state not in LIVE and not task.overrun:
                    broken = "a POST after the end"
                posted = self._set(s, task.delivery, d._replace(posts=d.posts + 1))
                yield Step("post", False, self._put(posted, w, _with(worker, task, "posting")), broken)
            case "claimed":
                yield Step("too late", False, self._put(s, w, _with(worker, task, "released")))
            case "posting":
                for kind in ("ok", "failed"):
                    yield Step(kind, False, self._put(s, w, _with(worker, task, kind)))
            case "ok" | "failed" | "released" as kind:
                recorded = self._set(s, task.delivery, self.record(d, task, kind))
                yield Step("record", False, self._put(recorded, w, _without(worker, task)))
                if s.lost_answers:
                    yield Step("record unknown", True, recorded._replace(lost_answers=s.lost_answers - 1))

    @staticmethod
    def _put(s: State, w: int, worker: Worker) -> State:
        return s._replace(workers=(*s.workers[:w], worker, *s.workers[w + 1 :]))

    @staticmethod
    def _set(s: State, n: int, d: Delivery) -> State:
        return s._replace(deliveries=(*s.deliveries[:n], d, *s.deliveries[n + 1 :]))

    # --- what must hold

    def broken(self, s: State) -> str | None:
        rules, size = self.rules, self.size
        held = [(t.delivery, t.seq) for worker in s.workers for t in worker.tasks]
        if len(held) != len(set(held)):
            return "two claims with one number"
        for d in s.deliveries:
            if len({seq for seq, _ in d.rows}) != len(d.rows):
                return "two attempts for one claim"
            if d.ends != (d.state not in LIVE):
                return "ended other than once"
            if d.state == "exhausted":
                beyond = max(0, d.rescues - rules.refunds)
                if d.attempts != size.attempts or d.posts + beyond < size.attempts:
                    return "exhausted before N attempts"
            if d.posts > size.attempts + rules.refunds:
                return "more than N + 3 POSTs"
            if d.state == "delivered" and not any(kind == "ok" for _, kind in d.rows):
                return "delivered without a success"
        return None


def canonical(s: State) -> State:
    """The same state whichever worker comes first: workers are alike, and the search need not try both orders."""
    if len(s.workers) == 1 or s.workers[0] <= s.workers[1]:
        return s
    swapped = {0: 1, 1: 0, DEAD: DEAD, None: None}
    return s._replace(
        deliveries=tuple(d._replace(owner=swapped[d.owner]) for d in s.deliveries),
        workers=(s.workers[1], s.workers[0]),
    )


def _with(worker: Worker, task: Task, phase: str | None = None) -> Worker:
    new = task if phase is None else task._replace(phase=phase)
    return worker._replace(tasks=tuple(sorted((*(t for t in worker.tasks if t != task), new))))


def _without(worker: Worker, task: Task) -> Worker:
    return worker._replace(tasks=tuple(t for t in worker.tasks if t != task))


@dataclass(frozen=True)
class Found:
    """How many states there are, what broke first, if anything, and the steps that led to it."""

    states: int
    broken: str | None = None
    trace: tuple[str, ...] = ()


def explore(rules: Rules, size: Size) -> Found:
    """Searches every state; stops at the first that breaks a rule, by a shortest trace."""
    model = Model(rules, size)
    first = model.start()
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    faultless: dict[State, list[State]] = {}  # by the state that is led to
    queue = deque([first])

    def trace(s: State) -> tuple[str, ...]:
        names: list[str] = []
        while (step := came_from[s]) is not None:
            s, name = step
            names.append(name)
        return tuple(reversed(names))

    while queue:
        s = queue.popleft()
        for name, fault, after_, broken in model.steps(s):
            after = canonical(after_)
            if after not in came_from:
                came_from[after] = (s, name)
                queue.append(after)
                broken = broken or model.broken(after)  # noqa: PLW2901
            if broken is not None:
                return Found(len(came_from), broken, (*trace(s), name))
            if not fault:
                faultless.setdefault(after, []).append(s)

    reached = {s for s in came_from if all(d.state not in LIVE for d in s.deliveries)}
    queue = deque(reached)
    while queue:
        for before in faultless.get(queue.popleft(), ()):
            if before not in reached:
                reached.add(before)
                queue.append(before)
    for s in came_from:
        if s not in reached:
            return Found(len(came_from), "no end is reachable", trace(s))
    return Found(len(came_from))
