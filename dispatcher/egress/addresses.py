"""Which addresses may be dialled.

The networks are data, in `addresses.toml`, with their sources. `ipaddress.is_global` is not used: on Python 3.11
it passes 192.0.0.8, ::ffff:100.64.0.1, 64:ff9b::/96, 2002::/16, 3fff::/20, 5f00::/16, fec0::/10 and multicast.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_REMEMBERED = 16_384  # verdicts; about 2 MB at most


def _load() -> tuple[tuple[IPv4Network, ...], tuple[IPv6Network, ...], tuple[IPv6Network, ...]]:
    table = tomllib.loads(files("dispatcher.egress").joinpath("addresses.toml").read_text(encoding="utf-8"))
    return (
        tuple(IPv4Network(text) for text in table["ipv4"]["denied"]),
        tuple(IPv6Network(text) for text in table["ipv6"]["allowed"]),
        tuple(IPv6Network(text) for text in table["ipv6"]["denied"]),
    )


IPV4_DENIED, IPV6_ALLOWED, IPV6_DENIED = _load()


@lru_cache(maxsize=4096)  # parsing takes 5 µs, and every attempt at an IP literal asks
def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return the address that a dial to `text` reaches: an IPv4-mapped IPv6 address is its IPv4 address.

    Raises ValueError where `text` is not an address.

    >>> plain_address("::ffff:127.0.0.1")
    IPv4Address('127.0.0.1')
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether the tables allow `address`, which is not IPv4-mapped."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in IPV4_DENIED)
    if address.scope_id is not None:
        return False
    return any(address in network for network in IPV6_ALLOWED) and not any(
        address in network for network in IPV6_DENIED
    )


class AddressPolicy:
    """The tables, and the networks that the operator allows beside them.

    >>> AddressPolicy().permits("10.0.0.1")
    False
    >>> AddressPolicy(["10.0.0.0/24"]).permits("10.0.0.1")
    True
    """

    __slots__ = ("_allow_networks", "_verdicts")

    def __init__(self, allow_networks: Iterable[IPv4Network | IPv6Network | str] = ()) -> None:
        self._allow_networks = tuple(ip_network(network) for network in allow_networks)
        self._verdicts: dict[str, bool] = {}

    def permits(self, address: str | IPv4Address | IPv6Address) -> bool:
        """Tell whether `address` may be dialled; what is not an address may not."""
        text = address if isinstance(address, str) else str(address)
        verdict = self._verdicts.get(text)
        if verdict is None:
            verdict = self._judge(text)
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[text] = verdict
        return verdict

    def _judge(self, text: str) -> bool:
        try:
            address = plain_address(text)
        except ValueError:
            return False
        return is_public(address) or any(address in network for network in self._allow_networks)
