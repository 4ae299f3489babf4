"""Signatures of what is sent, one file a scheme, and the secrets behind them. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dispatcher.signing import rsa_sha1, rsa_sha256, standard_webhooks_v1, standard_webhooks_v1a
from dispatcher.signing.scheme import RawHeaders, Scheme, VerificationError, sign_all
from dispatcher.signing.secrets import Keyring, SealError, Secret, generate_secret, parse_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            standard_webhooks_v1.SCHEME,
            standard_webhooks_v1a.SCHEME,
            rsa_sha256.SCHEME,
            rsa_sha1.SCHEME,
            # A new scheme: its file, and a line here.
        )
    }
)
"""Every scheme by the name that profiles use."""

__all__ = [
    "SCHEMES",
    "Keyring",
    "RawHeaders",
    "Scheme",
    "SealError",
    "Secret",
    "VerificationError",
    "generate_secret",
    "parse_secret",
    "sign_all",
]
