"""One attempt, as a value."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

import httpx

from dispatcher import telemetry
from dispatcher.egress.answer import Answer
from dispatcher.egress.failures import AttemptFailure, InvalidRequest
from dispatcher.egress.outcome import classify
from dispatcher.egress.request import check_headers
from dispatcher.egress.transport import BODY_BYTES, DEADLINE_S, PinnedTransport
from dispatcher.model.outcome import BodyEnd, Outcome, OutcomeClass, Phase
from dispatcher.model.retry_after import parse_retry_after

if TYPE_CHECKING:
    from dispatcher.clock import Clock
    from dispatcher.egress.outcome import SuccessRule
    from dispatcher.model.outcome import Timings

_log = logging.getLogger(__name__)
_OUR_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


async def send(
    transport: httpx.AsyncBaseTransport,
    request: httpx.Request,
    *,
    success: SuccessRule,
    clock: Clock,
    deadline_s: float = DEADLINE_S,
    body_bytes: int = BODY_BYTES,
) -> Outcome:
    """Make one attempt over `transport` and return what came of it.

    Never raises for anything that the receiver, the network or the configuration does; only being cancelled gets
    through. `deadline_s` bounds the whole attempt, in seconds from the start of the dial; `body_bytes` is what is
    kept of the answer's body. A transport that is not ours gets its deadline from an `asyncio.timeout`.
    """
    started = clock.monotonic()
    try:
        if isinstance(transport, PinnedTransport):
            answer = await transport.exchange(request, deadline_s=deadline_s, body_bytes=body_bytes)
        else:
            answer = await _exchange(transport, request, deadline_s, body_bytes)
    except AttemptFailure as failure:
        return _failed(
            failure.kind,
            str(failure),
            (clock.monotonic() - started) * 1_000,
            phase=failure.phase,
            known=failure.known,
            peer_ip=failure.peer_ip,
            timings_ms=failure.timings_ms,
        )
    except Exception as error:  # noqa: BLE001 - the edge of an attempt: one bug must not take the batch with it
        duration_ms = (clock.monotonic() - started) * 1_000
        kind, phase, known = _foreign(error)
        if kind is OutcomeClass.INTERNAL:
            telemetry.log(_log, logging.ERROR, "attempt.failed_internally", exc_info=error)
        return _failed(kind, f"{type(error).__name__}: {error}", duration_ms, phase=phase, known=known)
    return _answered(answer, success, clock, started)


def _answered(answer: Answer, success: SuccessRule, clock: Clock, started: float) -> Outcome:
    headers = []
    retry_after: str | None = None
    for raw_name, raw_value in answer.headers:
        name = raw_name.decode("latin-1")
        value = raw_value.decode("latin-1")
        headers.append((name, value))
        if retry_after is None and len(name) == 11 and name.lower() == "retry-after":
            retry_after = value
    # Positional: this runs for every attempt, and a frozen dataclass is slow enough as it is.
    return Outcome(
        classify(answer.status, has_retry_after=retry_after is not None, success=success),
        Phase.BODY,
        True,
        answer.status,
        tuple(headers),
        answer.body,
        answer.body_end,
        answer.error,
        answer.peer_ip,
        (clock.monotonic() - started) * 1_000,
        None if retry_after is None else parse_retry_after(retry_after, clock.now()),
        (answer.dns_ms, answer.connect_ms, answer.tls_ms, answer.ttfb_ms),
    )


def _failed(
    kind: OutcomeClass,
    error: str,
    duration_ms: float,
    *,
    phase: Phase | None,
    known: bool,
    peer_ip: str | None = None,
    timings_ms: Timings | None = None,
) -> Outcome:
    return Outcome(
        kind=kind,
        phase=phase,
        known=known,
        error=error[:500],
        peer_ip=peer_ip,
        duration_ms=duration_ms,
        timings_ms=timings_ms,
    )


async def _exchange(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, deadline_s: float, body_bytes: int
) -> Answer:
    """Do over a foreign transport what PinnedTransport.exchange does; raises whatever the transport raises."""
    check_headers(request)
    body = bytearray()
    end, error = BodyEnd.COMPLETE, None
    response: httpx.Response | None = None
    try:
        async with asyncio.timeout(deadline_s):
            response = await transport.handle_async_request(request)
            async for chunk in response.stream:  # type: ignore[union-attr]
                body += chunk[: body_bytes + 1 - len(body)]
                if len(body) > body_bytes:
                    end, error = BodyEnd.CAPPED, f"the body is longer than {body_bytes} bytes"
                    break
    except TimeoutError:
        if response is None:
            raise
        end, error = BodyEnd.DEADLINE, "the body did not end in time"
    except httpx.HTTPError as failure:
        if response is None:
            raise
        end, error = BodyEnd.INCOMPLETE, f"the body was lost: {type(failure).__name__}"
    finally:
        if response is not None:
            await response.aclose()
    return Answer(
        status=response.status_code,
        headers=response.headers.raw,
        body=bytes(body[:body_bytes]),
        body_end=end,
        error=error,
        peer_ip=response.extensions.get("peer_ip"),
    )


def _foreign(error: Exception) -> tuple[OutcomeClass, Phase | None, bool]:
    """Name an exception that is not ours: its class, its phase, and whether surely nothing was sent."""
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return OutcomeClass.CONNECT, Phase.CONNECT, True
        case httpx.WriteTimeout():
            return OutcomeClass.DEADLINE, Phase.WRITE, False
        case httpx.ReadTimeout() | TimeoutError():
            return OutcomeClass.DEADLINE, Phase.HEADERS, False
        case httpx.RemoteProtocolError() if "disconnected" in str(error).lower():
            return OutcomeClass.CLOSED, Phase.HEADERS, False
        case httpx.RemoteProtocolError():
            return OutcomeClass.PROTOCOL, Phase.HEADERS, True
        case httpx.WriteError():
            return OutcomeClass.RESET, Phase.WRITE, False
        case httpx.NetworkError():
            return OutcomeClass.RESET, Phase.HEADERS, False
        case InvalidRequest() | httpx.LocalProtocolError() | httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return OutcomeClass.INVALID_CONFIG, None, True
        case UnicodeError():
            return OutcomeClass.INVALID_CONFIG, None, True
        case OSError() if error.errno in _OUR_ERRORS:
            return OutcomeClass.INTERNAL, None, True
    return OutcomeClass.INTERNAL, None, False
