"""Verifiers that are not ours, by the scheme that they judge.

A scheme of ours passes only if every judge of it accepts what we sign and refuses what was tampered with. A judge gets
the key that verifies; of a platform's key it sees only the text that is published, PEM, JWK or `whpk_`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import standardwebhooks
import svix
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dispatcher.signing import public_keys
from dispatcher.signing.standard_webhooks_v1a import write_whpk

Judge = Callable[[bytes, Mapping[str, str], bytes], None]
"""Raises unless the key signed the body under these headers, now."""


def by_standardwebhooks(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    standardwebhooks.Webhook(secret).verify(body, dict(headers), json_parse=False)


def by_svix(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    svix.Webhook("whsec_" + base64.b64encode(key).decode()).verify(body, dict(headers))


def by_hand(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    """The specification's one line over another HMAC: the two libraries above share code, and take UTF-8 only."""
    judge = hmac.HMAC(key, hashes.SHA256())
    judge.update(dated(headers, body))
    expected = "v1," + base64.b64encode(judge.finalize()).decode()
    if expected not in headers["webhook-signature"].split(" "):
        raise ValueError("no match")


def dated(headers: Mapping[str, str], body: bytes) -> bytes:
    return headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body


def v1a(headers: Mapping[str, str]) -> list[bytes]:
    parts = (part.partition(",") for part in headers["webhook-signature"].split(" "))
    return [base64.b64decode(text, validate=True) for version, _, text in parts if version == "v1a"]


def by_whpk(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    text = write_whpk(key)
    assert text.startswith("whpk_")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix("whpk_"), validate=True))
    for signature in v1a(headers):
        try:
            return public.verify(signature, dated(headers, body))
        except InvalidSignature:
            continue
    raise ValueError("no match")


@cache
def openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("no openssl on this machine")
    version = subprocess.run([found, "version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("OpenSSL 3"):
        pytest.skip(f"openssl is {version.strip()}, which does not verify Ed25519 from the command line")
    return found


def openssl_verifies(arguments: list[str], key: bytes, signatures: list[bytes], content: bytes) -> None:
    program = openssl()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "key.pem").write_text(public_keys.pem(key))
        (place / "content").write_bytes(content)
        for signature in signatures:
            (place / "signature").write_bytes(signature)
            judged = subprocess.run([program, *arguments], cwd=place, capture_output=True, check=False)
            if judged.returncode == 0:
                return
    raise ValueError("no match")


@cache
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on this machine")
    return found


NODE_SCRIPT: Final = """
const { createPublicKey, verify } = require("node:crypto");
const { algorithm, jwk, content, signatures } = JSON.parse(require("node:fs").readFileSync(0));
const key = createPublicKey({ key: jwk, format: "jwk" });
const decoded = (text) => Buffer.from(text, "base64");
process.exit(signatures.some((one) => verify(algorithm, decoded(content), key, decoded(one))) ? 0 : 3);
"""


def node_verifies(algorithm: str | None, key: bytes, signatures: list[bytes], content: bytes) -> None:
    given = {
        "algorithm": algorithm,
        "jwk": public_keys.jwk(key),
        "content": base64.b64encode(content).decode(),
        "signatures": [base64.b64encode(one).decode() for one in signatures],
    }
    judged = subprocess.run(
        [node(), "-e", NODE_SCRIPT], input=json.dumps(given).encode(), capture_output=True, check=False
    )
    assert judged.returncode in {0, 3}, judged.stderr.decode()
    if judged.returncode == 3:
        raise ValueError("no match")


ED25519 = ["pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "content", "-sigfile", "signature"]


def v1a_by_openssl(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    openssl_verifies(ED25519, key, v1a(headers), dated(headers, body))


def v1a_by_node(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    node_verifies(None, key, v1a(headers), dated(headers, body))


def rsa_by_arithmetic(key: bytes, algorithm: str, prefix: str, signatures: list[bytes], content: bytes) -> None:
    """RFC 8017 section 8.2.2 by the numbers of the JWK: the public half of RSA is one power."""
    jwk = public_keys.jwk(key)
    n, e = (int.from_bytes(base64.urlsafe_b64decode(jwk[name] + "==")) for name in ("n", "e"))
    size = (n.bit_length() + 7) // 8
    info = bytes.fromhex(prefix) + hashlib.new(algorithm, content).digest()
    padded = b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info
    for signature in signatures:
        if len(signature) == size and pow(int.from_bytes(signature), e, n) == int.from_bytes(padded):
            return
    raise ValueError("no match")


def plain(headers: Mapping[str, str], name: str) -> list[bytes]:
    return [base64.b64decode(part, validate=True) for part in headers[name].split(" ")]


# The DER in front of the digest, RFC 8017 section 9.2, note 1.
SHA1_INFO, SHA256_INFO = "3021300906052b0e03021a05000414", "3031300d060960864801650304020105000420"


def sha1_by_arithmetic(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    rsa_by_arithmetic(key, "sha1", SHA1_INFO, plain(headers, "sign"), body)


def sha1_by_openssl(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    dgst = ["dgst", "-sha1", "-verify", "key.pem", "-signature", "signature", "content"]
    openssl_verifies(dgst, key, plain(headers, "sign"), body)


def sha1_by_node(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    node_verifies("RSA-SHA1", key, plain(headers, "sign"), body)


def sha256_by_arithmetic(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    signatures = plain(headers, "webhook-signature-rsa")
    rsa_by_arithmetic(key, "sha256", SHA256_INFO, signatures, dated(headers, body))


def sha256_by_openssl(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    dgst = ["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "content"]
    openssl_verifies(dgst, key, plain(headers, "webhook-signature-rsa"), dated(headers, body))


def sha256_by_node(key: bytes, headers: Mapping[str, str], body: bytes) -> None:
    node_verifies("RSA-SHA256", key, plain(headers, "webhook-signature-rsa"), dated(headers, body))


JUDGES: Final[Mapping[str, tuple[Judge, ...]]] = {
    "standard_webhooks_v1": (by_standardwebhooks, by_svix, by_hand),
    "standard_webhooks_v1a": (by_whpk, v1a_by_openssl, v1a_by_node),
    "rsa_sha256": (sha256_by_arithmetic, sha256_by_openssl, sha256_by_node),
    "rsa_sha1": (sha1_by_arithmetic, sha1_by_openssl, sha1_by_node),
}

TAKES_TEXT_ONLY: Final = (by_standardwebhooks, by_svix)

STARTS_A_PROCESS: Final = (
    v1a_by_openssl,
    v1a_by_node,
    sha1_by_openssl,
    sha1_by_node,
    sha256_by_openssl,
    sha256_by_node,
)
"""Slow: a body or two, not hundreds."""
