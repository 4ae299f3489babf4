from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from dispatcher.errors import ConfigurationError, InvalidInput
from dispatcher.signing import SCHEMES, Secret, loaded_keys, public_keys
from dispatcher.signing.platform_keys import PlatformKey, generate_key, import_pem, load_key, self_test

VECTORS = Path(__file__).parents[1] / "vectors"
RFC9500 = (VECTORS / "rfc9500_rsa_2048.pem").read_bytes()
JWKS = json.loads((VECTORS / "jwk.json").read_text())

RSA, ED25519 = import_pem(RFC9500), generate_key("ed25519")
PASSWORD = Secret(b"planted password")


def pem(
    key: Any,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = NoEncryption(),  # noqa: B008 - immutable
) -> Any:
    return key.private_bytes(Encoding.PEM, form, encryption)


def public_pem(key: Any) -> Any:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def loaded(key: PlatformKey) -> Any:
    return loaded_keys.private_key(key.private.reveal())


def damaged_rsa() -> rsa.RSAPrivateKey:
    """A key whose private half belongs to no public one."""
    numbers = loaded(RSA).private_numbers()
    broken = rsa.RSAPrivateNumbers(
        p=numbers.p, q=numbers.q, d=numbers.d + 2, dmp1=numbers.dmp1 + 2, dmq1=numbers.dmq1 + 2, iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    )  # fmt: skip
    return broken.private_key(unsafe_skip_rsa_key_validation=True)


class TestGenerate:
    def test_rsa_is_the_default_and_has_3072_bits(self) -> None:
        key = generate_key()
        assert key.kind == "rsa"
        assert loaded(key).key_size == 3072
        assert loaded(key).public_key().public_numbers().e == 65_537

    def test_every_key_is_another_and_is_named_by_its_thumbprint(self) -> None:
        assert generate_key("ed25519").id != ED25519.id
        assert ED25519.id == public_keys.jwk(ED25519.public)["kid"]
        assert len(ED25519.id) == 43

    def test_another_kind_is_a_defect(self) -> None:
        with pytest.raises(AssertionError):
            generate_key("dsa")  # type: ignore[arg-type]

    def test_nothing_shows_the_private_half(self) -> None:
        assert "Secret(…)" in repr(ED25519)
        assert repr(ED25519.private.reveal())[2:-1] not in repr(ED25519)

    @pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
    def test_what_was_kept_loads_as_the_same_key(self, key: PlatformKey) -> None:
        assert load_key(Secret(key.private.reveal())) == key


class TestImport:
    @pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
    def test_pkcs8_plain_and_encrypted(self, key: PlatformKey) -> None:
        assert import_pem(pem(loaded(key)), kind=key.kind) == key
        encrypted = pem(loaded(key), encryption=BestAvailableEncryption(PASSWORD.reveal()))
        assert import_pem(encrypted, password=PASSWORD) == key

    def test_pkcs1_plain_and_encrypted(self) -> None:
        plain = pem(loaded(RSA), PrivateFormat.TraditionalOpenSSL)
        assert plain.strip() == RFC9500.strip()
        encrypted = pem(loaded(RSA), PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSWORD.reveal()))
        assert b"Proc-Type" in encrypted
        assert import_pem(encrypted, password=PASSWORD) == RSA

    def test_lines_may_end_as_on_windows(self) -> None:
        assert import_pem(RFC9500.replace(b"\n", b"\r\n")) == RSA

    @pytest.mark.parametrize(
        ("given", "password", "found"),
        [
            (b"", None, "no PEM"),
            (base64.b64encode(RSA.private.reveal()), None, "no PEM"),
            (RSA.private.reveal(), None, "no PEM"),
            (RFC9500 + RFC9500, None, "2 PEM blocks"),
            (public_pem(loaded(RSA)), None, "a public key only"),
            (RFC9500.replace(b"RSA PRIVATE KEY", b"CERTIFICATE"), None, "a public key only"),
            (RFC9500.replace(b"RSA PRIVATE KEY", b"DSA PRIVATE KEY"), None, "another kind, DSA PRIVATE KEY"),
            (
                lambda: pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL),
                None,
                "another kind, EC PRIVATE KEY",
            ),
            (
                pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH),
                None,
                "another kind, OPENSSH PRIVATE KEY",
            ),
            (pem(ec.generate_private_key(ec.SECP256R1())), None, "neither RSA nor Ed25519"),
            (pem(x25519.X25519PrivateKey.generate()), None, "neither RSA nor Ed25519"),
            (lambda: pem(dsa.generate_private_key(1024)), None, "neither RSA nor Ed25519"),
            (lambda: pem(rsa.generate_private_key(65_537, 1024)), None, "an RSA key of 1024 bits"),
            (lambda: pem(rsa.generate_private_key(3, 2048)), None, "public exponent is 3"),
            (
                pem(loaded(RSA), encryption=BestAvailableEncryption(PASSWORD.reveal())),
                None,
                "an encrypted private key without its password",
            ),
            (
                pem(loaded(RSA), PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSWORD.reveal())),
                None,
                "an encrypted private key without its password",
            ),
            (
                pem(loaded(RSA), encryption=BestAvailableEncryption(b"other")),
                PASSWORD,
                "cannot be read, or another password",
            ),
            (RFC9500, PASSWORD, "a password for a private key that is not encrypted"),
            (RFC9500[:200] + b"\n-----END RSA PRIVATE KEY-----\n", None, "a private key that cannot be read"),
            (RFC9500.replace(b"MIIEow", b"MIIEo\xff"), None, "a private key that cannot be read"),
            (RFC9500.replace(b"wIBAAKCAQEAsPno", b"wIBAAKCAQEAsPnp"), None, "a private key that cannot be read"),
            (pem(damaged_rsa()), None, "a private key that cannot be read"),
        ],
    )
    def test_what_will_not_do_is_named_and_never_repeated(
        self, given: bytes | Callable[[], bytes], password: Secret | None, found: str
    ) -> None:
        if callable(given):  # a key that takes long to make, and not whenever this file is imported
            given = given()
        with pytest.raises(InvalidInput) as caught:
            import_pem(given, password=password, pointer="/signing_keys/0")
        assert caught.value.pointer == "/signing_keys/0"
        assert found in caught.value.found
        assert "2,048 to 4,096 bits" in caught.value.allowed
        assert caught.value.__context__ is None
        shown = "".join(traceback.format_exception(caught.value))
        assert "planted" not in shown
        for line in given.splitlines():
            assert line.startswith(b"-----") or len(line) < 20 or line.decode("latin-1") not in shown

    def test_the_other_kind_is_refused_where_one_is_asked_for(self) -> None:
        with pytest.raises(InvalidInput, match="of the kind ed25519 where one of the kind rsa is needed"):
            import_pem(pem(loaded(ED25519)), kind="rsa")


class TestLoaded:
    @pytest.mark.parametrize("der", [b"", b"x", RSA.private.reveal()[:-1], RSA.public])
    def test_what_is_no_private_key_is_refused(self, der: bytes) -> None:
        with pytest.raises(ValueError, match="not the PKCS #8 of a private key"):
            load_key(Secret(der))

    @pytest.mark.parametrize("der", [b"", b"x", RSA.public[:-1], RSA.private.reveal()])
    def test_what_is_no_public_key_is_refused(self, der: bytes) -> None:
        with pytest.raises(ValueError, match="not the SubjectPublicKeyInfo of a public key"):
            public_keys.jwk(der)

    def test_a_key_so_long_that_it_would_hold_the_loop_up_is_refused(self) -> None:
        long = rsa.RSAPublicNumbers(65_537, 2**8191 + 1).public_key()
        assert loaded_keys.fault_of(long) == "an RSA key of 8192 bits"

    def test_a_key_is_loaded_once_and_not_many_are_kept(self) -> None:
        der = ED25519.private.reveal()
        assert loaded_keys.private_key(der) is loaded_keys.private_key(bytes(bytearray(der)))
        for load in (loaded_keys.private_key, loaded_keys.public_key):
            assert load.cache_info().maxsize == 64


class TestPublic:
    @pytest.mark.parametrize("vector", JWKS, ids=[vector["source"] for vector in JWKS])
    def test_the_published_thumbprints_are_met(self, vector: dict[str, Any]) -> None:
        given = {name: base64.urlsafe_b64decode(vector["jwk"][name] + "==") for name in vector["jwk"] if name in "nex"}
        key: Any
        if vector["jwk"]["kty"] == "RSA":
            n, e = (int.from_bytes(given[name]) for name in "ne")
            key = rsa.RSAPublicNumbers(e, n).public_key()
            rest = {"use": "sig", "alg": "RS256"}
        else:
            key = ed25519.Ed25519PublicKey.from_public_bytes(given["x"])
            rest = {"use": "sig", "alg": "EdDSA"}
        public = loaded_keys.public_der(key)
        assert public_keys.key_id(public) == vector["thumbprint"]
        assert public_keys.jwk(public) == {**vector["jwk"], **rest, "kid": vector["thumbprint"]}

    @pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
    def test_the_pem_is_the_public_half(self, key: PlatformKey) -> None:
        text = public_keys.pem(key.public)
        assert text.startswith("-----BEGIN PUBLIC KEY-----\n")
        assert load_pem_public_key(text.encode()) == loaded(key).public_key()

    def test_while_a_key_rotates_the_document_has_both_and_none_twice(self) -> None:
        new = generate_key("ed25519")
        document = public_keys.jwks([new.public, ED25519.public, new.public, RSA.public])
        assert [key["kid"] for key in document["keys"]] == [new.id, ED25519.id, RSA.id]
        assert json.loads(json.dumps(document)) == document
        assert public_keys.jwks([]) == {"keys": []}

    def test_no_private_number_is_published(self) -> None:
        for key in (RSA, ED25519):
            assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(public_keys.jwk(key.public))


class Forbidden:
    """A scheme whose algorithm this machine's policy forbids."""

    name = "forbidden"

    def sign(self, **given: object) -> list[tuple[bytes, bytes]]:
        raise UnsupportedAlgorithm("SHA-1 is not supported here")


class TestSelfTest:
    def test_every_scheme_of_the_platform_passes_with_its_kind(self) -> None:
        self_test(
            (scheme, {"ed25519": ED25519, "rsa": RSA}[scheme.key_kind])
            for scheme in SCHEMES.values()
            if scheme.key_kind is not None
        )

    def test_everything_wrong_is_told_at_once(self) -> None:
        sha256, v1a = SCHEMES["rsa_sha256"], SCHEMES["standard_webhooks_v1a"]
        anothers = PlatformKey("ed25519", "anothers", ED25519.private, generate_key("ed25519").public)
        damaged = PlatformKey("rsa", "damaged", Secret(loaded_keys.private_der(damaged_rsa())), RSA.public)
        forbidden: Any = Forbidden()
        with pytest.raises(ConfigurationError) as caught:
            self_test([(v1a, RSA), (v1a, anothers), (v1a, ED25519), (sha256, damaged), (forbidden, RSA)])
        assert [(problem.where, problem.field, problem.found) for problem in caught.value.problems] == [
            (f"signing key {RSA.id}", "standard_webhooks_v1a", "an RSA key where an Ed25519 key is needed"),
            ("signing key anothers", "standard_webhooks_v1a", "a signature that does not verify"),
            ("signing key damaged", "rsa_sha256", "a signature that does not verify"),
            (f"signing key {RSA.id}", "forbidden", "SHA-1 is not supported here"),
        ]
