"""A Profile: how one provider's webhooks behave, as declared in a data file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dispatcher.model.endpoint import REGISTRATION_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

BodyName = Literal["envelope", "verbatim"]
RetryAfter = Literal["ignore", "extend"]
Auth = Literal["none", "basic"]
EventChoice = Literal["open", "closed", "all"]
Modes = Literal["shared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a provider's webhooks have in common. The defaults are those of the profile `default`.

    Of the endpoint's URL: `url_schemes`, and whether it may have a port (`url_ports`) or an address for a host
    (`url_ip_literals`); `url_private_http`, whether a host in a network that the operator allows although it is not
    public may be named by http all the same. `scope` is what the provider calls a tenant. Of `methods` the first is
    used where nobody asks for another. `envelope_members` are the payload's top-level members that the envelope has
    as its own members too, beside `data`.

    Every delivery is signed by all of `signature_schemes`; `signature_headers` are (the scheme's header, the name
    that is sent), for those sent under another name. `secret` means that an endpoint has
    one of its own, told once, in the answer to its registration.

    `success` is which answers deliver. An answer with one of `permanent_statuses` rejects the delivery, one of
    `disable_on` disables the endpoint too. `blocked_limit` is after how many attempts in a row that ended at an
    address that may not be dialled the endpoint is disabled. `deadline_s` holds for the whole attempt.
    `schedule` is that of an endpoint that names none.

    A registration may carry `registration_fields`, and must carry `required_fields`. A tenant has at most
    `endpoint_limit` endpoints; one above `warn_above` is registered with a warning (None: no limit, no warning).
    `ping` means that the URL must answer a ping with a success before it is stored.

    `event_choice`: an endpoint hears the types that it asks for ("open"), asks for those of `catalogue` only
    ("closed"; entries are types or `family.*`), or hears everything and cannot ask ("all").
    `target` means that an event may carry its own URL and method. `modes` "shared" means that one endpoint hears
    live and test events, and each says which it is.
    """

    name: str
    description: str = ""
    source: str = ""
    scope: str = "tenant"
    methods: tuple[str, ...] = ("POST", "GET")
    body: BodyName = "envelope"
    envelope_members: tuple[str, ...] = ()
    deadline_s: float = 15.0
    schedule: str = "standard"
    modes: Modes = "shared"
    target: bool = True
    url_schemes: tuple[str, ...] = ("https",)
    url_ports: bool = False
    url_ip_literals: bool = False
    url_private_http: bool = True
    signature_schemes: tuple[str, ...] = ("standard_webhooks_v1",)
    secret: bool = True
    signature_headers: tuple[tuple[str, str], ...] = ()
    success: Literal["any_2xx"] | frozenset[int] = "any_2xx"
    permanent_statuses: frozenset[int] = frozenset()
    disable_on: frozenset[int] = frozenset()
    retry_after: RetryAfter = "ignore"
    blocked_limit: int = 5
    registration_fields: tuple[str, ...] = REGISTRATION_FIELDS
    required_fields: tuple[str, ...] = ("url",)
    auth: tuple[Auth, ...] = ("none", "basic")
    endpoint_limit: int | None = None
    warn_above: int | None = None
    ping: bool = False
    event_choice: EventChoice = "open"
    catalogue: tuple[str, ...] = ()

    def offers(self, pattern: str) -> bool:
        """Whether an endpoint may ask for `pattern`: a type, `family.*` or `*`, which must meet a known type.

        >>> terminal = Profile(name="t", event_choice="closed", catalogue=("payment.completed", "payment.failed"))
        >>> [terminal.offers(pattern) for pattern in ("payment.failed", "payment.*", "*", "payment.paid", "refund.*")]
        [True, True, True, False, False]
        """
        if self.event_choice == "closed":
            return any(_covers(pattern, known) or _covers(known, pattern) for known in self.catalogue)
        return self.event_choice == "open" or pattern == "*"

    def heard(self, patterns: Sequence[str] | None) -> tuple[str, ...] | None:
        """The patterns of what an endpoint hears that asks for these, None for everything: no more than is offered.

        >>> closed = Profile(name="c", event_choice="closed", catalogue=("payment.completed", "order.*"))
        >>> closed.heard(None), closed.heard(["payment.*", "order.paid"])
        (('payment.completed', 'order.*'), ('payment.completed', 'order.paid'))
        """
        if self.event_choice != "closed":
            return None if patterns is None else tuple(patterns)
        asked = ("*",) if patterns is None else patterns
        wide = [known for known in self.catalogue if any(_covers(pattern, known) for pattern in asked)]
        narrow = [pattern for pattern in asked if any(_covers(known, pattern) for known in self.catalogue)]
        return tuple(dict.fromkeys([*wide, *narrow]))


def _covers(pattern: str, other: str) -> bool:
    """Whether `pattern` matches every type that `other` does.

    >>> _covers("payment.*", "payment.failed"), _covers("payment.*", "payments.failed"), _covers("a.b", "a.*")
    (True, False, False)
    """
    return pattern in ("*", other) or (pattern.endswith(".*") and other.startswith(pattern[:-1]))
