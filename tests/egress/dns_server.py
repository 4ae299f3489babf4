"""A name server on loopback that answers as the test says."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from dataclasses import dataclass, field
from typing import Self

_A, _AAAA = 1, 28
NXDOMAIN, SERVFAIL = 3, 2


@dataclass
class DnsServer:
    """`answers` maps a name to addresses, to an error code, or to None (silence); other names do not exist."""

    answers: dict[str, list[str] | int | None]
    ttl_s: int = 60
    delay_s: float = 0.0
    questions: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0
    _transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Protocol(self), local_addr=("127.0.0.1", self.port)
        )
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()
        await asyncio.sleep(0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def asked(self, name: str) -> int:
        """How often `name` was asked for its IPv4 addresses."""
        return self.questions.count((name, _A))


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels = []
        at = 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12 : at + 5]
        kind = struct.unpack("!H", data[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        self._server.questions.append((name, kind))
        answer = self._server.answers.get(name, NXDOMAIN)
        if answer is None:
            return
        code = answer if isinstance(answer, int) else 0
        records = b""
        count = 0
        for text in answer if isinstance(answer, list) else []:
            address = ipaddress.ip_address(text)
            if (address.version == 4) == (kind == _A):
                packed = address.packed
                records += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, self._server.ttl_s, len(packed)) + packed
                count += 1
        reply = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, count, 0, 0) + question + records
        loop = asyncio.get_running_loop()
        loop.call_later(self._server.delay_s, self._transport.sendto, reply, addr)  # type: ignore[attr-defined]
