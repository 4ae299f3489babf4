"""A certificate authority for tests, with certificates good and bad."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatcher.egress.authorities import VERIFY_FLAGS

_DAY = dt.timedelta(days=1)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Authority:
    """Issues certificates into `folder`; `client_context()` trusts it, and nothing else."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, folder: Path) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - _DAY)
            .not_valid_after(_now() + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(folder, key, certificate)

    def issue(self, *names: str, expired: bool = False) -> Path:
        """Return a PEM file with key and certificate for host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        sans: list[x509.GeneralName] = []
        for name in names:
            try:
                sans.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                sans.append(x509.DNSName(name))
        end = _now() - _DAY if expired else _now() + _DAY
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 2 * _DAY)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(sans), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{certificate.serial_number:x}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def server_context(
        self, *names: str, expired: bool = False, maximum: ssl.TLSVersion | None = None, client_cert: bool = False
    ) -> ssl.SSLContext:
        """Return a server's context; `client_cert` makes it demand a certificate of the client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names, expired=expired))
        if maximum is not None:
            with warnings.catch_warnings():  # 1.0 and 1.1 are deprecated, which is the point
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = maximum
            context.set_ciphers("ALL:@SECLEVEL=0")
        if client_cert:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self._pem())
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what PinnedTransport takes as `ssl_context`: as in production, but for whom it trusts."""
        context = ssl.create_default_context(cadata=self._pem())
        context.verify_flags = VERIFY_FLAGS
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def certificate_file(self) -> Path:
        """A PEM file with the authority's certificate, for SSL_CERT_FILE of other processes."""
        path = self.folder / "authority.pem"
        path.write_text(self._pem())
        return path

    def _pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


@contextlib.contextmanager
def blocking_tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """A server in a thread, one handshake after the other; gives its port.

    asyncio's own servers close without the alert that says why a handshake failed; OpenSSL by itself sends it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(2)
                secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                with secured, contextlib.suppress(OSError):
                    try:
                        secured.do_handshake()
                    except ssl.SSLError:
                        # A close with unread bytes would be a reset, which overtakes the alert.
                        plain = socket.socket(fileno=secured.detach())
                        with plain:
                            plain.shutdown(socket.SHUT_WR)
                            while plain.recv(65_536):
                                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()
