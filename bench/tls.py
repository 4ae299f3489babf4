"""The walk over TLS: connections that are kept, a new one for each delivery, and what one in flight takes of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.bare import cpu_us_per_post
from bench.generator import payload
from bench.receiver import Receiver
from bench.site import Bench, Figures, Site, drained, site
from bench.walk import held
from tests.support.tls import Authority


@dataclass(frozen=True, slots=True)
class _Trust:
    certificate: Path
    authority: Path

    @property
    def env(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.authority)}


@contextmanager
def _trust() -> Iterator[_Trust]:
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as folder:
        Path(folder).chmod(0o755)
        authority = Authority.create(Path(folder))
        yield _Trust(authority.issue("127.0.0.1"), authority.certificate_file())


@contextmanager
def _secure_site(bench: Bench, kind: str, trust: _Trust, endpoints: int) -> Iterator[Site]:
    def urls(receiver: Receiver) -> list[str]:
        return [receiver.url(kind, n) for n in range(endpoints)]

    with site(bench, urls, certificate=trust.certificate, env=trust.env) as made:
        yield made


def _bare(bench: Bench, kind: str, trust: _Trust) -> float:
    """Before and after, since a tenth more or less of a handshake is more than what is measured."""
    body = orjson.dumps(payload(bench.options.payload_bytes))
    with Receiver(trust.certificate) as receiver:
        bare_us, _ = cpu_us_per_post(
            "aiohttp", receiver.url(kind, 1), body, bench.options.tls_posts, authority=trust.authority
        )
    return bare_us


def _over(kind: str, events: Callable[[Bench], int]) -> Callable[[Bench], Figures]:
    def run(bench: Bench) -> Figures:
        with _trust() as trust:
            before_us = _bare(bench, kind, trust)
            with _secure_site(bench, kind, trust, bench.options.endpoints) as made:
                figures = drained(bench, made, events(bench))
            bare_us = (before_us + _bare(bench, kind, trust)) / 2
        figures["bare_cpu_us_per_post"] = bare_us
        if "cpu_us_per_delivery" in figures:
            figures["overhead_us"] = figures["cpu_us_per_delivery"] - bare_us
        return figures

    return run


tls_keepalive = _over("ok", lambda bench: bench.options.tls_keepalive)
tls_new = _over("close", lambda bench: bench.options.tls_new)


def slow100ms_tls(bench: Bench) -> Figures:
    """As slow100ms, over TLS: the memory of a delivery in flight is its connection's for the most part."""
    options = bench.options
    with _trust() as trust, _secure_site(bench, "slow", trust, options.slow_endpoints) as made:
        memory = held(bench, made)
        return drained(bench, made, options.slow) | memory
