"""A receiver in a process of its own, whose ledger judges what arrived: none of our faults reaches it.

The first part of an endpoint's path says how it behaves: `/ok/…`, `/fail-2/…` (the first two POSTs of each event
get a 500), `/down/…` (always 500), `/slow-300/…` (milliseconds), `/lag-2-800/…` (the first two get a 500, and every
answer takes so many milliseconds), `/hang/…` (never answers).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.request import Request, urlopen

from tests.support.patience import PATIENCE_S

NEVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Post:
    """One POST or GET that was read whole, and what it was answered. `verified` is None without a known secret.

    `path` is without the query of a GET.
    """

    webhook_id: str
    path: str
    received_at_s: float  # on the monotonic clock, which all processes of a machine share and nobody can step
    body_sha256: str
    status: int
    verified: bool | None


class Ledger:
    """The receiver's process, seen from the test.

    `forgets` is a defect: of so many requests, one is not written down.
    """

    def __init__(self, *, forgets: int = 0) -> None:
        # -I would hide this repository; -m finds it from its root.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ledger", str(forgets)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._secrets: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def know(self, secrets: Mapping[str, str]) -> None:
        """Have the signatures of these paths checked with these secrets (`whsec_…`), beside those that are known."""
        self._secrets |= secrets
        with urlopen(Request(f"{self.url}/_secrets", json.dumps(self._secrets).encode()), timeout=PATIENCE_S):
            pass

    def posts(self, since: int = 0) -> list[Post]:
        """Everything received after the first `since` POSTs."""
        with urlopen(f"{self.url}/_ledger/{since}", timeout=PATIENCE_S) as answer:
            return [Post(*row) for row in json.load(answer)]

    def count(self) -> int:
        with urlopen(f"{self.url}/_count", timeout=PATIENCE_S) as answer:
            return int(answer.read())

    def close(self) -> None:
        """The receiver ends with its standard input, so it outlives no test run, killed or not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def accepted(posts: Iterable[Post]) -> Counter[tuple[str, str]]:
    """How many POSTs of each (webhook-id, path) were answered 2xx."""
    return Counter((post.webhook_id, post.path) for post in posts if 200 <= post.status < 300)


def _answer(status: int, body: bytes = b"ok") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def _serve(forgets: int) -> None:
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    from tests.support.receivers import LedgerEntry, LedgerReceiver

    posts: list[Post] = []
    seen: Counter[tuple[str, str]] = Counter()
    verifiers: dict[str, Webhook] = {}

    def control(entry: LedgerEntry) -> tuple[float, bytes]:
        match entry.path.split("/")[1:]:
            case ["_secrets"]:
                verifiers.update((path, Webhook(secret)) for path, secret in json.loads(entry.body).items())
                return 0.0, _answer(200)
            case ["_ledger", since]:
                rows = [
                    [post.webhook_id, post.path, post.received_at_s, post.body_sha256, post.status, post.verified]
                    for post in posts[int(since) :]
                ]
                return 0.0, _answer(200, json.dumps(rows).encode())
            case ["_count"]:
                return 0.0, _answer(200, str(len(posts)).encode())
        return 0.0, _answer(404)

    def verified(entry: LedgerEntry) -> bool | None:
        path, is_get, _ = entry.path.partition("?")
        verifier = verifiers.get(path)
        if verifier is None:
            return None
        try:  # of a GET, which has no body, the address is what is signed
            verifier.verify(entry.path.encode() if is_get else entry.body, entry.headers, json_parse=not is_get)
        except WebhookVerificationError:
            return False
        return True

    def behave(entry: LedgerEntry) -> tuple[float, int]:
        key = (entry.webhook_id, entry.path.partition("?")[0])
        seen[key] += 1
        kind, _, argument = entry.path.split("/")[1].partition("-")
        match kind:
            case "fail":
                return 0.0, 500 if seen[key] <= int(argument) else 200
            case "down":
                return 0.0, 500
            case "lag":
                times, _, ms = argument.partition("-")
                return int(ms) / 1000, 500 if seen[key] <= int(times) else 200
            case "slow":
                return int(argument) / 1000, 200
            case "hang":
                return NEVER_S, 0
            case _:
                return 0.0, 200

    def answer(entry: LedgerEntry) -> tuple[float, bytes]:
        receiver.ledger.clear()  # ours is smaller
        if entry.path.startswith("/_"):
            return control(entry)
        delay_s, status = behave(entry)
        path = entry.path.partition("?")[0]
        post = Post(entry.webhook_id, path, time.monotonic(), entry.body_sha256, status, verified(entry))
        if not forgets or seen.total() % forgets:
            posts.append(post)
        return delay_s, _answer(status)

    async with LedgerReceiver(answer=answer) as receiver:
        print(receiver.url.rpartition(":")[2].partition("/")[0], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
