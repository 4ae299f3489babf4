from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.support.ledger import Ledger


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with Ledger() as found:
        yield found


@pytest.fixture
def rng() -> random.Random:
    return random.Random(20_260_302)
