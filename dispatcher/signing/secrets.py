"""Secrets: made, parsed, and sealed at rest."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.errors import ConfigurationError, DispatcherError, InvalidInput, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix is public
"""Marks a symmetric secret (Standard Webhooks, Signature scheme)."""

SECRET_BYTES: Final = (24, 64)
"""How long a signing secret may be (Standard Webhooks, Signature scheme)."""

_NEW_SECRET_BYTES: Final = 32
_WHAT_IS_ALLOWED: Final = "whsec_ and the base64, with padding, of 24 to 64 bytes"

_KEY_BYTES: Final = 32  # AES-256
_NONCE_BYTES: Final = 12  # what GCM is specified for (NIST SP 800-38D section 5.2.1.1)
_TAG_BYTES: Final = 16
_FORMAT: Final = "v1"
MAKE_KEYRING: Final = """python3 -c "import base64, os; print('k1:' + base64.b64encode(os.urandom(32)).decode())\""""
"""The command that makes a keyring of one key."""

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class SealError(DispatcherError):
    """A sealed value cannot be opened: its key is gone, or it is not what was sealed, or not for this place."""

    code = "SEAL"


class Secret:
    """Bytes that no repr, str, format, log line, traceback or pickle shows.

    >>> Secret(b"hidden")
    Secret(…)
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes: an HMAC key, or a password's UTF-8."""
        return self._value

    def reveal_whsec(self) -> str:
        """The text that a merchant pastes into a verifier: `whsec_` and base64."""
        return SECRET_PREFIX + base64.b64encode(self._value).decode()

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._value, other._value) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled: seal it")


def generate_secret() -> Secret:
    """A new signing secret of 32 random bytes."""
    return Secret(os.urandom(_NEW_SECRET_BYTES))


def parse_secret(text: str, *, pointer: str = "/secret") -> Secret:
    """The signing secret that `text` writes; the prefix may be left out.

    Raises InvalidInput naming `pointer`, whose text never repeats the secret.

    >>> len(parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").reveal())
    24
    """
    value = strict_base64(text.removeprefix(SECRET_PREFIX))
    if value is None:
        raise InvalidInput(pointer, f"{len(text)} characters that are not strict base64", _WHAT_IS_ALLOWED)
    shortest, longest = SECRET_BYTES
    if not shortest <= len(value) <= longest:
        raise InvalidInput(pointer, f"{len(value)} bytes", _WHAT_IS_ALLOWED)
    return Secret(value)


class Keyring:
    """The keys that seal secrets at rest, by id; the first is the active one, the others only open.

    A sealed value is `v1.<key id>.<base64 of nonce, ciphertext and tag>`: AES-256-GCM with a random 96-bit nonce
    (safe up to 2³² values a key, NIST SP 800-38D section 8.3) and `tenant|endpoint|purpose|key id` as associated
    data, so that a value moved to another row does not open.
    """

    __slots__ = ("_ciphers", "_keys", "active_id")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys or any(len(key) != _KEY_BYTES for key in keys.values()):
            raise ValueError("a keyring holds at least one key, each of 32 bytes")
        self._keys = dict(keys)
        self._ciphers = {key_id: AESGCM(key) for key_id, key in self._keys.items()}
        self.active_id = next(iter(self._keys))

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyring is never pickled")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the active one first."""
        return tuple(self._keys)

    @classmethod
    def parse(cls, text: str, *, where: str = "DISPATCHER_SECRET_KEYS") -> Keyring:
        """The keyring that `<id>:<base64 of 32 bytes>,…` writes.

        Raises ConfigurationError with everything wrong in it; an entry is named by its place, never by its text.
        """
        problems: list[Problem] = []
        keys: dict[str, bytes] = {}
        for place, entry in enumerate(text.split(","), start=1):
            key_id, colon, encoded = entry.strip().partition(":")
            field = f"entry {place}"
            if not colon:
                problems.append(Problem(where, field, "no colon", "<id>:<base64 of 32 bytes>, joined by commas"))
                continue
            key = strict_base64(encoded)
            if not _KEY_ID.fullmatch(key_id):
                problems.append(Problem(where, field, "a malformed id", "an id of 1 to 32 of A-Z a-z 0-9 _ -"))
            elif key_id in keys:
                problems.append(Problem(where, field, f"the id {key_id} again", "an id of its own for each key"))
            if key is None:
                problems.append(Problem(where, field, "a key that is not strict base64", "base64 of 32 bytes"))
            elif len(key) != _KEY_BYTES:
                problems.append(Problem(where, field, f"a key of {len(key)} bytes", "base64 of 32 bytes"))
            elif key in keys.values():
                problems.append(Problem(where, field, "the key of another entry", "a key of its own for each id"))
            else:
                keys.setdefault(key_id, key)
        if problems:
            raise ConfigurationError(replace(problem, hint=f"this makes one: {MAKE_KEYRING}") for problem in problems)
        return cls(keys)

    @classmethod
    def generate(cls) -> Keyring:
        """A keyring of one new key, whose id is random so that two installations never share one."""
        return cls(_new_key())

    def rotated(self) -> Keyring:
        """The same keys behind a new, active one."""
        return Keyring(_new_key() | self._keys)

    def reveal(self) -> str:
        """The text that `parse` reads back."""
        return ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in self._keys.items())

    def seal(self, plaintext: bytes | Secret, *, tenant: UUID | str, endpoint: UUID | str, purpose: str) -> str:
        """`plaintext` sealed by the active key for one tenant, endpoint (empty: the tenant's own) and purpose."""
        value = plaintext.reveal() if isinstance(plaintext, Secret) else plaintext
        nonce = os.urandom(_NONCE_BYTES)
        associated = _associated_data(tenant, endpoint, purpose, self.active_id)
        sealed = self._ciphers[self.active_id].encrypt(nonce, value, associated)
        return f"{_FORMAT}.{self.active_id}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, tenant: UUID | str, endpoint: UUID | str, purpose: str) -> Secret:
        """What was sealed. Raises SealError if the key is missing, or the value, or its place, is another."""
        key_id, content = _split(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(f"sealed by key {key_id}, which is not in the keyring ({', '.join(self._keys)})")
        associated = _associated_data(tenant, endpoint, purpose, key_id)
        try:
            return Secret(cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], associated))
        except InvalidTag as error:
            raise SealError(
                f"key {key_id} does not open this value: it was altered, the key is another of the same id, or it "
                f"was sealed for another tenant, endpoint or purpose than {purpose}"
            ) from error

    def is_active(self, sealed: str) -> bool:
        """Whether the active key sealed this; what another key sealed is due for `rewrap`. Raises SealError."""
        return _split(sealed)[0] == self.active_id

    def rewrap(self, sealed: str, *, tenant: UUID | str, endpoint: UUID | str, purpose: str) -> str:
        """The same secret sealed anew by the active key. Raises SealError as `open` does."""
        secret = self.open(sealed, tenant=tenant, endpoint=endpoint, purpose=purpose)
        return self.seal(secret, tenant=tenant, endpoint=endpoint, purpose=purpose)


def _new_key() -> dict[str, bytes]:
    return {f"k{os.urandom(4).hex()}": AESGCM.generate_key(_KEY_BYTES * 8)}


def _associated_data(*parts: UUID | str) -> bytes:
    texts = [str(part) for part in parts]
    if any("|" in text for text in texts):
        raise ValueError("a tenant, endpoint or purpose with | in it would make two places look alike")
    return "|".join(texts).encode()


def _split(sealed: str) -> tuple[str, bytes]:
    """The key's id, then nonce, ciphertext and tag."""
    version, _, rest = sealed.partition(".")
    key_id, _, encoded = rest.partition(".")
    content = strict_base64(encoded)
    if version != _FORMAT or not _KEY_ID.fullmatch(key_id) or content is None:
        raise SealError("not a sealed value: v1.<key id>.<base64> is")
    if len(content) < _NONCE_BYTES + _TAG_BYTES:
        raise SealError(f"the sealed value is cut short: {len(content)} bytes")
    return key_id, content


def strict_base64(text: str) -> bytes | None:
    """The bytes whose one base64 spelling is `text`, or None. An exception here would carry the secret."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Python ignores stray bits in the last character; strict verifiers refuse such a secret.
    return value if base64.b64encode(value) == text.encode() else None
