"""The demo's merchants: four receivers with a ledger of their own, in a process of their own.

    python -m examples.receivers       prints its ports as JSON, then serves until its standard input closes

Each path behaves in its own way: `/healthy` accepts, `/flaky` answers 503 to the first two attempts of an event,
`/hanging` never answers the first attempt, `/down` has a port of its own that is closed until POST /control/open.
GET /control/ledger returns what was received; POST /control/secrets says which secret verifies which path.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

FLAKY_FAILURES = 2


@dataclass(frozen=True, slots=True)
class Received:
    """One POST as the merchant saw it; `status` 0 means that it was never answered."""

    path: str
    event_id: str
    status: int
    verified: bool


@dataclass(slots=True)
class Merchants:
    """All that the receivers know."""

    ledger: list[Received] = field(default_factory=list)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    secrets: dict[str, str] = field(default_factory=dict)
    down: asyncio.Server | None = None
    down_port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request, *lines = head.split("\r\n")
                _, path, _ = request.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if path.startswith("/control/"):
                    answer = json.dumps(await self.control(path, body)).encode()
                    status = 200
                else:
                    status, answer = self.receive(path, headers, body), b"{}"
                if status == 0:
                    await reader.read()  # until the sender has had enough
                    return
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Enters a POST in the ledger; returns the status to answer, 0 for none."""
        event_id = headers.get("webhook-id", "")
        self.attempts[path, event_id] += 1
        attempt = self.attempts[path, event_id]
        if path == "/flaky" and attempt <= FLAKY_FAILURES:
            status = 503
        elif path == "/hanging" and attempt == 1:
            status = 0
        else:
            status = 200
        try:
            Webhook(self.secrets[path]).verify(body, headers)
            verified = True
        except (WebhookVerificationError, KeyError, ValueError):
            verified = False
        self.ledger.append(Received(path, event_id, status, verified))
        return status

    async def control(self, path: str, body: bytes) -> Any:
        """What the demo asks for."""
        match path:
            case "/control/ledger":
                return [asdict(one) for one in self.ledger]
            case "/control/secrets":
                self.secrets = json.loads(body)
            case "/control/open":
                self.down = await asyncio.start_server(self.serve, "127.0.0.1", self.down_port)
        return {}


async def _main() -> None:
    merchants = Merchants()
    server = await asyncio.start_server(merchants.serve, "127.0.0.1", 0)
    # The port of the one that is down is bound now and given back, so that nobody answers there until it opens.
    reserved = await asyncio.start_server(merchants.serve, "127.0.0.1", 0)
    merchants.down_port = reserved.sockets[0].getsockname()[1]
    reserved.close()
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "down_port": merchants.down_port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
