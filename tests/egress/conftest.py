"""Every test of egress may use these."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.egress import AddressPolicy, PinnedTransport
from tests.support.receivers import Names
from tests.support.tls import Authority

LOOPBACK = ("127.0.0.0/8", "::1/128")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
async def transport(authority: Authority) -> AsyncIterator[PinnedTransport]:
    """A transport for which every name is loopback, and loopback is allowed."""
    transport = PinnedTransport(
        addresses=AddressPolicy(LOOPBACK), resolver=Names(), ssl_context=authority.client_context()
    )
    yield transport
    await transport.aclose()
