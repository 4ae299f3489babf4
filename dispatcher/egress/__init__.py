"""One POST, safely and cheaply.

`parse_url` checks a URL, `build_request` makes the request, `send` posts it over any `httpx.AsyncBaseTransport`
and returns an Outcome; `PinnedTransport` is ours, which dials only what AddressPolicy permits.
"""

from __future__ import annotations

from dispatcher.egress.addresses import AddressPolicy
from dispatcher.egress.outcome import SuccessRule, classify
from dispatcher.egress.pool import Pool
from dispatcher.egress.post import send
from dispatcher.egress.request import build_request
from dispatcher.egress.resolver import DnsResolver, Resolver
from dispatcher.egress.retry_after import parse_retry_after
from dispatcher.egress.tls import default_ssl_context
from dispatcher.egress.transport import PinnedTransport
from dispatcher.egress.url import TargetUrl, UrlPolicy, parse_url

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
    "parse_retry_after",
    "parse_url",
    "send",
]
