"""What everybody may read of the platform's keys."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import FastAPI
from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import create_async_engine

from dispatcher.api import public_keys
from dispatcher.api.gate import Gate
from dispatcher.api.traffic import Traffic
from dispatcher.clock import SYSTEM, Clock
from dispatcher.flow import signing_keys as flow
from dispatcher.shapes import PublicKey
from dispatcher.signing import SCHEMES, Keyring
from dispatcher.store.signing_keys import SigningKey
from tests.support import walk


@pytest.fixture(autouse=True)
def no_keys(engine: Engine) -> None:
    walk.forget_signing_keys(engine)


PEM = (Path(__file__).parents[1] / "vectors/rfc9500_rsa_2048.pem").read_bytes()
KEYS = Keyring({"k1": b"k" * 32})
PATHS = ("/v1/public_keys", "/.well-known/jwks.json")


@pytest.fixture
async def api(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    engine = create_async_engine(migrated_database_url)

    async def transaction(work: Callable[[Connection], Any]) -> Any:
        async with engine.begin() as connection:
            return await connection.run_sync(work)

    app = FastAPI()
    app.state.context = SimpleNamespace(transaction=transaction, traffic=Traffic())
    app.add_middleware(Gate)
    app.include_router(public_keys.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
    await engine.dispose()


def both_kinds(engine: Engine) -> tuple[SigningKey, SigningKey]:
    with engine.begin() as connection:
        rsa = flow.import_(connection, KEYS, PEM, by="cli:test")
        return rsa, flow.generate(connection, KEYS, "ed25519", by="cli:test")


async def test_the_keys_are_for_everybody_and_may_be_cached(api: httpx.AsyncClient) -> None:
    for path in PATHS:
        answer = await api.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "public, max-age=300"
    assert (await api.get("/v1/public_keys")).json() == {"data": [], "has_more": False, "next_cursor": None}
    assert (await api.get("/.well-known/jwks.json")).json() == {"keys": []}


async def test_a_key_is_given_in_every_form_with_its_schemes(api: httpx.AsyncClient, engine: Engine) -> None:
    rsa, ed25519 = both_kinds(engine)
    found = {one["id"]: one for one in (await api.get("/v1/public_keys")).json()["data"]}
    assert set(found) == {rsa.id, ed25519.id}
    assert found[rsa.id]["schemes"] == ["rsa_sha256", "rsa_sha1"]
    assert found[ed25519.id]["schemes"] == ["standard_webhooks_v1a"]
    assert found[rsa.id]["whpk"] is None
    assert (found[rsa.id]["signs_until"], found[rsa.id]["published_until"]) == (None, None)
    assert datetime.fromisoformat(found[rsa.id]["signs_from"]) == rsa.signs_from
    for one in found.values():
        assert set(one) == set(PublicKey.__annotations__)
        TypeAdapter(PublicKey).validate_python(one)
        assert one["jwk"]["kid"] == one["id"]
        assert "PRIVATE" not in one["public_key_pem"]
        assert "d" not in one["jwk"]


async def test_a_receiver_verifies_with_what_is_published(api: httpx.AsyncClient, engine: Engine) -> None:
    rsa, ed25519 = both_kinds(engine)
    with engine.connect() as connection:
        keys = flow.PlatformKeys.load(connection, KEYS)
    at = SYSTEM.now()
    found = {one["kind"]: one for one in (await api.get("/v1/public_keys")).json()["data"]}
    jwks = {one["kid"]: one for one in (await api.get("/.well-known/jwks.json")).json()["keys"]}

    def signed(name: str) -> dict[bytes, bytes]:
        scheme = SCHEMES[name]
        keys_of = keys.signing(scheme, at)
        return dict(scheme.sign(message_id="evt_1", timestamp=int(at.timestamp()), body=b"{}", keys=keys_of))

    content = f"evt_1.{int(at.timestamp())}.{{}}".encode()
    by_pem = load_pem_public_key(found["rsa"]["public_key_pem"].encode())
    assert isinstance(by_pem, RSAPublicKey)
    by_pem.verify(base64.b64decode(signed("rsa_sha1")[b"sign"]), b"{}", PKCS1v15(), hashes.SHA1())
    by_jwk = RSAPublicNumbers(number(jwks[rsa.id]["e"]), number(jwks[rsa.id]["n"])).public_key()
    signature = base64.b64decode(signed("rsa_sha256")[b"webhook-signature-rsa"])
    by_jwk.verify(signature, content, PKCS1v15(), hashes.SHA256())
    by_whpk = Ed25519PublicKey.from_public_bytes(base64.b64decode(found["ed25519"]["whpk"].removeprefix("whpk_")))
    signature = base64.b64decode(signed("standard_webhooks_v1a")[b"webhook-signature"].removeprefix(b"v1a,"))
    by_whpk.verify(signature, content)
    assert found["ed25519"]["jwk"] == jwks[ed25519.id]


def number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def test_old_and_new_are_published_together_and_a_retired_key_is_not(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    with engine.begin() as connection:
        long_ago = Clock(now=lambda: SYSTEM.now() - timedelta(days=30))
        gone = flow.generate(connection, KEYS, "ed25519", by="x", clock=long_ago)
        lately = Clock(now=lambda: SYSTEM.now() - timedelta(days=3))
        old = flow.generate(connection, KEYS, "ed25519", by="x", signs_in=timedelta(0), clock=lately)
        new = flow.rotate(connection, KEYS, "ed25519", by="x")
    for path, place, name in (("/v1/public_keys", "data", "id"), ("/.well-known/jwks.json", "keys", "kid")):
        assert [one[name] for one in (await api.get(path)).json()[place]] == [new.id, old.id]
    with engine.begin() as connection:
        flow.retire(connection, new.id, by="x")
    for path in PATHS:
        text = (await api.get(path)).text
        assert old.id in text
        assert new.id not in text
        assert gone.id not in text


async def test_the_document_describes_both_routes(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    for path in PATHS:
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert "$ref" in schema
    for name, field in document["components"]["schemas"]["PublicKey"]["properties"].items():
        assert "examples" in field or "enum" in field, name
