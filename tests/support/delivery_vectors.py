"""The deliveries of tests/vectors/deliveries.json, and the keys that signed them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dispatcher.signing import SCHEMES, parse_secret, platform_keys

FOLDER: Final = Path(__file__).parents[1] / "vectors"
VECTORS: Final[dict[str, Any]] = json.loads((FOLDER / "deliveries.json").read_text())
SECRET: Final[str] = VECTORS["secret"]
TIMESTAMP: Final[int] = VECTORS["timestamp"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as it came. `genuine` says whether a receiver must take it."""

    name: str
    scheme: str
    genuine: bool
    method: str
    target: str
    headers: dict[str, str]
    body: str

    @property
    def content(self) -> str:
        """What is signed."""
        return self.target if self.method == "GET" else self.body

    @property
    def is_signed(self) -> bool:
        """Whether the signature is right: of a GET that is sent again as a POST, too, which only a receiver refuses."""
        return self.genuine or self.body.startswith("/")


DELIVERIES: Final = [Delivery(**delivery) for delivery in VECTORS["deliveries"]]


@cache
def private_key(scheme: str) -> bytes:
    """What the scheme signs with here, in the form that its `sign` takes."""
    if scheme == "standard_webhooks_v1":
        return parse_secret(SECRET).reveal()
    if scheme == "standard_webhooks_v1a":
        seed = base64.urlsafe_b64decode(VECTORS["ed25519_private_key"] + "=")
        return Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        )
    return platform_keys.import_pem((FOLDER / VECTORS["rsa_private_key"]).read_bytes()).private.reveal()


def public_key(scheme: str) -> bytes:
    """What the scheme verifies with, in the form that its `verify` takes."""
    match SCHEMES[scheme].key_kind:
        case None:
            return private_key(scheme)
        case "ed25519":
            pem = VECTORS["ed25519_public_key"]
        case "rsa":
            pem = VECTORS["rsa_public_key"]
    return base64.b64decode("".join(pem.splitlines()[1:-1]))
