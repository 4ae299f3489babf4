"""Verifiers that are not ours, by the scheme that they judge.

A scheme of ours passes only if every judge of it accepts what we sign and refuses what was tampered with.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final

import standardwebhooks
import svix
from cryptography.hazmat.primitives import hashes, hmac

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
    judge.update(headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body)
    expected = "v1," + base64.b64encode(judge.finalize()).decode()
    if expected not in headers["webhook-signature"].split(" "):
        raise ValueError("no match")


JUDGES: Final[Mapping[str, tuple[Judge, ...]]] = {
    "standard_webhooks_v1": (by_standardwebhooks, by_svix, by_hand),
}

TAKES_TEXT_ONLY: Final = (by_standardwebhooks, by_svix)
