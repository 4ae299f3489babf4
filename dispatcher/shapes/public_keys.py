"""Public keys: what receivers verify signatures with."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import Instant, Paged

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

Jwk = Annotated[dict[str, str], About(example=_EXAMPLE)]


class PublicKey(TypedDict):
    """A public key, in every form that receivers read."""

    id: Annotated[str, About("The key's thumbprint, the `kid` of its JWK.", _EXAMPLE["kid"])]
    kind: Literal["rsa", "ed25519"]
    public_key_pem: Annotated[
        str,
        About(example=_PEM),
    ]
    jwk: Annotated[Jwk, About("`alg` is that of new systems; `rsa_sha1` takes an RSA key by its PEM.")]
    whpk: Annotated[
        str | None,
        About(
            "The key in the form of Standard Webhooks, for Ed25519; null for RSA.",
            "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        ),
    ]
    schemes: Annotated[list[str], About("The signature schemes that the key serves.", ["standard_webhooks_v1a"])]
    signs_from: Annotated[Instant, About("From when on the key signs.", "2026-03-02T09:00:00Z")]
    signs_until: Annotated[Instant | None, About("Until when the key signs; null if no end is planned.", None)]
    published_until: Annotated[
        Instant | None, About("Until when the key is listed here; null if no end is planned.", None)
    ]


class Jwks(TypedDict):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[Jwk]


class PublicKeyPage(Paged):
    """All keys that receivers may need."""

    data: list[PublicKey]
