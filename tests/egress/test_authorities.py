"""Whom TLS towards receivers trusts, on every Python that is installed."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from dispatcher import wiring
from dispatcher.config import Settings
from dispatcher.egress import authorities
from dispatcher.egress.authorities import InvalidAuthorities, default_ssl_context, read_authorities
from dispatcher.errors import ConfigurationError
from tests.support.tls import Authority, blocking_tls_server

MODULE = Path(authorities.__file__)

CLIENT = """
import importlib.util, socket, ssl, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("authorities", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
context = module.default_ssl_context(module.read_authorities(Path(sys.argv[2])))
print(int(context.verify_flags), int(context.minimum_version), context.check_hostname, int(context.verify_mode))
with socket.create_connection(("127.0.0.1", int(sys.argv[3])), timeout=60) as plain:
    try:
        context.wrap_socket(plain, server_hostname=sys.argv[4]).close()
        print("accepted")
    except ssl.SSLCertVerificationError as error:
        print("refused:", error.verify_message)
"""


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def plain_chain(folder: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """A root and an intermediate without key usage and key identifiers, as files, and a server with a chain of them."""
    now = datetime.now(UTC)

    def issue(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(key, SHA256())

    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "between", "shop.internal")}
    root = issue("root", "root", keys["root"], ca=True)
    between = issue("between", "root", keys["root"], ca=True)
    shop = issue("shop.internal", "between", keys["between"], ca=False)
    (folder / "root.pem").write_bytes("# Autorité\n".encode() + pem(root))
    (folder / "between.pem").write_bytes(pem(between))
    private = keys["shop.internal"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "shop.pem").write_bytes(private + pem(shop, between))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "shop.pem")
    return folder / "root.pem", folder / "between.pem", server


def interpreter(version: str) -> str:
    """An interpreter of this version that starts, or a skip."""
    if version == f"3.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"no other Python of this version on this machine: {version}")
    return found


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_accepts_and_refuses_the_same_receivers(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    root, between, server = plain_chain(tmp_path)
    stranger = Authority.create(tmp_path).certificate_file()

    def connect(trusted: Path, name: str) -> list[str]:
        with blocking_tls_server(server) as port:
            command = [python, "-I", "-c", CLIENT, str(MODULE), str(trusted), str(port), name]
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()

    flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    settings = f"{int(flags)} {int(ssl.TLSVersion.TLSv1_2)} True {int(ssl.CERT_REQUIRED)}"
    assert connect(root, "shop.internal") == [settings, "accepted"], "an authority without key usage"
    assert connect(between, "shop.internal") == [settings, "accepted"], "an intermediate alone"
    assert connect(root, "other.internal")[1].startswith("refused: Hostname mismatch")
    assert connect(stranger, "shop.internal")[1].startswith("refused: unable to get")


def test_the_flags_are_set_and_do_not_follow_the_interpreter() -> None:
    assert default_ssl_context().verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN


def test_the_operators_authorities_stand_beside_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_system, of_operator = (Authority.create(tmp_path / name) for name in ("system", "operator"))
    files = []
    for authority in (of_system, of_operator):
        authority.folder.mkdir()
        files.append(authority.certificate_file())
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    serials = {
        int(str(one["serialNumber"]), 16) for one in default_ssl_context(read_authorities(files[1])).get_ca_certs()
    }
    assert serials == {of_system.certificate.serial_number, of_operator.certificate.serial_number}


def test_a_file_that_is_no_file_of_authorities_is_refused(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    good = pem(authority.certificate)
    broken = good.replace(b"MII", b"AAA", 1)
    for content, found in (
        (b"", "a file that is not PEM"),
        (authority.certificate.public_bytes(serialization.Encoding.DER), "a file that is not PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a PEM file without a certificate"),
        (good + broken, "an invalid certificate, number 2 of the file"),
        (good.replace(b"\nMII", b"\n!\xff", 1), "an invalid certificate, number 1 of the file"),
    ):
        path = tmp_path / "file.pem"
        path.write_bytes(content)
        with pytest.raises(InvalidAuthorities) as refused:
            read_authorities(path)
        assert refused.value.found == found
    for path, found in (
        (tmp_path / "missing.pem", "a file that does not exist"),
        (tmp_path, "a path that is not a regular file"),
    ):
        with pytest.raises(InvalidAuthorities) as refused:
            read_authorities(path)
        assert refused.value.found == found


def test_workers_and_the_api_trust_the_file_of_the_setting(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    file = authority.certificate_file()
    context = wiring.transport(Settings(ca_file=file))._ssl_context
    assert context is not None
    serials = {int(str(one["serialNumber"]), 16) for one in context.get_ca_certs()}
    assert authority.certificate.serial_number in serials
    file.unlink()
    with pytest.raises(ConfigurationError, match="DISPATCHER_CA_FILE: found a file that does not exist"):
        wiring.transport(Settings(ca_file=file))
