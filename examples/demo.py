"""The whole system for real, on this machine, in under a minute: `make demo`.

Embedded PostgreSQL and Redis, a scheduler, two Celery workers, the API, and four merchants on loopback: one healthy,
one that fails its first attempts, one that is down and later back, one that hangs. The verdict compares the
merchants' own ledger with the delivery log:

    accepted    events that the system said it had taken
    delivered   pairs of event and endpoint that the merchant has accepted (2xx in the ledger)
    exhausted   deliveries whose schedule ran out
    retried     deliveries that took more than one attempt
    replayed    new deliveries of exhausted ones
    lost        pairs that ought to have been delivered and are not in the ledger
    duplicates  accepted POSTs beyond the first of a pair
    disagreements  pairs of which ledger and log tell different stories

Exit code 0 only if nothing is lost or doubled, the two agree and every signature verified.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, create_engine, text

from dispatcher import config, wiring
from dispatcher.errors import DispatcherError
from dispatcher.local import Stack

HERE = Path(__file__).parent
KEY = "demo-key"

MERCHANTS = {
    "healthy": (None, "accepts everything"),
    "flaky": (["payment.*"], "answers 503 to the first two attempts"),
    "down": (["refund.*", "payout.*"], "is down, and back later"),
    "hanging": (["chargeback.*"], "never answers the first attempt"),
}
STATES = ("waiting", "in_flight", "delivered", "exhausted")
COLOURS = {"waiting": "yellow", "in_flight": "cyan", "delivered": "green", "exhausted": "red"}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class Verdict:
    """See the module."""

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

    @property
    def good(self) -> bool:
        """Whether the demo has shown what it promises."""
        return (
            self.accepted > 0
            and self.lost == self.duplicates == self.disagreements == 0
            and self.posts == self.signatures_verified
        )


def judge(
    expected: set[tuple[str, str]],
    ledger: list[dict[str, Any]],
    log: list[dict[str, Any]],
    *,
    accepted: int,
    seconds: float,
) -> Verdict:
    """The verdict.

    `expected` are the (merchant, event id) pairs that the endpoints' event types ask for; `ledger` has an entry for
    each POST that a merchant received; `log` one for each delivery, with `merchant`, `event_id`, `status`,
    `replay_of` and `sent`, the number of its attempts that reached the wire.
    """
    successes = Counter((one["path"].strip("/"), one["event_id"]) for one in ledger if one["status"] == 200)
    received = Counter((one["path"].strip("/"), one["event_id"]) for one in ledger)
    delivered = {(one["merchant"], one["event_id"]) for one in log if one["status"] == "delivered"}
    sent: Counter[tuple[str, str]] = Counter()
    for one in log:
        sent[one["merchant"], one["event_id"]] += one["sent"]
    pairs = expected | set(received) | set(sent)
    return Verdict(
        accepted=accepted,
        delivered=len(successes),
        exhausted=sum(one["status"] == "exhausted" for one in log),
        retried=sum(one["attempts"] > 1 for one in log),
        replayed=sum(one["replay_of"] is not None for one in log),
        lost=len(expected - set(successes)),
        duplicates=sum(count - 1 for count in successes.values()),
        posts=len(ledger),
        signatures_verified=sum(one["verified"] for one in ledger),
        disagreements=sum((pair in delivered) != (pair in successes) or received[pair] != sent[pair] for pair in pairs),
        seconds=round(seconds, 1),
    )


class Receivers:
    """The merchants' process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.receivers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=HERE.parent,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self._url = f"http://127.0.0.1:{ports['port']}"
        self._down_url = f"http://127.0.0.1:{ports['down_port']}"

    def url(self, merchant: str) -> str:
        """Where a merchant listens."""
        return f"{self._down_url if merchant == 'down' else self._url}/{merchant}"

    def control(self, what: str, body: object = None) -> Any:
        """Asks the merchants' process for something."""
        return httpx.post(f"{self._url}/control/{what}", json=body, timeout=10).json()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


class Demo:
    """One run, from an empty data directory to the verdict."""

    def __init__(self, folder: Path, events: int | None) -> None:
        self.folder = folder
        self.events = events
        self.log_path = folder / "demo.log"
        self.log_file = self.log_path.open("a", encoding="utf-8")
        # The demo is the same whatever is set outside.
        for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
            del os.environ[name]
        self.settings = {
            "DISPATCHER_SCHEDULES_DIR": str(HERE / "schedules"),
            "DISPATCHER_ALLOW_NETWORKS": "127.0.0.0/8",
            "DISPATCHER_BOOTSTRAP_KEY": KEY,
        }
        self.stack = Stack(
            migrate=lambda url: wiring.prepare_database(config.load(self.settings | {"DISPATCHER_DATABASE_URL": url})),
            data_dir=folder / "data",
            workers=2,
            env=self.settings,
            output=lambda name, line: print(f"{name} | {line}", file=self.log_file, flush=True),
        )
        self.receivers = Receivers()
        self.endpoints: dict[str, str] = {}

    def run(self) -> Verdict:
        """All the steps. Raises DispatcherError where something does not start."""
        started = time.monotonic()
        step("Starting PostgreSQL, Redis, a scheduler, two Celery workers and the API")
        self.stack.start()
        self.engine = create_engine(config.with_database(config.Settings(), self.stack.database_url).database_url or "")
        console.print(f"  ready at {self.stack.url} after {time.monotonic() - started:.1f} s")

        step("Registering four endpoints over the API")
        self.register()

        step("Sending a day of payments")
        accepted = self.send()

        step("Delivering; whatever does not answer 2xx is tried again after 1, 2 and 3 s")
        self.watch(lambda counts: counts["down"]["exhausted"] > 0 and not open_count(counts["down"]))
        console.print("  [green]the merchant that was down is back[/]")
        self.receivers.control("open")

        step("Replaying what ran out of attempts")
        self.command("replay", "start", "--status", "exhausted", "--yes")

        step("Waiting for the one that hangs: an attempt may take 15 s and holds nobody else up")
        self.watch(lambda counts: not any(open_count(one) for one in counts.values()))

        step("Where is my notification? The log of one delivery")
        log = self.read_log()
        shown = next(one for one in log if one["merchant"] == "flaky" and one["status"] == "delivered")
        self.command("deliveries", "show", shown["id"])

        return judge(
            self.expected(accepted),
            self.receivers.control("ledger"),
            log,
            accepted=len(accepted),
            seconds=time.monotonic() - started,
        )

    def register(self) -> None:
        """One endpoint a merchant; their secrets go to the merchants, who verify with them."""
        secrets = {}
        for merchant, (types, character) in MERCHANTS.items():
            answer = httpx.post(
                f"{self.stack.url}/v1/endpoints",
                headers={"authorization": f"Bearer {KEY}"},
                json={"url": self.receivers.url(merchant), "name": merchant, "schedule": "demo"}
                | ({} if types is None else {"event_types": types}),
                timeout=10,
            )
            answer.raise_for_status()
            self.endpoints[merchant] = answer.json()["id"]
            secrets[f"/{merchant}"] = answer.json()["secret"]
            wants = "all events" if types is None else ", ".join(types)
            console.print(f"  [bold]{merchant:8}[/] {wants:20} {character}")
        self.receivers.control("secrets", secrets)

    def send(self) -> dict[str, str]:
        """Sends the file with the command line; returns the accepted events' types by id."""
        lines = (HERE / "payments.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[: self.events]
        path = self.folder / "payments.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        shown = "examples/payments.jsonl"
        ran = self.command("events", "send", str(path), "--output", "json", show=f"events send {shown}", quiet=True)
        accepted = [one["id"] for one in json.loads(ran)]
        types = [json.loads(line)["type"] for line in lines]
        console.print(f"  {len(accepted)} events of {len(set(types))} types accepted")
        return dict(zip(accepted, types, strict=True))

    def expected(self, accepted: dict[str, str]) -> set[tuple[str, str]]:
        """Which merchant ought to have received which event, by the demo's own reading of the event types."""
        return {
            (merchant, event_id)
            for merchant, (patterns, _) in MERCHANTS.items()
            for event_id, kind in accepted.items()
            if patterns is None or any(kind.startswith(pattern.removesuffix("*")) for pattern in patterns)
        }

    def command(self, *arguments: str, show: str | None = None, quiet: bool = False) -> str:
        """Runs the command line as a person would, beside the running system, and prints what it prints."""
        console.print(Text(f"  $ dispatcher {show or ' '.join(arguments)}", style="bold"))
        environ = os.environ | self.stack.environment() | {"COLUMNS": str(console.width)}
        ran = subprocess.run(
            [sys.executable, "-m", "dispatcher", *arguments],
            capture_output=True,
            text=True,
            env=environ,
            cwd=HERE.parent,
            check=False,
        )
        if ran.returncode != 0:
            raise DispatcherError(f"`dispatcher {arguments[0]}` failed: {ran.stderr.strip()}")
        if not quiet:
            for line in ran.stdout.rstrip().splitlines():
                console.print(Text(f"  {line}"), soft_wrap=True)
        return ran.stdout

    def watch(self, done: Any) -> None:
        """Shows the deliveries of each merchant until `done`. Raises DispatcherError after 45 s."""
        limit = time.monotonic() + 45
        said = 0.0
        with Live(console=console, refresh_per_second=8, transient=False, auto_refresh=False) as live:
            while True:
                with self.engine.connect() as connection:
                    counts = self.count(connection)
                if console.is_terminal:
                    live.update(table(counts), refresh=True)
                elif time.monotonic() - said > 2:
                    said = time.monotonic()
                    console.print("  " + "; ".join(one_line(name, one) for name, one in counts.items()))
                if done(counts):
                    return
                if time.monotonic() > limit:
                    raise DispatcherError("the deliveries did not end within 45 s")
                time.sleep(0.15)

    def count(self, connection: Connection) -> dict[str, Counter[str]]:
        """How many deliveries of each merchant stand where."""
        names = {endpoint_id.removeprefix("ep_"): merchant for merchant, endpoint_id in self.endpoints.items()}
        counts: dict[str, Counter[str]] = {merchant: Counter() for merchant in MERCHANTS}
        rows = connection.execute(
            text("""
            SELECT endpoint_id, state, count(*) FROM dispatcher.deliveries GROUP BY 1, 2
            UNION ALL
            SELECT endpoint_id, state, count(*) FROM dispatcher.ended_deliveries GROUP BY 1, 2""")
        )
        for endpoint_id, state, number in rows:
            counts[names[str(endpoint_id)]][state] = number
        return counts

    def read_log(self) -> list[dict[str, Any]]:
        """Every delivery, over the API, with how many of its attempts reached the wire."""
        names = {endpoint_id: merchant for merchant, endpoint_id in self.endpoints.items()}
        found: list[dict[str, Any]] = []
        with httpx.Client(base_url=self.stack.url, headers={"authorization": f"Bearer {KEY}"}, timeout=10) as client:
            cursor = None
            while True:
                page = client.get(
                    "/v1/deliveries", params={"limit": 500} | ({"cursor": cursor} if cursor else {})
                ).json()
                found += page["data"]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
        with self.engine.connect() as connection:
            sent = dict(
                connection.execute(
                    text("""
                    SELECT 'dlv_' || delivery_id, count(*) FROM dispatcher.attempts
                    WHERE phase IN ('write', 'headers', 'body') GROUP BY 1""")
                ).all()
            )
        return [
            one
            | {"merchant": names[one["endpoint_id"]], "sent": sent.get(one["id"], 0), "attempts": one["attempt_count"]}
            for one in found
        ]

    def stop(self) -> None:
        """Ends every process of the demo."""
        if hasattr(self, "engine"):
            self.engine.dispose()
        self.receivers.stop()
        self.stack.stop()
        self.stack.remove()
        self.log_file.close()


def open_count(counts: Counter[str]) -> int:
    """How many have not ended."""
    return counts["waiting"] + counts["in_flight"]


def one_line(merchant: str, counts: Counter[str]) -> str:
    """A merchant's deliveries in a few words."""
    return f"{merchant} {counts['delivered']} delivered {open_count(counts)} open {counts['exhausted']} exhausted"


def table(counts: dict[str, Counter[str]]) -> Table:
    """The deliveries of each merchant, as bars."""
    found = Table(box=None, pad_edge=False, padding=(0, 2))
    found.add_column("  merchant", min_width=10)
    width = max(10, min(60, console.width - 72))
    found.add_column("deliveries", width=width)
    for state in STATES:
        found.add_column(state.replace("_", " "), justify="right", style=COLOURS[state], min_width=len(state))
    for merchant, one in counts.items():
        total = sum(one.values()) or 1
        bar = Text()
        for state in ("delivered", "exhausted", "in_flight", "waiting"):
            bar.append("█" * round(width * one[state] / total), style=COLOURS[state])
        bar.truncate(width)
        found.add_row(f"  {merchant}", bar, *(str(one[state]) for state in STATES))
    return found


def step(title: str) -> None:
    """A headline."""
    console.print()
    console.print(Text(title, style="bold cyan"))


@click.command()
@click.option("--events", type=click.IntRange(20), help="Send only the first so many events.")
def main(events: int | None) -> None:
    """Run the demo; the last line is RESULT and JSON."""
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-demo-"))
    folder.chmod(0o755)
    demo = Demo(folder, events)
    try:
        verdict = demo.run()
    except DispatcherError as error:
        tail = demo.log_path.read_text(encoding="utf-8").splitlines()[-15:]
        click.echo("\n".join(tail), err=True)
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        demo.stop()
        shutil.rmtree(folder, ignore_errors=True)
    step("Verdict, from the merchants' own ledger against the delivery log")
    for name, value in asdict(verdict).items():
        console.print(f"  {name:20} {value}")
    if not verdict.good:
        console.print("[red]the ledger and the log do not agree, or something is lost or doubled[/]")
    print(f"RESULT {json.dumps(asdict(verdict))}", flush=True)
    sys.exit(0 if verdict.good else 1)


if __name__ == "__main__":
    main()
