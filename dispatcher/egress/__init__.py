"""One POST, safely and cheaply.

`parse_url` checks a URL, `build_request` makes the request, `send` posts it over any `httpx.AsyncBaseTransport`
and returns an Outcome; `PinnedTransport` is ours, which dials only what AddressPolicy permits.

Each name is imported on its first use: a producer, which checks the URLs of its events' targets, needs neither the
transport nor the packages that it stands on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dispatcher.egress.addresses import AddressPolicy
    from dispatcher.egress.authorities import default_ssl_context
    from dispatcher.egress.outcome import SuccessRule, classify
    from dispatcher.egress.pool import Pool
    from dispatcher.egress.post import send
    from dispatcher.egress.request import build_request
    from dispatcher.egress.resolver import DnsResolver, Resolver
    from dispatcher.egress.transport import PinnedTransport
    from dispatcher.egress.url import TargetUrl, UrlPolicy, parse_url

_HOMES: Final = {
    "AddressPolicy": "dispatcher.egress.addresses",
    "DnsResolver": "dispatcher.egress.resolver",
    "PinnedTransport": "dispatcher.egress.transport",
    "Pool": "dispatcher.egress.pool",
    "Resolver": "dispatcher.egress.resolver",
    "SuccessRule": "dispatcher.egress.outcome",
    "TargetUrl": "dispatcher.egress.url",
    "UrlPolicy": "dispatcher.egress.url",
    "build_request": "dispatcher.egress.request",
    "classify": "dispatcher.egress.outcome",
    "default_ssl_context": "dispatcher.egress.authorities",
    "parse_url": "dispatcher.egress.url",
    "send": "dispatcher.egress.post",
}

__all__ = [
    "AddressPolicy",
    "DnsResolver",
    "PinnedTransport",
    "Pool",
    "Resolver",
    "SuccessRule",
    "TargetUrl",
    "UrlPolicy",
    "build_request",
    "classify",
    "default_ssl_context",
    "parse_url",
    "send",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dispatcher.egress' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
