"""The whole system for real, on this machine, in under a minute: `make demo`.

Embedded PostgreSQL and Redis, a scheduler, two Celery workers, the API, and four merchants on loopback: one healthy,
one that fails its first attempts, one that is down and later back, one that hangs. The last line is `RESULT` and
JSON; `examples.verdict` says what each number means and how it is counted. Exit code 0 only if nothing is lost or
doubled, every signature verified, and the merchants' own ledger and the delivery log agree.

Everything lives in a temporary directory and on free ports, beside whatever else runs, and is gone at the end.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import httpx
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import create_engine, text

from dispatcher import config, wiring
from dispatcher.cli import plain
from dispatcher.errors import DispatcherError
from dispatcher.local.stack import Stack
from examples.verdict import MEANING, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE: Final = Path(__file__).parent
EVENTS: Final = HERE / "payments.jsonl"
KEY: Final = f"dsk_{secrets.token_urlsafe(32)}"
LIMIT_S: Final = 55
"""The demo gives up after that, rather than keep anybody waiting; `--limit` says otherwise."""

MERCHANTS: Final[dict[str, tuple[list[str] | None, str]]] = {
    "healthy": (None, "accepts everything"),
    "flaky": (["payment.*"], "answers 503 to the first two attempts"),
    "down": (["refund.*", "payout.*"], "is down, and back later"),
    "hanging": (["chargeback.*"], "never answers the first attempt"),
}
COLOURS: Final = {"delivered": "green", "exhausted": "red", "in_flight": "cyan", "waiting": "bright_black"}
GLYPHS: Final = {"delivered": "█", "exhausted": "▓", "in_flight": "▒", "waiting": "░"}  # told apart without colour too

console = Console(highlight=False)


class Demo:
    """One run, from an empty data directory to the verdict. `cleanup` ends and removes whatever is left."""

    def __init__(self, folder: Path, cleanup: ExitStack, *, limit_s: float = LIMIT_S) -> None:
        self.folder = folder
        self.limit_s = limit_s
        self.cleanup = cleanup
        self.log_file = cleanup.enter_context((folder / "demo.log").open("a", encoding="utf-8"))
        logging.basicConfig(stream=self.log_file, level=logging.INFO, force=True)
        # The demo is the same whatever is set outside.
        for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
            del os.environ[name]
        settings = {
            "DISPATCHER_SCHEDULES_DIR": str(HERE / "schedules"),
            "DISPATCHER_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
            "DISPATCHER_BOOTSTRAP_KEY": KEY,
        }
        self.stack = Stack(
            migrate=lambda url: wiring.prepare_database(config.load(settings | {"DISPATCHER_DATABASE_URL": url})),
            data_dir=folder / "data",
            workers=2,
            env=settings,
            output=lambda name, line: print(f"{name} | {line}", file=self.log_file, flush=True),
            grace_s=8,
        )
        self.endpoints: dict[str, str] = {}

    def run(self, count: int | None) -> Verdict:
        """All the steps, with so many events. Raises DispatcherError where something does not start or end."""
        self.started_at_s = time.monotonic()
        heading("Start everything")
        self.start()
        heading("Register four merchants over the API")
        self.register()
        heading("Send a day of payments")
        accepted = self.send(count)
        heading("Deliver; what is not answered 2xx is tried again 1, 2 and 3 s after")
        self.watch(lambda counts: not unfinished(counts["down"]))
        heading("The merchant that was down is back: replay what ran out of attempts")
        self.control("open")
        self.command("replay", "start", "--status", "exhausted", "--yes")
        heading("Wait for the one that hangs: up to 15 s an attempt, and it delays nobody else")
        self.watch(lambda counts: not any(map(unfinished, counts.values())))
        log = self.read_log()
        healthy = [one for one in log if one["merchant"] == "healthy"]
        console.print(f"The healthy one had each of its {len(healthy)} events within {slowest_s(healthy):.1f} s.")
        heading("Where is my notification? The log of one delivery")
        delivered = [one for one in log if one["status"] == "delivered"]
        if delivered:
            self.command("deliveries", "show", max(delivered, key=lambda one: one["attempts"])["id"])
        return judge(
            self.expected(accepted),
            self.control("ledger"),
            log,
            accepted=len(accepted),
            seconds=time.monotonic() - self.started_at_s,
        )

    def start(self) -> None:
        """The merchants' process, then the system."""
        merchants = subprocess.Popen(
            [sys.executable, "-m", "examples.demo_receivers"],
            stdin=subprocess.PIPE,  # it ends with us, however we end
            stdout=subprocess.PIPE,
            stderr=self.log_file,
            cwd=HERE.parent,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        self.cleanup.callback(merchants.communicate)
        self.cleanup.callback(merchants.kill)
        assert merchants.stdout is not None
        line = merchants.stdout.readline()
        if not line:
            raise DispatcherError("the merchants' process did not start")
        ports = json.loads(line)
        self.merchants_url = f"http://127.0.0.1:{ports['port']}"
        self.urls = {merchant: f"{self.merchants_url}/{merchant}" for merchant in MERCHANTS}
        self.urls["down"] = f"http://127.0.0.1:{ports['down_port']}/down"

        self.cleanup.callback(self.stack.remove)
        self.cleanup.callback(self.stack.stop)
        with working("PostgreSQL, Redis, a scheduler, two Celery workers and the API"):
            self.stack.start()
        self.engine = create_engine(config.with_database(config.Settings(), self.stack.database_url).database_url or "")
        self.cleanup.callback(self.engine.dispose)
        console.print(", ".join(f"{name} {one.pid}" for name, one in self.stack.supervisor.children.items()))
        console.print(f"Ready at {self.stack.url} after {time.monotonic() - self.started_at_s:.1f} s")

    def register(self) -> None:
        """One endpoint a merchant; their secrets go to the merchants, who verify with them."""
        console.print(Text(f"POST {self.stack.url}/v1/endpoints", style="bold"))
        secrets = {}
        for merchant, (types, character) in MERCHANTS.items():
            wanted = {"url": self.urls[merchant], "name": merchant, "schedule": "demo"}
            answer = self.api("POST", "/v1/endpoints", json=wanted | ({} if types is None else {"event_types": types}))
            self.endpoints[merchant] = answer["id"]
            secrets[merchant] = answer["secret"]
            console.print(f"[bold]{merchant:8}[/]  {'*' if types is None else ' '.join(types):18}  {character}")
        self.control("secrets", secrets)

    def send(self, count: int | None) -> dict[str, str]:
        """Sends the file with the command line; returns the accepted events' types by id."""
        path = EVENTS
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if count is not None and count < len(lines):
            path = self.folder / "some_payments.jsonl"  # evenly spread, so that every type is there
            lines = [lines[n * len(lines) // count] for n in range(count)]
            path.write_text("".join(lines), encoding="utf-8")
        accepted_path = self.folder / "accepted.json"
        with accepted_path.open("w+", encoding="utf-8") as stdout:
            self.command("events", "send", str(path), "--output", "json", stdout=stdout)
        accepted = [one["id"] for one in json.loads(accepted_path.read_text(encoding="utf-8"))["data"]]
        types = [json.loads(line)["type"] for line in lines]
        if len(set(accepted)) != len(types):
            raise DispatcherError(f"{len(types)} events were sent and {len(set(accepted))} accepted")
        console.print(f"{len(accepted)} events of {len(set(types))} types accepted")
        return dict(zip(accepted, types, strict=True))

    def expected(self, accepted: dict[str, str]) -> set[tuple[str, str]]:
        """Which merchant ought to have received which event, by the demo's own reading of the event types."""
        return {
            (merchant, event_id)
            for merchant, (patterns, _) in MERCHANTS.items()
            for event_id, kind in accepted.items()
            if patterns is None or any(kind.startswith(pattern.removesuffix("*")) for pattern in patterns)
        }

    def watch(self, done: Callable[[dict[str, Counter[str]]], bool]) -> None:
        """Shows the deliveries of each merchant until `done`. Raises DispatcherError when the time is up."""
        said_at_s = -1.0
        with Live(console=console, auto_refresh=False) as live:
            while True:
                counts = self.count()
                now_s = time.monotonic() - self.started_at_s
                finished = done(counts)
                if console.is_terminal:
                    live.update(bars(counts, now_s), refresh=True)
                elif finished or now_s >= said_at_s + 1:
                    said_at_s = now_s
                    console.print(one_line(counts, now_s), soft_wrap=True)
                if finished:
                    return
                if now_s > self.limit_s:
                    open_ = sum(map(unfinished, counts.values()))
                    raise DispatcherError(f"{open_} deliveries have not ended after {self.limit_s:.0f} s")
                time.sleep(0.15)

    def count(self) -> dict[str, Counter[str]]:
        """How many deliveries of each merchant stand where."""
        names = {endpoint_id.removeprefix("ep_"): merchant for merchant, endpoint_id in self.endpoints.items()}
        counts: dict[str, Counter[str]] = {merchant: Counter() for merchant in MERCHANTS}
        statement = text("""
            SELECT endpoint_id, state, count(*) FROM dispatcher.deliveries GROUP BY 1, 2
            UNION ALL
            SELECT endpoint_id, state, count(*) FROM dispatcher.ended_deliveries GROUP BY 1, 2""")
        with self.engine.connect() as connection:
            for endpoint_id, state, number in connection.execute(statement):
                counts[names[str(endpoint_id)]][state] += number
        return counts

    def read_log(self) -> list[dict[str, Any]]:
        """Every delivery, over the API, with how many of its attempts reached the wire."""
        names = {endpoint_id: merchant for merchant, endpoint_id in self.endpoints.items()}
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.api("GET", "/v1/deliveries", params={"limit": "500"} | cursor)
            found += page["data"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        # A refused connection is an attempt too, but not one that a merchant could know of.
        statement = text("""
            SELECT 'dlv_' || delivery_id, count(*) FROM dispatcher.attempts
            WHERE phase IN ('write', 'headers', 'body') GROUP BY 1""")
        with self.engine.connect() as connection:
            sent = {str(delivery_id): number for delivery_id, number in connection.execute(statement)}
        return [
            one
            | {"merchant": names[one["endpoint_id"]], "sent": sent.get(one["id"], 0), "attempts": one["attempt_count"]}
            for one in found
        ]

    def command(self, *arguments: str, stdout: Any = None) -> None:
        """Runs the command line as a person would, beside the running system; what it prints goes where ours goes."""
        shown = [argument.replace(f"{HERE.parent}/", "") for argument in arguments]
        line = f"$ dispatcher {shlex.join(shown)}" + ("" if stdout is None else f" > {Path(stdout.name).name}")
        console.print(Text(line, style="bold"), soft_wrap=True)
        console.file.flush()
        ran = subprocess.run(
            [sys.executable, "-m", "dispatcher", *arguments],
            stdout=stdout,
            env=os.environ | self.stack.environment(),
            cwd=HERE.parent,
            check=False,
        )
        if ran.returncode != 0:
            raise DispatcherError(f"`{line[2:]}` ended with exit code {ran.returncode}")

    def api(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer of one call. Raises DispatcherError for any but 2xx."""
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.request(method, self.stack.url + path, headers=headers, timeout=20, **arguments)
        if not answer.is_success:
            raise DispatcherError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        return answer.json()

    def control(self, what: str, body: object = None) -> Any:
        """Asks the merchants' process for something."""
        return httpx.post(f"{self.merchants_url}/control/{what}", json=body, timeout=20).json()


def slowest_s(log: list[dict[str, Any]]) -> float:
    """The longest time from an event's acceptance to its delivery's end."""
    ended = [(datetime.fromisoformat(one["ended_at"]), datetime.fromisoformat(one["created_at"])) for one in log]
    return max(((end - start).total_seconds() for end, start in ended), default=0.0)


def unfinished(counts: Counter[str]) -> int:
    """How many have not ended."""
    return counts["waiting"] + counts["in_flight"]


def bars(counts: dict[str, Counter[str]], now_s: float) -> Table:
    """The deliveries of each merchant, as bars; 80 columns are enough."""
    states = ("waiting", "in_flight", "delivered", "exhausted")
    titles = [f"{GLYPHS[state]} {state.replace('_', ' ')}" for state in states]
    width = max(10, min(60, console.width - 8 - sum(len(title) + 2 for title in titles) - 2))
    found = Table(box=None, pad_edge=False, padding=(0, 1))
    found.add_column(f"{now_s:.0f} s", width=8, header_style="bright_black")
    found.add_column("", width=width)
    for state, title in zip(states, titles, strict=True):
        found.add_column(title, justify="right", header_style=COLOURS[state], no_wrap=True)
    for merchant, one in counts.items():
        cells = [Text(str(one[state]), style="" if one[state] else "bright_black") for state in states]
        found.add_row(merchant, bar(one, width), *cells)
    return found


def bar(counts: Counter[str], width: int) -> Text:
    """One merchant's bar: every state that occurs has a cell, the largest gives way."""
    present = [state for state in GLYPHS if counts[state]]
    cells = {state: max(1, round(width * counts[state] / counts.total())) for state in present}
    if cells:
        cells[max(cells, key=lambda state: cells[state])] += width - sum(cells.values())
    return Text.assemble(*((GLYPHS[state] * cells[state], COLOURS[state]) for state in present))


def one_line(counts: dict[str, Counter[str]], now_s: float) -> str:
    """The same for a log file."""
    words = [
        f"{merchant} {one['delivered']}/{one.total()}" + (f" ({one['exhausted']} exhausted)" * bool(one["exhausted"]))
        for merchant, one in counts.items()
    ]
    return f"{now_s:4.0f} s  delivered: {', '.join(words)}"


def heading(title: str) -> None:
    """What comes now."""
    console.print()
    console.print(Text(title, style="bold cyan"))


@contextmanager
def working(on: str) -> Iterator[None]:
    """Something that moves, while nothing else can be shown."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(on, total=None)
        yield


def show(verdict: Verdict) -> None:
    """The numbers with their meaning, and whatever is wrong."""
    heading("Verdict: the merchants' own ledger against the delivery log")
    found = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    found.add_column()
    found.add_column(justify="right", style="bold")
    found.add_column(style="bright_black")
    for name, value in verdict.numbers.items():
        style = ("red" if value else "green") if name in {"lost", "duplicates", "disagreements"} else ""
        found.add_row(name.replace("_", " "), Text(str(value), style=style), MEANING[name])
    console.print(found)
    console.print()
    for finding in verdict.findings[:20]:
        console.print(Text(finding, style="red"), soft_wrap=True)
    if len(verdict.findings) > 20:
        console.print(Text(f"and {len(verdict.findings) - 20} more", style="red"))
    if verdict.exit_code == 0:
        console.print("[green]Ledger and log agree; nothing was lost, nothing came twice.[/]")


class Interrupted(BaseException):
    """Somebody wants the demo to end. Not KeyboardInterrupt, which may change the exit code after it was handled."""


class Interruption:
    """Ctrl-C, a closed terminal and a polite kill raise Interrupted; cleaning up is not interrupted.

    What is raised while a destructor runs is lost, so it is raised again, a moment later, until `no_more`.
    """

    def __init__(self) -> None:
        self._over = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._hear)
        report = sys.unraisablehook
        sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, Interrupted) else report(lost)

    def _hear(self, *_: object) -> None:
        if not self._over:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            raise Interrupted

    def no_more(self) -> None:
        """From here on nothing is raised."""
        self._over = True
        signal.setitimer(signal.ITIMER_REAL, 0)


@click.command()
@click.option("--events", type=click.IntRange(1), help="Send only so many events, evenly spread over the file.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="SECONDS",
    default=LIMIT_S,
    show_default=True,
    help="Give up after so long: a slow machine needs more.",
)
def main(events: int | None, limit: int) -> None:
    """Run the demo; the last line is RESULT and JSON."""
    plain.set_up()
    interruption = Interruption()
    verdict: Verdict | None = None
    failure: str | None = None
    interrupted = False
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="dispatcher-demo-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # as root, the servers run under another account
        kept = folder.with_suffix(".log")
        try:
            verdict = Demo(folder, cleanup, limit_s=limit).run(events)
            failure = None if verdict.exit_code == 0 else "the verdict is not what it should be"
        except Interrupted:
            interrupted = True
        except Exception as error:  # noqa: BLE001 - the process's edge: a sentence here, the rest in the log
            failure = str(error) if isinstance(error, DispatcherError) else f"{type(error).__name__}: {error}"
            with (folder / "demo.log").open("a", encoding="utf-8") as log_file:
                traceback.print_exc(file=log_file)
        interruption.no_more()
        with working("stopping everything"):
            if failure is not None:
                shutil.copyfile(folder / "demo.log", kept)
            cleanup.close()
    if interrupted:
        click.echo("demo: interrupted; everything was stopped and removed", err=True)
        sys.exit(130)
    if verdict is not None:
        show(verdict)
    if failure is not None:
        click.echo(f"demo: {failure.rstrip('.')}. What every process said is in {kept}", err=True)
    if verdict is None:
        sys.exit(1)
    print(f"RESULT {json.dumps(verdict.numbers)}", flush=True)
    sys.exit(verdict.exit_code)


if __name__ == "__main__":
    main()
