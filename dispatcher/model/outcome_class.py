"""The classes of outcomes: why an attempt ended as it did, and all that follows from the class alone.

To add a class, add a member to `OutcomeClass`, and return it where the outcome is found: `dispatcher.egress`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


@dataclass(frozen=True, slots=True)
class Advice:
    """What happened, why it usually does, and what the merchant should hear. Each is a sentence or two."""

    summary: str
    likely_cause: str
    merchant_message: str


class Verdict(Enum):
    """What an outcome of the class does to its delivery; `dispatcher.retry.decision` carries it out."""

    DELIVERED = auto()
    RETRIED = auto()  # by the schedule, until it is exhausted
    BY_STATUS = auto()  # as RETRIED, unless the profile says that this status is permanent
    REJECTED = auto()
    OUR_FAULT = auto()  # retried soon; the attempt is not charged
    FORGIVEN = auto()  # retried at once and not charged, the first few times; then as RETRIED


class OutcomeClass(StrEnum):
    """Why an attempt ended as it did. Each member has its name, verdict and advice.

    `dialled` is False where the receiver was not dialled, or may not have been: how long such an attempt took says
    nothing about the receiver.
    """

    _value_: str
    verdict: Verdict
    advice: Advice
    dialled: bool

    def __new__(  # noqa: PYI034 - an enum has no subclasses
        cls, name: str, verdict: Verdict, advice: Advice, dialled: bool = True
    ) -> OutcomeClass:
        """A member, which is its name as a string."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.verdict = verdict
        member.advice = advice
        member.dialled = dialled
        return member

    @classmethod
    def named(cls, name: str) -> OutcomeClass:
        """The class with this name, as it is stored. Raises ValueError."""
        return cls(name)  # type: ignore[call-arg]  # mypy takes it for a new member

    OK = (
        "ok",
        Verdict.DELIVERED,
        Advice(
            "The receiver accepted the notification.",
            "All is well between us and the receiver.",
            "Your server accepted the notification. If nothing came of it, look in your own log for the id in the "
            "webhook-id header, or in the body.",
        ),
    )
    REDIRECT_REFUSED = (  # 3xx: a redirect is never followed
        "redirect_refused",
        Verdict.BY_STATUS,
        Advice(
            "The receiver answered with a redirect, which is never followed.",
            "The URL has moved: from http to https, to or from www, or a trailing slash was added.",
            "Your server redirects our request to another URL. Register the final URL, and make sure that it answers "
            "with a 2xx itself.",
        ),
    )
    HTTP_4XX = (
        "http_4xx",
        Verdict.BY_STATUS,
        Advice(
            "The receiver refused the request.",
            "Something in front of the receiver's application, or the application itself, does not take this request.",
            "Your server refused our request. Its log at that moment says why.",
        ),
    )
    HTTP_RETRYABLE = (  # 408, 425, 5xx and 6xx
        "http_retryable",
        Verdict.BY_STATUS,
        Advice(
            "The receiver answered that it failed.",
            "The receiver's application, or what it depends on, had an error.",
            "Your server reported an error of its own. Its log at that moment says which.",
        ),
    )
    GONE = (  # 410
        "gone",
        Verdict.BY_STATUS,
        Advice(
            "The receiver answered 410 Gone: nobody is there any more.",
            "The receiver was taken out of service on purpose, or the shop was moved.",
            "Your server says that this URL is gone for good. Register the URL that you use now.",
        ),
    )
    TOO_LARGE = (  # 413, 414, 431
        "too_large",
        Verdict.BY_STATUS,
        Advice(
            "The receiver found the request too large.",
            "A limit of the receiver's web server or framework is below the size of this request.",
            "Your server takes no request of this size. Raise its limit to 512 KiB for bodies and 16 KiB for headers.",
        ),
    )
    THROTTLED = (  # 429, or 503 with Retry-After
        "throttled",
        Verdict.BY_STATUS,
        Advice(
            "The receiver asked to be sent less.",
            "A rate limit in front of the receiver counts our requests, or it is busy for a while.",
            "Your server is limiting our requests. Let our sender addresses through, or ask us for a rate limit.",
        ),
    )
    UNEXPECTED_2XX = (  # a 2xx that the success rule does not count
        "unexpected_2xx",
        Verdict.BY_STATUS,
        Advice(
            "The receiver answered with a 2xx that does not count as a success here.",
            "The receiver answers with another status than the one that was agreed with it.",
            "Your server answered, but not with the status that means accepted in our agreement, mostly 200. Until it "
            "does, we send again.",
        ),
    )
    PROTOCOL = (  # what came is not an HTTP/1 answer
        "protocol",
        Verdict.RETRIED,
        Advice(
            "What came back is not an HTTP/1 answer.",
            "Something else listens on that port, or a proxy answers in another protocol.",
            "What answers at your URL does not speak HTTP/1.1. Check the port, and what stands in front of your "
            "server.",
        ),
    )
    HEADERS_TOO_LARGE = (
        "headers_too_large",
        Verdict.RETRIED,
        Advice(
            "The headers of the receiver's answer were too large to be read.",
            "The receiver sets many or very large cookies or debugging headers.",
            "The headers of your answer are over 64 KiB. Answer with a plain status and few headers.",
        ),
    )
    DEADLINE = (  # the whole attempt took too long
        "deadline",
        Verdict.RETRIED,
        Advice(
            "The receiver did not answer in time.",
            "The receiver does its work before it answers, or is overloaded.",
            "Your server took longer than we wait. Store the notification, answer with a 2xx at once, and do the work "
            "afterwards.",
        ),
    )
    CLOSED = (  # FIN before a status line
        "closed",
        Verdict.RETRIED,
        Advice(
            "The receiver closed the connection without an answer.",
            "The receiver's process was restarted or crashed, or a proxy in front of it gave up.",
            "Your server closed the connection before it answered. Look for restarts and crashes at that moment.",
        ),
    )
    RESET = (  # RST before a status line
        "reset",
        Verdict.RETRIED,
        Advice(
            "The connection was reset without an answer.",
            "A firewall or a load balancer cut the connection, or the receiver's process died.",
            "The connection was cut on your side before an answer came. Look at your firewall, your load balancer, and "
            "for crashes at that moment.",
        ),
    )
    TLS_CERT = (
        "tls_cert",
        Verdict.RETRIED,
        Advice(
            "The receiver's certificate was not accepted.",
            "It has expired, is for another name, is self-signed, or its intermediate certificate is not sent along.",
            "Your certificate cannot be verified. Check that it is valid, names this host, and that your server sends "
            "the whole chain.",
        ),
    )
    TLS_PROTOCOL = (
        "tls_protocol",
        Verdict.RETRIED,
        Advice(
            "No encrypted connection could be agreed with the receiver.",
            "The receiver offers only old versions of TLS, or plain HTTP answers on that port.",
            "Your server and we agree on no version of TLS. Offer TLS 1.2 or later, and check that the port is one of "
            "HTTPS.",
        ),
    )
    TLS_CLIENT_CERT = (
        "tls_client_cert",
        Verdict.RETRIED,
        Advice(
            "The receiver wants a client certificate, which is not sent.",
            "Mutual TLS is switched on for this URL.",
            "Your server asks us for a client certificate. Switch that off for this URL, and verify the signature "
            "instead.",
        ),
    )
    CONNECT = (
        "connect",
        Verdict.RETRIED,
        Advice(
            "No connection to the receiver could be made.",
            "The receiver is down, does not listen on that port, or a firewall does not let us in.",
            "Your server cannot be reached. Check that it is up, and that your firewall lets in our sender addresses.",
        ),
    )
    DNS = (
        "dns",
        Verdict.RETRIED,
        Advice(
            "The name of the receiver's host could not be resolved.",
            "The domain has expired, its record was removed, or its name servers do not answer.",
            "The name of your server has no address. Check the domain, and its A and AAAA records.",
        ),
        False,
    )
    BLOCKED_ADDRESS = (  # an answer of the look-up may not be dialled, so nothing was
        "blocked_address",
        Verdict.RETRIED,
        Advice(
            "The name of the receiver's host leads to an address that is not public, so nothing was sent.",
            "The DNS record was set to an internal address, or the name is one of an internal network.",
            "The name of your server leads to an address that the internet cannot reach. Give it a public address.",
        ),
        False,
    )
    INVALID_CONFIG = (  # a URL, header or key that can never work
        "invalid_config",
        Verdict.REJECTED,
        Advice(
            "The request could not be built from the endpoint's settings, so nothing was sent.",
            "The URL, a header or the signing secret of the endpoint can never work.",
            "The settings of your endpoint cannot be used as they are. Check its URL and headers, and save them again.",
        ),
        False,
    )
    INTERNAL = (  # a cause on our side; no attempt is charged
        "internal",
        Verdict.OUR_FAULT,
        Advice(
            "The attempt failed on our side; it does not count.",
            "A fault of this platform, which its operators have to mend.",
            "This was our fault, and nothing is wrong on your side. It is tried again by itself.",
        ),
        False,
    )
    WORKER_LOST = (  # the worker died after its claim
        "worker_lost",
        Verdict.FORGIVEN,
        Advice(
            "The attempt was interrupted on our side, and its answer was lost.",
            "A machine of this platform stopped in the middle of the attempt.",
            "This was our fault, and nothing is wrong on your side. It is tried again by itself.",
        ),
        False,
    )
