"""What a registration may hold at most, and how its fields are written: one place for API, import and documents."""

from __future__ import annotations

from typing import Final

TEXT: Final = 500
"""Characters of a name, a description or a reason."""

METADATA_BYTES: Final = 16 * 1024
TENANT_DEPTH: Final = 8
"""Tenants in a chain of parents."""

IN_FLIGHT: Final = 64
"""Deliveries that may be attempted at once where an endpoint does not say."""

MAX_IN_FLIGHT: Final = 1000
RATE_LIMIT: Final = (0.01, 10_000.0)
"""The least and the most attempts a second that a limit may allow."""

HEADERS: Final = 20
HEADER_BYTES: Final = 4096

HEADER_NAME: Final = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$"
"""A header's name (RFC 9110 section 5.6.2)."""

HEADER_VALUE: Final = r"^[!-~]([ -~]{0,4094}[!-~])?$"
"""A header's value: visible ASCII, with spaces inside."""

USERNAME: Final = r"^[^:\x00-\x1f\x7f-\x9f]+$"
"""Of basic authentication: the colon ends it (RFC 7617 section 2)."""

PASSWORD: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"  # noqa: S105 - a pattern
