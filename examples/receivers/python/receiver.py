"""A receiver of webhooks for Python 3.11 or later, with the standard library only.

    $ WEBHOOK_SECRET=whsec_… python receiver.py

docs/receivers.md has the variables that it reads. `verify` needs the body and the target as they came. Frameworks have
them, too, but other attributes look alike and hold other bytes:

    Flask    request.get_data(), never request.json; request.environ["RAW_URI"], never request.url
    Django   request.body, never request.POST; request.META["RAW_URI"], never request.get_full_path()
    FastAPI  await request.body(), never a model; scope["raw_path"] and, after a ?, scope["query_string"] of the request

RAW_URI is what gunicorn and Flask's own server have; uWSGI and mod_wsgi call it REQUEST_URI.
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

# The header with the signature, what a signature begins with, the hash, and whether id and time are signed.
SCHEMES = {
    "standard_webhooks_v1": ("webhook-signature", "v1,", "sha256", True),
    "rsa_sha256": ("webhook-signature-rsa", "", "sha256", True),
    "rsa_sha1": ("sign", "", "sha1", False),
}
SCHEME = os.environ.get("WEBHOOK_SCHEME", "standard_webhooks_v1")
HEADER, PREFIX, HASH, IS_DATED = SCHEMES[SCHEME]
TOLERANCE_S = int(os.environ.get("WEBHOOK_TOLERANCE_S", "300"))
MODE = os.environ.get("WEBHOOK_MODE", "live")
CHECKOUT_ID = os.environ.get("CHECKOUT_ID")
LOGIN = os.environ.get("WEBHOOK_LOGIN")
TYPES = {"payment.completed", "payment.failed", "refund.completed", "order.updated"}
MAX_BYTES = 1_000_000

# What stands before the hash in an RSA signature: RFC 8017, section 9.2, note 1.
HASH_NAMES = {"sha1": "3021300906052b0e03021a05000414", "sha256": "3031300d060960864801650304020105000420"}


def read_secrets() -> list[bytes]:
    secrets = [base64.b64decode(text.removeprefix("whsec_")) for text in os.environ.get("WEBHOOK_SECRET", "").split()]
    if not secrets or min(map(len, secrets)) < 24:
        raise SystemExit("WEBHOOK_SECRET is not the whsec_… that the registration answered")
    return secrets


def read_rsa_keys() -> list[tuple[int, int]]:
    """Modulus and exponent of each RSA key of the file, which has the form of /.well-known/jwks.json."""
    keys = json.loads(Path(os.environ["WEBHOOK_PUBLIC_KEYS"]).read_text())["keys"]
    n_and_e = [(key["n"], key["e"]) for key in keys if key["kty"] == "RSA"]
    return [(integer(n), integer(e)) for n, e in n_and_e]


def integer(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


SECRETS = read_secrets() if SCHEME == "standard_webhooks_v1" else []
RSA_KEYS = [] if SECRETS else read_rsa_keys()


def verify(headers: dict[str, str], content: bytes) -> str:
    """The id by which the delivery is remembered. Raises LookupError or ValueError unless it is genuine."""
    event_id, signed = hashlib.sha256(content).hexdigest(), content
    if IS_DATED:
        event_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        if abs(time.time() - int(timestamp)) > TOLERANCE_S:
            raise ValueError("too old, or from the future")
        signed = f"{event_id}.{timestamp}.".encode() + content
    for signature in headers[HEADER].split(" "):
        if signature.startswith(PREFIX) and is_signature(base64.b64decode(signature[len(PREFIX) :]), signed):
            return event_id
    raise ValueError("not signed by a known key")


def is_signature(signature: bytes, signed: bytes) -> bool:
    if SECRETS:
        return any(hmac.compare_digest(hmac.digest(secret, signed, HASH), signature) for secret in SECRETS)
    return any(is_rsa_signature(signature, signed, n, e) for n, e in RSA_KEYS)


def is_rsa_signature(signature: bytes, signed: bytes, n: int, e: int) -> bool:
    size = (n.bit_length() + 7) // 8
    ending = bytes.fromhex(HASH_NAMES[HASH]) + hashlib.new(HASH, signed).digest()
    expected = b"\x00\x01" + b"\xff" * (size - len(ending) - 3) + b"\x00" + ending
    return len(signature) == size and pow(int.from_bytes(signature, "big"), e, n) == int.from_bytes(expected, "big")


def event_of(content: bytes) -> dict[str, Any]:
    """The content of a GET is its path and query, which begin with a slash; JSON never does."""
    if content.startswith(b"/"):
        return dict(parse_qsl(content.decode().partition("?")[2], keep_blank_values=True))
    return dict(json.loads(content))


def work(event_id: str, event: dict[str, Any]) -> None:
    """Yours: it may take its time, and must bear to be run again after a crash."""
    if is_wanted(event):
        print("processed", event_id, flush=True)


def is_wanted(event: dict[str, Any]) -> bool:
    metadata = (event["data"] if isinstance(event.get("data"), dict) else {}).get("metadata") or {}
    ours = CHECKOUT_ID is None or metadata.get("checkoutId") == CHECKOUT_ID
    return event["type"] in TYPES and event.get("mode", MODE) == MODE and ours  # a GET does not say its mode


inbox = sqlite3.connect("inbox.db", check_same_thread=False, isolation_level=None)
inbox.execute("CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, content BLOB, done INTEGER DEFAULT 0)")
turn, arrived = threading.Lock(), threading.Event()


def remember(event_id: str, content: bytes) -> None:
    with turn:  # the id is the primary key: what came before is ignored
        inbox.execute("INSERT OR IGNORE INTO inbox (id, content) VALUES (?, ?)", (event_id, content))
    arrived.set()


def work_off() -> None:
    while True:
        arrived.clear()
        with turn:
            waiting = inbox.execute("SELECT id, content FROM inbox WHERE NOT done ORDER BY rowid").fetchall()
        for event_id, content in waiting:
            try:
                work(event_id, event_of(content))
                with turn:
                    inbox.execute("UPDATE inbox SET done = 1 WHERE id = ?", (event_id,))
            except Exception:
                traceback.print_exc()  # it stays in the inbox
        arrived.wait()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20  # s, for a peer that stops talking

    def do_GET(self) -> None:
        self.receive(self.requestline.split(" ")[1].encode("latin-1"))

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BYTES:
            self.close_connection = True
            return self.answer(413)
        return self.receive(self.rfile.read(int(length)))

    def receive(self, content: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            if self.command == "POST" and content.startswith(b"/"):
                raise ValueError("a GET that was sent again as a POST")
            if HEADER not in headers and event_of(content)["type"] == "endpoint.ping":
                return self.answer(200)
            login = b"Basic " + base64.b64encode((LOGIN or "").encode())
            if LOGIN and not hmac.compare_digest(headers.get("authorization", "").encode(), login):
                return self.answer(401)
            remember(verify(headers, content), content)
        except (LookupError, TypeError, ValueError) as error:
            print("refused", repr(error), flush=True)
            return self.answer(400)
        return self.answer(200)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Receiver)
    print(f"listening on port {server.server_port}", flush=True)
    threading.Thread(target=work_off, daemon=True).start()
    server.serve_forever()
