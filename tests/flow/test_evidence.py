"""The commands that prove what was sent are really run: by bash, with curl, openssl and `dispatcher verify`."""

from __future__ import annotations

import asyncio
import doctest
import os
import shutil
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dispatcher.flow import evidence
from dispatcher.flow.evidence import MAX_ARGUMENT, curl, printed, signature_checks, target_of
from dispatcher.ids import uuid7
from dispatcher.signing import SCHEMES, public_keys, sign_all
from dispatcher.store.log import LoggedAttempt
from tests.support.receivers import OK, RawReceiver, play

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
BODY = b'{"n": 1}'
MESSAGE = "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e"
URL = "https://shop.example.com/webhooks"

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "openssl", "base64"))), reason="bash, curl and openssl are needed"
)


def attempt(
    headers: list[tuple[bytes, bytes]], *, method: str = "POST", url: str = URL, content: bytes = BODY
) -> LoggedAttempt:
    values: dict[str, Any] = dict.fromkeys(LoggedAttempt.__dataclass_fields__)
    values |= {
        "id": uuid7(),
        "started_at": AT,
        "method": method,
        "url": url,
        "request_headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers],
        "body_sha256": sha256(content).digest(),
    }
    return LoggedAttempt(**values)


ROOT = Path(__file__).parents[2]
"""Where `dispatcher` is imported from: the installed one may be of another checkout."""


async def bash(command: str, folder: Path, **env: str) -> tuple[int, bytes]:
    """Runs a command; its exit code and what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "--norc",
        "-s",
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), **env},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(command.encode() + b"\n")
    return process.returncode or 0, said


HOSTILE = {
    "plain": BODY,
    "quotes": b"""{"it's": "\\"$(id)` !! \\\\"}""",
    "a file's name": b"@/etc/passwd",
    "newlines": b"\n[1,\n2]\n\n",
    "NUL and no UTF-8": b"\0\xff\r\n",
    "what steers a terminal": b'"\x1b[2J\t\xe2\x80\xae"',
    "a dash": b"-n",
    "of 256 KiB": b'"' + b"a" * 262_142 + b'"',
    "as long as an argument may be": b'"' + b"'" * (MAX_ARGUMENT - 2) + b'"',
}


@needs_tools
@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in HOSTILE.items()])
async def test_curl_sends_the_same_request_again(body: bytes, tmp_path: Path) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"user-agent", b"dispatcher/1"),
        (b"webhook-id", MESSAGE.encode()),
        (b"x-empty", b""),
        (b"x-quote", b"it's $(id)"),
        (b"authorization", b"***"),
    ]
    async with RawReceiver(play(OK)) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/a/../b?c[]={{1,2}}&d=%C3%A9"
        command = curl(attempt(headers, url=url, content=body), body)
        code, said = await bash(command, tmp_path)
    assert code == 0, said
    assert b"200 OK" in said
    assert all(one.isprintable() for one in command.replace("\n", "")), "it can be copied from a terminal"
    (request,) = receiver.requests
    assert request.body == body
    lines = request.head.decode().split("\r\n")
    assert lines[0] == "POST /a/../b?c[]={1,2}&d=%C3%A9 HTTP/1.1"
    sent = sorted(line.lower() for line in lines[1:] if line)
    wanted = [f"{name.decode()}: {value.decode()}".strip().lower() for name, value in headers]
    framing = [f"host: 127.0.0.1:{receiver.port}", f"content-length: {len(body)}"]
    assert [line.strip() for line in sent] == sorted([*wanted, *framing])


@needs_tools
async def test_a_get_is_repeated_without_a_body(tmp_path: Path) -> None:
    async with RawReceiver(play(OK)) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/paid?id={MESSAGE}"
        code, said = await bash(curl(attempt([(b"webhook-id", b"1")], method="GET", url=url), b""), tmp_path)
    assert code == 0, said
    assert receiver.requests[0].head.startswith(b"GET /paid?id=evt_")
    assert b"content-length" not in receiver.requests[0].head.lower()


@needs_tools
@pytest.mark.parametrize("content", [pytest.param(body, id=name) for name, body in HOSTILE.items()])
async def test_what_is_printed_is_these_bytes(content: bytes, tmp_path: Path) -> None:
    assert await bash(printed(content), tmp_path) == (0, content)


CASES = [
    *((name, 1, "POST") for name in SCHEMES),
    ("standard_webhooks_v1", 1, "GET"),
    ("standard_webhooks_v1", 2, "POST"),
    ("rsa_sha256", 2, "POST"),
]


@needs_tools
@pytest.mark.parametrize(("name", "keys", "method"), CASES)
async def test_a_signature_is_checked_by_both_commands(name: str, keys: int, method: str, tmp_path: Path) -> None:
    scheme = SCHEMES[name]
    pairs = [scheme.generate_keys() for _ in range(keys)]
    url = f"{URL}?id={MESSAGE}"
    content = target_of(url) if method == "GET" else b'{"it\'s": "\\u00e9\xc3\xa9"}'
    at_s = int(AT.timestamp())
    headers = scheme.sign(message_id=MESSAGE, timestamp=at_s, body=content, keys=[key for key, _ in pairs])
    sent = attempt(headers, method=method, url=url, content=content)
    (check,) = signature_checks(sent, content, renamed={})
    assert (check.scheme, check.header) == (name, scheme.header_names[-1])
    assert check.command is not None
    assert check.verify is not None
    env = given(tmp_path, name, pairs[-1][1])
    code, said = await bash(check.command, tmp_path, **env)
    assert code == 0 or keys == 2, said
    assert any(word in said for word in (b"genuine\n", b"Verified OK", b"Verified Successfully")), said
    assert b"not genuine" not in said
    code, said = await bash(check.verify, tmp_path, **env)
    assert (code, said.startswith(b"valid: ")) == (0, True), said
    env = given(tmp_path, name, scheme.generate_keys()[1])
    _, said = await bash(check.command, tmp_path, **env)
    assert not any(word in said for word in (b"Verified OK", b"Verified Successfully"))
    assert said != b"genuine\n"


def given(folder: Path, name: str, key: bytes) -> dict[str, str]:
    """What the commands say they need."""
    if SCHEMES[name].key_owner == "endpoint":
        return {"WEBHOOK_SECRET": f"whsec_{b64encode(key).decode()}"}
    (folder / "public.pem").write_text(public_keys.pem(key))
    return {}


def test_two_schemes_in_one_header_are_two_checks_under_the_names_that_were_sent() -> None:
    schemes = [SCHEMES["standard_webhooks_v1"], SCHEMES["standard_webhooks_v1a"]]
    signed = sign_all(
        [(scheme, [scheme.generate_keys()[0]]) for scheme in schemes],
        message_id=MESSAGE,
        timestamp=int((AT + timedelta(seconds=1)).timestamp()),
        body=BODY,
    )
    renamed = {"webhook-signature": "X-Shop-Signature"}
    sent = attempt([(renamed.get(name.decode(), name.decode()).encode(), value) for name, value in signed])
    found = signature_checks(sent, BODY, renamed=renamed)
    assert [(one.scheme, one.header) for one in found] == [(one.name, "X-Shop-Signature") for one in schemes]
    assert all("--header 'webhook-signature: " in (one.verify or "") for one in found)
    assert found[0].signed == f"{MESSAGE}.{int(AT.timestamp()) + 1}.<body>"


def test_what_is_gone_is_checked_no_more_and_what_is_masked_is_no_signature() -> None:
    scheme = SCHEMES["rsa_sha1"]
    headers = scheme.sign(message_id=MESSAGE, timestamp=1, body=BODY, keys=[scheme.generate_keys()[0]])
    (check,) = signature_checks(attempt(headers), None, renamed={})
    assert (check.command, check.verify, check.signed) == (None, None, "<body>")
    assert signature_checks(attempt([(b"sign", b"***")]), BODY, renamed={}) == []
    assert signature_checks(attempt([(b"webhook-id", b"1")]), BODY, renamed={}) == []


def test_the_examples_are_true() -> None:
    assert doctest.testmod(evidence).failed == 0
