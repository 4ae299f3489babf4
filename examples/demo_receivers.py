"""The demo's merchants: four receivers with a ledger of their own, in a process of their own.

    python -m examples.demo_receivers       prints its ports as JSON, then serves until its standard input closes

Each path behaves in its own way: `/healthy` accepts, `/flaky` answers 503 to the first two attempts of an event,
`/hanging` never answers the first attempt, `/down` has a port of its own that refuses until POST /control/open.
POST /control/ledger returns what was received; POST /control/secrets says which secret verifies which merchant.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

FLAKY_FAILURES = 2


@dataclass(frozen=True, slots=True)
class Received:
    """One POST as the merchant saw it; `status` 0 means that it was never answered."""

    merchant: str
    event_id: str
    status: int
    verified: bool


@dataclass(slots=True)
class Merchants:
    """All that the receivers know."""

    ledger: list[Received] = field(default_factory=list)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    secrets: dict[str, str] = field(default_factory=dict)
    # Bound but not listening: connections are refused, and nobody else can take the port meanwhile.
    down: socket.socket = field(default_factory=socket.socket)
    down_server: asyncio.Server | None = None

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
                    status, answer = self.receive(path.removeprefix("/"), headers, body), b'{"received": true}'
                if status == 0:
                    await reader.read()  # until the sender has had enough
                    return
                if status >= 400:
                    answer = b'{"error": "the shop is restarting"}'
                start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                writer.write(f"{start}content-length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def receive(self, merchant: str, headers: dict[str, str], body: bytes) -> int:
        """Enters a POST in the ledger; returns the status to answer, 0 for none."""
        event_id = headers.get("webhook-id", "")
        self.attempts[merchant, event_id] += 1
        attempt = self.attempts[merchant, event_id]
        if merchant == "flaky" and attempt <= FLAKY_FAILURES:
            status = 503
        elif merchant == "hanging" and attempt == 1:
            status = 0
        else:
            status = 200
        try:
            Webhook(self.secrets[merchant]).verify(body, headers)
            verified = True
        except (WebhookVerificationError, KeyError, ValueError):
            verified = False
        self.ledger.append(Received(merchant, event_id, status, verified))
        return status

    async def control(self, path: str, body: bytes) -> Any:
        """What the demo asks for."""
        match path:
            case "/control/ledger":
                return [asdict(one) for one in self.ledger]
            case "/control/secrets":
                self.secrets = json.loads(body)
            case "/control/open":
                self.down_server = await asyncio.start_server(self.serve, sock=self.down)
        return {}


async def _main() -> None:
    merchants = Merchants()
    server = await asyncio.start_server(merchants.serve, "127.0.0.1", 0)
    merchants.down.bind(("127.0.0.1", 0))
    ports = {"port": server.sockets[0].getsockname()[1], "down_port": merchants.down.getsockname()[1]}
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
