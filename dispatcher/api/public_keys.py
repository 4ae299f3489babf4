"""`/v1/public_keys` and `/.well-known/jwks.json`: what receivers verify our signatures with. For everybody to read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from dispatcher.api.context import ContextOf, Page, reply, whole
from dispatcher.api.strict import known_parameters
from dispatcher.signing import SCHEMES, public_keys
from dispatcher.signing.standard_webhooks_v1a import write_whpk
from dispatcher.store import signing_keys as store

if TYPE_CHECKING:
    from dispatcher.store.signing_keys import SigningKey

router = APIRouter(tags=["public keys"])

CACHED: Final = {"cache-control": "public, max-age=300"}
"""A new key is published a day before it signs and an old one an hour after it did, so five minutes old is fresh."""

_EXAMPLE: Final = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    "use": "sig",
    "alg": "EdDSA",
}
"""The key of RFC 8037, appendix A."""

_PEM: Final = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""

Jwk = Annotated[dict[str, str], Field(examples=[_EXAMPLE])]


class PublicKey(BaseModel):
    """A public key, in every form that receivers read."""

    id: str = Field(description="The key's thumbprint, the `kid` of its JWK.", examples=[_EXAMPLE["kid"]])
    kind: Literal["rsa", "ed25519"]
    public_key_pem: str = Field(examples=[_PEM])
    jwk: Jwk = Field(description="`alg` is that of new systems; `rsa_sha1` takes an RSA key by its PEM.")
    whpk: str | None = Field(
        description="As Standard Webhooks writes an Ed25519 key; null for RSA.",
        examples=["whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="],
    )
    schemes: list[str] = Field(
        description="The signature schemes that the key serves.", examples=[["standard_webhooks_v1a"]]
    )
    signs_from: datetime = Field(description="From when on it signs.", examples=["2026-03-02T09:00:00Z"])
    signs_until: datetime | None = Field(
        description="Until when it signs; null where no end is planned.", examples=[None]
    )
    published_until: datetime | None = Field(
        description="Until when it is listed here; null where no end is planned.", examples=[None]
    )


class Jwks(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[Jwk]


def form(key: SigningKey) -> dict[str, Any]:
    """A key as the API answers it."""
    return {
        "id": key.id,
        "kind": key.kind,
        "public_key_pem": public_keys.pem(key.public),
        "jwk": public_keys.jwk(key.public),
        "whpk": write_whpk(key.public) if key.kind == "ed25519" else None,
        "schemes": [scheme.name for scheme in SCHEMES.values() if scheme.key_kind == key.kind],
        "signs_from": key.signs_from,
        "signs_until": key.signs_until,
        "published_until": key.published_until,
    }


@router.get("/v1/public_keys", response_model=Page[PublicKey], dependencies=[Depends(known_parameters)])
async def list_(context: ContextOf) -> Response:
    """The platform's public keys, the newest first: those that sign, are about to, or did so lately.

    While a key rotates, the old and the new one are both here. Verify with any of those that serve your scheme.
    """
    found = await context.transaction(store.published)
    return reply(whole([form(key) for key in found]), headers=CACHED)


@router.get("/.well-known/jwks.json", response_model=Jwks)
async def jwks(context: ContextOf) -> Response:
    """The same keys as a JSON Web Key Set."""
    found = await context.transaction(store.published)
    return reply(public_keys.jwks(key.public for key in found), headers=CACHED)
