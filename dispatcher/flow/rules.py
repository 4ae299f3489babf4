"""What a profile means to the parts that act on it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dispatcher.egress import UrlPolicy
from dispatcher.retry import DecisionRules

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from dispatcher.model.profile import Profile


def url_policy(profile: Profile, networks: tuple[IPv4Network | IPv6Network, ...] = ()) -> UrlPolicy:
    """Which URLs its endpoints may have. `networks` are those that the operator allows although not public."""
    return UrlPolicy(
        allow_http="http" in profile.url_schemes,
        allow_ports=profile.url_ports,
        allow_ip_literals=profile.url_ip_literals,
        private_networks=networks,
        private_http=profile.url_private_http,
    )


@lru_cache(maxsize=256)
def decision_rules(profile: Profile) -> DecisionRules:
    """How its answers are judged beyond "whatever is not a success is retried"."""
    return DecisionRules(
        permanent_statuses=profile.permanent_statuses,
        disable_on=profile.disable_on,
        retry_after=profile.retry_after,
    )
