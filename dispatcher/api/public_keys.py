"""`/v1/public_keys` and `/.well-known/jwks.json`: what receivers verify our signatures with. For everybody to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Depends, Response

from dispatcher.api.context import ContextOf, reply
from dispatcher.api.paging import whole
from dispatcher.api.strict import known_parameters
from dispatcher.shapes import Jwks, PublicKey, PublicKeyPage
from dispatcher.shapes.values import instant, instant_or_none
from dispatcher.signing import SCHEMES, public_keys
from dispatcher.signing.standard_webhooks_v1a import write_whpk
from dispatcher.store import signing_keys as store

if TYPE_CHECKING:
    from dispatcher.store.signing_keys import SigningKey

router = APIRouter(tags=["public keys"])

CACHED: Final = {"cache-control": "public, max-age=300"}
"""A new key is published a day before it signs and an old one an hour after it did, so five minutes old is fresh."""


def form(key: SigningKey) -> PublicKey:
    """A key as the API answers it."""
    return {
        "id": key.id,
        "kind": key.kind,
        "public_key_pem": public_keys.pem(key.public),
        "jwk": public_keys.jwk(key.public),
        "whpk": write_whpk(key.public) if key.kind == "ed25519" else None,
        "schemes": [scheme.name for scheme in SCHEMES.values() if scheme.key_kind == key.kind],
        "signs_from": instant(key.signs_from),
        "signs_until": instant_or_none(key.signs_until),
        "published_until": instant_or_none(key.published_until),
    }


@router.get("/v1/public_keys", response_model=PublicKeyPage, dependencies=[Depends(known_parameters)])
async def list_(context: ContextOf) -> Response:
    """List the platform's public keys, the newest first: those that sign, will soon, or did recently.

    While a key rotates, the old and the new one are both here. Verify with any of those that serve your scheme.
    """
    found = await context.transaction(store.published)
    return reply(whole([form(key) for key in found]), headers=CACHED)


@router.get("/.well-known/jwks.json", response_model=Jwks)
async def jwks(context: ContextOf) -> Response:
    """Get the public keys as a JSON Web Key Set."""
    found = await context.transaction(store.published)
    return reply(public_keys.jwks(key.public for key in found), headers=CACHED)
