"""The judges: the receivers' ledger, the database, and what the harness itself has done. Nothing else is asked.

Each judge has a name, and finds nothing where the promise of that name holds:

- lost: a committed event that is not in the database, a delivery that has not ended, one that ended as delivered
  without an accepted request, or otherwise although its receiver would have accepted it.
- duplicate: accepted requests beyond the deliveries, each of which must match an attempt of unknown outcome.
- unprovoked: an attempt of unknown outcome whose worker nobody has taken.
- unlogged: a request without an attempt that could be its own; phantom: an attempt without its request.
- forged: a request whose signature does not verify.
- early: a request sooner after the one before than the schedule allows, by the receiver's own clock. The promise
  excepts what is sent by hand (retry, advance); the harness sends nothing by hand, so the judge excepts nothing.
- order: on an ordered endpoint, a request of a later delivery before an earlier one was accepted or had ended.
- held: a request to an endpoint while it was paused or disabled, with nothing in flight to it when that began.
- replayed: a delivery that was replayed twice.
- charged: attempts charged, or forgiven, that do not fit the log.
- statistics: counts that are not what the log has.
- left over: claims, due wakes, open transactions, advisory locks, tallies, workers that have left, replays and
  erasures that nobody took up, after everything has ended.
- audit: what `dispatcher audit verify` finds.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

from dispatcher.flow import audit
from dispatcher.ids import format_id
from tests.crash.load import Load
from tests.support.ledger import Ledger, Post
from tests.support.system import System

WAITS_S = (0.0, 0.5, 0.5, 1.0)
"""The waits of `tests.support.system.SCHEDULE`."""

TOLERANCE_S = 0.02
SETTLES_S = 60.0
"""How long what is left over may take to go."""

# On the wire nothing happened, and the log knows it.
NOT_SENT = frozenset({"dns", "connect", "blocked_address", "invalid_config", "tls_cert", "tls_protocol"})

EXAMPLES = 5

Pair = tuple[str, str]
"""An event's id as it is sent, and the path of an endpoint."""


@dataclass
class Verdict:
    """How much there was, and what each judge found: how often, and a few examples."""

    events: int = 0
    deliveries: int = 0
    posts: int = 0
    attempts: int = 0
    unknown: int = 0
    admitted: int = 0
    duplicates: int = 0
    states: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether every promise held."""
        return not self.found.total()

    def add(self, judge: str, breaches: Iterable[str]) -> None:
        for breach in breaches:
            self.found[judge] += 1
            kept = self.examples.setdefault(judge, [])
            if len(kept) < EXAMPLES:
                kept.append(breach)

    def __str__(self) -> str:
        names = ("events", "deliveries", "posts", "attempts", "unknown", "admitted", "duplicates")
        numbers = " ".join(f"{name}={getattr(self, name)}" for name in names)
        trouble = [f"{judge} {self.found[judge]}: {'; '.join(shown)}" for judge, shown in self.examples.items()]
        return "\n  ".join([f"{numbers} {dict(self.states)}", *(trouble or ["no violation"])])


@dataclass(frozen=True)
class LoggedDelivery:
    id: UUID
    pair: Pair
    state: str
    object_id: str | None
    attempts: int
    refunds: int
    replay_of: UUID | None
    is_replay: bool

    @property
    def path(self) -> str:
        return self.pair[1]


@dataclass(frozen=True)
class LoggedAttempt:
    delivery: LoggedDelivery
    worker_id: UUID
    outcome: str
    is_known: bool
    was_lost: bool
    decision: str
    is_charged: bool

    @property
    def may_have_been_sent(self) -> bool:
        return not self.is_known or self.was_lost


@dataclass(frozen=True)
class Evidence:
    """All that the judges look at."""

    system: System
    load: Load
    deliveries: dict[UUID, LoggedDelivery]
    attempts: list[LoggedAttempt]
    posts: dict[Pair, list[Post]]

    @classmethod
    def gather(cls, system: System, ledger: Ledger, load: Load) -> Evidence:
        columns = "id, event_id, endpoint_id, state, object_id, attempts, refunds, replay_of, replay_id"
        rows = system.rows(
            f"""SELECT d.*, e.url FROM (
                 SELECT {columns} FROM dispatcher.deliveries WHERE event_id >= :first UNION ALL
                 SELECT {columns} FROM dispatcher.ended_deliveries WHERE event_id >= :first) d
               JOIN dispatcher.endpoints e ON e.id = d.endpoint_id""",
            first=load.first,
        )
        deliveries = {
            id_: LoggedDelivery(
                id_,
                (format_id("evt", event_id), url.removeprefix(ledger.url)),
                *(state, object_id, attempts, refunds, replay_of),
                replay_of is not None or replay_id is not None,
            )
            for id_, event_id, _, state, object_id, attempts, refunds, replay_of, replay_id, url in rows
        }
        attempts = [
            LoggedAttempt(deliveries[delivery_id], *rest)
            for delivery_id, *rest in system.rows(
                """SELECT a.delivery_id, a.worker_id, a.outcome, a.outcome_known, coalesce(a.was_lost, false),
                          a.decision, a.charged
                   FROM dispatcher.attempts a WHERE a.delivery_id >= :first ORDER BY a.delivery_id, a.claim_seq""",
                first=load.first,
            )
            if delivery_id in deliveries
        ]
        ours = {delivery.pair[0] for delivery in deliveries.values()}
        ours |= {format_id("evt", id_) for id_ in load.committed}
        posts: dict[Pair, list[Post]] = defaultdict(list)
        for post in ledger.posts():
            if post.webhook_id in ours:
                posts[post.webhook_id, post.path].append(post)
        return cls(system, load, deliveries, attempts, posts)


Judge = Callable[[Evidence], Iterator[str]]


def lost(seen: Evidence) -> Iterator[str]:
    history = seen.system.history
    reached = {delivery.pair[0] for delivery in seen.deliveries.values()}
    yield from (f"{id_} is not in the database" for id_ in _committed(seen) - reached)
    forgiven = {attempt.delivery.id for attempt in seen.attempts if attempt.may_have_been_sent}
    for one in seen.deliveries.values():
        match one.state:
            case "waiting" | "in_flight":
                yield f"{_name(one)} is still {one.state}"
            case "delivered":
                if not any(_is_accepted(post) for post in seen.posts[one.pair]):
                    yield f"{_name(one)} is delivered, and was not received"
            case "exhausted" if "/down/" in one.path or one.id in forgiven:
                pass
            case "cancelled" if one.path in history.deleted or one.object_id in history.erased:
                pass
            case _:
                yield f"{_name(one)} is {one.state}, and its receiver would have accepted it"


def duplicate(seen: Evidence) -> Iterator[str]:
    admitted = _admitted(seen)
    for pair, surplus in _surplus(seen).items():
        if surplus > admitted[pair]:
            yield f"{pair[0]} {pair[1]}: {surplus} too many, {admitted[pair]} attempts of unknown outcome"


def unprovoked(seen: Evidence) -> Iterator[str]:
    for attempt in seen.attempts:
        if attempt.may_have_been_sent and not seen.system.history.was_taken(attempt.worker_id):
            pid = seen.system.history.workers.get(attempt.worker_id)
            yield f"{_name(attempt.delivery)}: {attempt.outcome}, by a worker that nobody took (process {pid})"


def unlogged(seen: Evidence) -> Iterator[str]:
    known, unknown = _sent(seen)
    for pair, found in seen.posts.items():
        if len(found) > known[pair] + unknown[pair]:
            yield f"{pair[0]} {pair[1]}: {len(found)} requests, {known[pair] + unknown[pair]} attempts"


def phantom(seen: Evidence) -> Iterator[str]:
    known, _ = _sent(seen)
    for pair, number in known.items():
        if number > len(seen.posts[pair]):
            yield f"{pair[0]} {pair[1]}: {number} attempts that were answered, {len(seen.posts[pair])} requests"


def forged(seen: Evidence) -> Iterator[str]:
    for pair, found in seen.posts.items():
        yield from (f"{pair[0]} {pair[1]}" for post in found if post.verified is not True)


def early(seen: Evidence) -> Iterator[str]:
    """Of deliveries all of whose attempts were charged: what was forgiven may be repeated at once."""
    by_pair = Counter(delivery.pair for delivery in seen.deliveries.values())
    excused = {
        attempt.delivery.pair for attempt in seen.attempts if attempt.may_have_been_sent or not attempt.is_charged
    }
    for pair, found in seen.posts.items():
        if by_pair[pair] != 1 or pair in excused:
            continue
        for number, (before, after) in enumerate(pairwise(found), start=1):
            waited_s = after.received_at_s - before.received_at_s
            if number < len(WAITS_S) and waited_s < WAITS_S[number] - TOLERANCE_S:
                yield f"{pair[0]} {pair[1]}: request {number + 1} after {waited_s:.3f} s of {WAITS_S[number]} s"


def order(seen: Evidence) -> Iterator[str]:
    for target in seen.system.targets:
        if not target.is_ordered:
            continue
        deliveries = sorted(
            (one for one in seen.deliveries.values() if one.path == target.path and not one.is_replay),
            key=lambda one: one.id,
        )
        earlier = [(one, _settled_at(one, seen.posts[one.pair])) for one in deliveries if seen.posts[one.pair]]
        latest: tuple[LoggedDelivery, float] | None = None
        for one, settled_at_s in earlier:
            first_at_s = seen.posts[one.pair][0].received_at_s
            if latest is not None and first_at_s < latest[1]:
                yield f"{_name(one)} came {latest[1] - first_at_s:.3f} s before {_name(latest[0])}"
            if latest is None or settled_at_s > latest[1]:
                latest = one, settled_at_s


def held(seen: Evidence) -> Iterator[str]:
    """A worker that was frozen before it sent sends when it wakes: the log admits that."""
    admitted = _admitted(seen)
    by_path: dict[str, list[Post]] = defaultdict(list)
    for pair, found in seen.posts.items():
        if not admitted[pair]:
            by_path[pair[1]] += found
    for hold in seen.system.history.held:
        for post in by_path[hold.path]:
            if hold.since_s < post.received_at_s < hold.until_s:
                yield f"{post.webhook_id} {post.path} {post.received_at_s - hold.since_s:.3f} s after it was {hold.why}"


def replayed(seen: Evidence) -> Iterator[str]:
    originals = Counter((one.replay_of, one.path) for one in seen.deliveries.values() if one.replay_of is not None)
    yield from (f"dlv {id_} to {path}: replayed {n} times" for (id_, path), n in originals.items() if n > 1)


def charged(seen: Evidence) -> Iterator[str]:
    attempts: dict[UUID, list[LoggedAttempt]] = defaultdict(list)
    for attempt in seen.attempts:
        attempts[attempt.delivery.id].append(attempt)
    for one in seen.deliveries.values():
        if one.state in ("waiting", "in_flight"):
            continue
        logged = attempts[one.id]
        number = sum(attempt.is_charged for attempt in logged)
        # A late success says that it ended the delivery, also where the next claim was just being made and did so.
        late = sum(attempt.was_lost and attempt.decision == "delivered" for attempt in logged)
        if not number - late <= one.attempts <= number:
            yield f"{_name(one)}: {one.attempts} charged, {number} by the log"
        workers_lost = [attempt for attempt in logged if attempt.outcome == "worker_lost"]
        if any(attempt.is_charged for attempt in workers_lost) and one.refunds < 3:
            yield f"{_name(one)}: a lost worker was charged after {one.refunds} that were forgiven"
        if one.refunds > sum(attempt.outcome == "worker_lost" or attempt.was_lost for attempt in logged):
            yield f"{_name(one)}: {one.refunds} forgiven, of {len(workers_lost)} lost workers"


_STATISTICS = """
WITH counted AS (
    SELECT endpoint_id, kind, what, sum(n) AS n FROM (
        SELECT endpoint_id, kind, what, n FROM dispatcher.counts WHERE grain = 'day'
        UNION ALL
        SELECT x.endpoint_id, x.kind, x.what, x.n FROM dispatcher.tallies t CROSS JOIN LATERAL
            json_to_recordset(t.body) AS x(endpoint_id uuid, kind text, what text, n bigint)) c
    GROUP BY 1, 2, 3
), logged AS (
    SELECT d.endpoint_id, 'attempt' AS kind, a.outcome AS what, count(*) AS n
    FROM dispatcher.attempts a JOIN (
        SELECT id, endpoint_id FROM dispatcher.deliveries UNION ALL
        SELECT id, endpoint_id FROM dispatcher.ended_deliveries) d ON d.id = a.delivery_id
    GROUP BY 1, 3
    UNION ALL
    SELECT endpoint_id, 'end', state, count(*) FROM dispatcher.ended_deliveries GROUP BY 1, 3
)
SELECT CAST(endpoint_id AS text), kind, what, coalesce(c.n, 0), coalesce(l.n, 0)
FROM counted c FULL JOIN logged l USING (endpoint_id, kind, what)
WHERE coalesce(c.n, 0) <> coalesce(l.n, 0)
"""


def statistics(seen: Evidence) -> Iterator[str]:
    """Of everything since the system was made: counts are not of a load."""
    for endpoint_id, kind, what, counted, logged in seen.system.rows(_STATISTICS):
        yield f"ep {endpoint_id}: {counted} {kind}s {what} counted, {logged} logged"


_LEFT_OVER = {
    "a claim": "SELECT 'dlv ' || id || ' by ' || claimed_by FROM dispatcher.deliveries WHERE claimed_by IS NOT NULL",
    "a wake that is due": "SELECT 'ep ' || endpoint_id FROM dispatcher.wakes WHERE due_at < now() - interval '1 s'",
    "an open transaction": """SELECT pid || ': ' || left(query, 60) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
          AND xact_start < clock_timestamp() - interval '10 seconds'""",
    "an advisory lock": """SELECT CAST(l.pid AS text) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND a.datname = current_database()
          AND a.state_change < clock_timestamp() - interval '10 seconds'""",
    "a tally": "SELECT CAST(id AS text) FROM dispatcher.tallies",
    "a replay that runs": "SELECT CAST(id AS text) FROM dispatcher.replays WHERE state = 'running'",
    "an erasure that was not begun": "SELECT CAST(id AS text) FROM dispatcher.erasures WHERE passes = 0",
}


def left_over(seen: Evidence) -> Iterator[str]:
    yield from _left_over(seen.system)


def _left_over(system: System) -> Iterator[str]:
    for what, sql in _LEFT_OVER.items():
        yield from (f"{what}: {row[0]}" for row in system.rows(sql))
    stopped = list(system.history.stopped)
    sql = "SELECT id, pid FROM dispatcher.workers WHERE pid = ANY (:stopped)"
    yield from (f"a worker that has left: {id_} (process {pid})" for id_, pid in system.rows(sql, stopped=stopped))


def audited(seen: Evidence) -> Iterator[str]:
    with seen.system.engine.connect() as connection:
        for violation in audit.verify(connection, since=seen.load.since, tolerance_s=TOLERANCE_S):
            yield str(violation)


JUDGES: dict[str, Judge] = {
    "lost": lost,
    "duplicate": duplicate,
    "unprovoked": unprovoked,
    "unlogged": unlogged,
    "phantom": phantom,
    "forged": forged,
    "early": early,
    "order": order,
    "held": held,
    "replayed": replayed,
    "charged": charged,
    "statistics": statistics,
    "left over": left_over,
    "audit": audited,
}


def settle(system: System, *, within_s: float = SETTLES_S) -> None:
    """Waits until nothing is left over, or that time is up: the judge then says what is."""
    deadline = time.monotonic() + within_s
    while any(True for _ in _left_over(system)) and time.monotonic() < deadline:
        time.sleep(0.2)


def judge(system: System, ledger: Ledger, load: Load, *, settles_s: float = SETTLES_S) -> Verdict:
    """What all judges say of a load whose deliveries have ended."""
    settle(system, within_s=settles_s)
    system.note_workers()
    seen = Evidence.gather(system, ledger, load)
    verdict = Verdict(
        events=len(load.committed),
        deliveries=len(seen.deliveries),
        posts=sum(map(len, seen.posts.values())),
        attempts=len(seen.attempts),
        unknown=sum(not attempt.is_known for attempt in seen.attempts),
        admitted=_admitted(seen).total(),
        duplicates=_surplus(seen).total(),
        states=Counter(one.state for one in seen.deliveries.values()),
    )
    for name, finds in JUDGES.items():
        verdict.add(name, finds(seen))
    return verdict


def _committed(seen: Evidence) -> set[str]:
    return {format_id("evt", id_) for id_ in seen.load.committed}


def _name(one: LoggedDelivery) -> str:
    return f"{format_id('dlv', one.id)} of {one.pair[0]} to {one.path}"


def _is_accepted(post: Post) -> bool:
    return 200 <= post.status < 300


def _surplus(seen: Evidence) -> Counter[Pair]:
    """Accepted requests beyond one for each delivery that says it was delivered."""
    delivered = Counter(one.pair for one in seen.deliveries.values() if one.state == "delivered")
    surplus = {pair: sum(map(_is_accepted, found)) - delivered[pair] for pair, found in seen.posts.items()}
    return Counter({pair: number for pair, number in surplus.items() if number > 0})


def _admitted(seen: Evidence) -> Counter[Pair]:
    """Attempts of which the log says, or said at first, that nobody knows whether they arrived.

    A lost worker that was only late has told its outcome since. The decision may be its own too: it ends a delivery
    that waits after the rescue, unless the next claim is just being made.
    """
    return Counter(attempt.delivery.pair for attempt in seen.attempts if attempt.may_have_been_sent)


def _sent(seen: Evidence) -> tuple[Counter[Pair], Counter[Pair]]:
    """Attempts that were sent and answered, and those of unknown outcome."""
    known = Counter(a.delivery.pair for a in seen.attempts if a.is_known and a.outcome not in NOT_SENT)
    return known, Counter(a.delivery.pair for a in seen.attempts if not a.is_known)


def _settled_at(one: LoggedDelivery, found: Sequence[Post]) -> float:
    """When the next in order may come: at the first acceptance, else at the last request."""
    accepted = (post.received_at_s for post in found if _is_accepted(post))
    return next(accepted, found[-1].received_at_s)


def found_by(verdict: Verdict, judges: Iterable[str]) -> list[str]:
    """Which of these judges have found something."""
    return [name for name in judges if verdict.found[name]]
