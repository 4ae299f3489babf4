"""Whom to trust in TLS towards receivers: one behaviour on every Python.

This module imports nothing but the standard library, so that a test can run it on interpreters without our packages.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

VERIFY_FLAGS: Final = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
"""How certificates are verified. Python's own default differs: 3.13 added PARTIAL_CHAIN and STRICT to TRUSTED_FIRST.

PARTIAL_CHAIN lets any certificate that the operator trusts end a chain, an intermediate or a receiver's own too.
STRICT is left out: it refuses private authorities without the extensions that RFC 5280 asks of them, such as key usage,
which are common. Signatures, validity, basic constraints and names are checked without it.
"""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a file of authorities. All public ones together have some 250 kB."""

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class InvalidAuthorities(ValueError):
    """A file of authorities that cannot be used: `found` is what is wrong with it."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def read_authorities(path: Path) -> list[bytes]:
    """Return the certificates of a PEM file, each as DER; raises InvalidAuthorities."""
    if path.exists() and not path.is_file():
        raise InvalidAuthorities("a path that is not a regular file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidAuthorities("a file that does not exist") from None
    except OSError as error:
        raise InvalidAuthorities(f"a file that cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise InvalidAuthorities(f"a file of more than {MAX_BYTES} bytes")
    blocks = _CERTIFICATE.findall(content)
    if not blocks:
        what = "a PEM file without a certificate" if b"-----BEGIN " in content else "a file that is not PEM"
        raise InvalidAuthorities(what)
    certificates = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, block in enumerate(blocks, 1):
        try:
            certificate = ssl.PEM_cert_to_DER_cert(block.decode("ascii"))
            context.load_verify_locations(cadata=certificate)
        except (ValueError, ssl.SSLError) as error:
            raise InvalidAuthorities(f"an invalid certificate, number {number} of the file") from error
        certificates.append(certificate)
    return certificates


def default_ssl_context(certificates: list[bytes] | None = None) -> ssl.SSLContext:
    """Return a client context: host names checked, TLS 1.2 at least, HTTP/1.1 only.

    It trusts the system's authorities, which SSL_CERT_FILE and SSL_CERT_DIR may replace, and `certificates`.
    """
    context = ssl.create_default_context()
    context.verify_flags = VERIFY_FLAGS
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificates:
        context.load_verify_locations(cadata=b"".join(certificates))
    return context
