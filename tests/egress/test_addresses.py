"""Which addresses may be dialled: every network of the tables, at its edges."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.egress.addresses import IPV4_DENIED, IPV6_ALLOWED, IPV6_DENIED, AddressPolicy, plain_address

# Written out a second time, from the security notes, so that the data file cannot change unseen.
DENIED_V4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
]
ALLOWED_V6 = [
    "2001::/20",
    "2001:1200::/23",
    "2001:1400::/22",
    "2001:1800::/21",
    "2001:2000::/19",
    "2001:4000::/21",
    "2001:4800::/22",
    "2001:4c00::/23",
    "2001:5000::/20",
    "2001:8000::/18",
    "2002::/16",
    "2003::/18",
    "2400::/11",
    "2600::/12",
    "2610::/23",
    "2620::/23",
    "2630::/12",
    "2800::/12",
    "2a00::/11",
    "2c00::/12",
]
DENIED_V6 = ["2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"]


def permitted_by_hand(text: str) -> bool:
    """The rule, slowly."""
    address = plain_address(text)
    if isinstance(address, IPv4Address):
        return not any(address in IPv4Network(network) for network in DENIED_V4)
    allowed = any(address in IPv6Network(network) for network in ALLOWED_V6)
    return allowed and not any(address in IPv6Network(network) for network in DENIED_V6)


def edges(network: str) -> list[str]:
    """First, last, one before, one after."""
    net = ip_network(network)
    kind = type(net.network_address)
    first, last = int(net.network_address), int(net.broadcast_address)
    top = 2**net.max_prefixlen - 1
    return [str(kind(number)) for number in (first, last, first - 1, last + 1) if 0 <= number <= top]


def test_the_tables_are_those_of_the_registries() -> None:
    assert {str(network) for network in IPV4_DENIED} == set(DENIED_V4)
    assert {str(network) for network in IPV6_ALLOWED} == set(ALLOWED_V6)
    assert {str(network) for network in IPV6_DENIED} == set(DENIED_V6)


@pytest.mark.parametrize("network", DENIED_V4)
def test_a_denied_ipv4_network_is_denied_up_to_its_edges_and_no_further(network: str) -> None:
    policy = AddressPolicy()
    first, last, *outside = edges(network)
    assert not policy.permits(first)
    assert not policy.permits(last)
    for address in outside:
        assert policy.permits(address) is permitted_by_hand(address)
        assert policy.permits(f"::ffff:{address}") is permitted_by_hand(address)
    assert not policy.permits(f"::ffff:{first}")


@pytest.mark.parametrize("network", ALLOWED_V6 + DENIED_V6)
def test_the_ipv6_networks_hold_at_their_edges(network: str) -> None:
    policy = AddressPolicy()
    for address in edges(network):
        assert policy.permits(address) is permitted_by_hand(address), address
    if network in DENIED_V6:
        assert not any(policy.permits(address) for address in edges(network)[:2])


@pytest.mark.parametrize(
    "address",
    [
        "192.0.0.8",
        "::ffff:100.64.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:4136:e378::1",
        "3fff::1",
        "5f00::1",
        "fec0::1",
        "ff02::1",
        "224.0.0.1",
        "::",
        "::1",
        "::127.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "2a00:1450::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "169.254.169.254",
        "255.255.255.255",
        "0.0.0.0",
        "localhost",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "",
    ],
)
def test_what_is_global_by_mistake_or_no_address_is_denied(address: str) -> None:
    assert not AddressPolicy().permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert AddressPolicy().permits(address)


def test_the_operator_may_allow_a_network_and_only_that() -> None:
    policy = AddressPolicy(["10.1.0.0/16", "::1/128"])
    assert policy.permits("10.1.255.255")
    assert policy.permits("::ffff:10.1.0.1")
    assert policy.permits("::1")
    assert not policy.permits("10.2.0.0")
    assert not policy.permits("127.0.0.1")


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_any_address_is_judged_as_the_rule_says(address: IPv4Address | IPv6Address) -> None:
    policy = AddressPolicy()
    assert policy.permits(address) is permitted_by_hand(str(address))
    assert policy.permits(str(address)) is policy.permits(address)
