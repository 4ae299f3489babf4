"""Sender addresses: what deliveries come from, for receivers' allow lists."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import Paged


class SenderAddress(TypedDict):
    """An address, or a network."""

    address: Annotated[str, About(example="192.0.2.0/28")]


class SenderAddressPage(Paged):
    """All addresses."""

    data: list[SenderAddress]
