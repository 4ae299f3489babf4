"""TLS towards receivers."""

from __future__ import annotations

import ssl

from dispatcher.egress.failures import TlsFailure
from dispatcher.model.outcome import OutcomeClass, Phase

# Alerts by which a server says that it wants a certificate of ours, or another one.
_CLIENT_CERT_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
)


def tls_failure(error: Exception, peer_ip: str, *, known: bool = True) -> TlsFailure:
    """Name what went wrong, in the handshake (`known`), or after it, when the request may have been written.

    In TLS 1.3 a server refuses a missing client certificate only after our side of the handshake: its alert comes
    where the answer should be. No server reads a request from a handshake that it refused, so that is known.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure(
            f"the receiver's certificate is not valid: {error.verify_message}",
            phase=Phase.TLS,
            peer_ip=peer_ip,
            kind=OutcomeClass.TLS_CERT,
        )
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if any(alert in reason for alert in _CLIENT_CERT_ALERTS):
        return TlsFailure(
            "the receiver demands a client certificate",
            phase=Phase.TLS,
            peer_ip=peer_ip,
            kind=OutcomeClass.TLS_CLIENT_CERT,
        )
    what = reason.replace("_", " ").lower() or "the receiver closed the connection"
    return TlsFailure(
        f"the TLS connection failed: {what}",
        phase=Phase.TLS if known else Phase.HEADERS,
        known=known,
        peer_ip=peer_ip,
        kind=OutcomeClass.TLS_PROTOCOL,
    )
