"""What a signature scheme is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

from dispatcher.errors import DispatcherError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RawHeaders = list[tuple[bytes, bytes]]
"""(name in lower case, value) pairs as they go on the wire."""

TOLERANCE_S: Final = 300
"""How far a timestamp may be from the verifier's clock; what the libraries of Standard Webhooks use."""

KeyKind = Literal["rsa", "ed25519"]
"""What a key of the platform can be."""

Flaw = Literal["missing_header", "malformed_header", "too_old", "too_new", "no_match"]


class VerificationError(DispatcherError):
    """A signature does not verify. `flaw` says why, in a word; `str()` in a sentence."""

    code = "VERIFICATION"

    def __init__(self, flaw: Flaw, text: str) -> None:
        self.flaw = flaw
        super().__init__(text)


class Scheme(Protocol):
    """One way to sign a message.

    To add one, write a file beside this one that ends in `SCHEME: Final[Scheme] = …`, and list it in `SCHEMES` in
    `__init__`: the conformance suite then runs on it, and profiles may name it. Nothing else knows the schemes.

    A key is bytes, in the form that the scheme's file documents: an endpoint's secret is its own bytes; a platform's
    private key is PKCS #8 and its public one, which `verify` takes, SubjectPublicKeyInfo, both in DER.
    `dispatcher.signing.loaded_keys` keeps them loaded.
    """

    @property
    def name(self) -> str:
        """What profiles say."""
        ...

    @property
    def header_names(self) -> tuple[str, ...]:
        """The headers that it adds, in lower case."""
        ...

    @property
    def key_owner(self) -> Literal["endpoint", "platform"]:
        """Whose keys `sign` gets: the endpoint's own secrets, or the platform's private keys."""
        ...

    @property
    def key_kind(self) -> KeyKind | None:
        """Which of the platform's keys it takes; None for a scheme of endpoints' own secrets."""
        ...

    @property
    def signs_with_every_key(self) -> bool:
        """Whether all keys sign while one rotates; if not, the newest alone does, which receivers must have by then."""
        ...

    @property
    def prefix(self) -> str:
        """The beginning of each of its signatures in the last of `header_names`, such as `v1,`; empty if none."""
        ...

    @property
    def encoding(self) -> Literal["base64", "hex"]:
        """How the rest of a signature is written; base64 where the keys are the platform's."""
        ...

    @property
    def digest(self) -> str | None:
        """The hash that it uses, as openssl names it; None for Ed25519, which has its own."""
        ...

    def generate_keys(self) -> tuple[bytes, bytes]:
        """A new pair: what signs, and what verifies (the same bytes where the scheme is symmetric)."""
        ...

    def sign(self, *, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> RawHeaders:
        """The headers that sign `body`, by every one of `keys`, the newest first, or by that one alone.

        `timestamp` is in seconds since 1970. Raises ValueError without keys, for a key of another scheme, or
        for an id that cannot be signed.
        """
        ...

    def verify(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        keys: Sequence[bytes],
        now: int,
        tolerance_s: int = TOLERANCE_S,
    ) -> None:
        """Raise VerificationError unless one of `keys` signed this. Header names in any case."""
        ...


def sign_all(
    signers: Iterable[tuple[Scheme, Sequence[bytes]]], *, message_id: str, timestamp: int, body: bytes
) -> RawHeaders:
    """The headers of several schemes at once, as while an endpoint's owner migrates.

    Schemes may share a header: what they agree on is sent once, signatures are joined by a space, as Standard
    Webhooks asks for.
    """
    merged: dict[bytes, bytes] = {}
    for scheme, keys in signers:
        for name, value in scheme.sign(message_id=message_id, timestamp=timestamp, body=body, keys=keys):
            before = merged.get(name, value)
            merged[name] = value if before == value else before + b" " + value
    return list(merged.items())
