"""What an outcome means, in plain words: for the operator, and for the merchant on the phone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dispatcher.model.outcome import OutcomeClass, Phase


@dataclass(frozen=True, slots=True)
class Advice:
    """What happened, why it mostly does, and what the merchant should hear. Each is a sentence or two."""

    summary: str
    likely_cause: str
    merchant_message: str


def advise(
    kind: OutcomeClass, *, status_code: int | None = None, phase: Phase | None = None, known: bool = True
) -> Advice:
    """What is to be said of an attempt.

    `phase` is how far it got; `known` is False where the receiver may have got it all the same.

    >>> advise(OutcomeClass.HTTP_4XX, status_code=404).summary
    'The receiver answered 404 Not Found.'
    """
    found = _BY_CLASS[kind]
    if kind in _ANSWERED and status_code is not None:
        if kind is OutcomeClass.THROTTLED and status_code == 503:
            found = Advice(f"{found.summary[:-1]}, with 503 Service Unavailable.", *_rest(found))
        elif status_code in _BY_STATUS:
            found = _BY_STATUS[status_code]
        else:
            found = Advice(f"{found.summary[:-1]} ({status_code}).", *_rest(found))
    elif phase is not None:
        found = _BY_PHASE.get((kind, phase), found)
    if not known:
        found = Advice(found.summary, found.likely_cause, f"{found.merchant_message} {_PERHAPS}")
    return found


def _rest(advice: Advice) -> tuple[str, str]:
    return advice.likely_cause, advice.merchant_message


_PERHAPS: Final = (
    "The notification may have arrived all the same: look for its id before you do anything twice, since another "
    "attempt carries the same id."
)

_ANSWERED: Final = frozenset(
    {
        OutcomeClass.REDIRECT_REFUSED,
        OutcomeClass.HTTP_4XX,
        OutcomeClass.HTTP_RETRYABLE,
        OutcomeClass.GONE,
        OutcomeClass.TOO_LARGE,
        OutcomeClass.THROTTLED,
    }
)
"""Failures whose status says more than their class."""

_BY_CLASS: Final[dict[OutcomeClass, Advice]] = {
    OutcomeClass.OK: Advice(
        "The receiver accepted the notification.",
        "All is well between us and the receiver.",
        "Your server accepted the notification. If nothing came of it, look in your own log for the id in the "
        "webhook-id header, or in the body.",
    ),
    OutcomeClass.REDIRECT_REFUSED: Advice(
        "The receiver answered with a redirect, which is never followed.",
        "The URL has moved: from http to https, to or from www, or a trailing slash was added.",
        "Your server redirects our request to another URL. Register the final URL, and make sure that it answers "
        "with a 2xx itself.",
    ),
    OutcomeClass.HTTP_4XX: Advice(
        "The receiver refused the request.",
        "Something in front of the receiver's application, or the application itself, does not take this request.",
        "Your server refused our request. Its log at that moment says why.",
    ),
    OutcomeClass.HTTP_RETRYABLE: Advice(
        "The receiver answered that it failed.",
        "The receiver's application, or what it depends on, had an error.",
        "Your server reported an error of its own. Its log at that moment says which.",
    ),
    OutcomeClass.GONE: Advice(
        "The receiver answered 410 Gone: nobody is there any more.",
        "The receiver was taken out of service on purpose, or the shop was moved.",
        "Your server says that this URL is gone for good. Register the URL that you use now.",
    ),
    OutcomeClass.TOO_LARGE: Advice(
        "The receiver found the request too large.",
        "A limit of the receiver's web server or framework is below the size of this request.",
        "Your server takes no request of this size. Raise its limit to 512 KiB for bodies and 16 KiB for headers.",
    ),
    OutcomeClass.THROTTLED: Advice(
        "The receiver asked to be sent less.",
        "A rate limit in front of the receiver counts our requests, or it is busy for a while.",
        "Your server is limiting our requests. Let our sender addresses through, or ask us for a rate limit.",
    ),
    OutcomeClass.UNEXPECTED_2XX: Advice(
        "The receiver answered with a 2xx that does not count as a success here.",
        "The receiver answers with another status than the one that was agreed with it.",
        "Your server answered, but not with the status that means accepted in our agreement, mostly 200. Until it "
        "does, we send again.",
    ),
    OutcomeClass.PROTOCOL: Advice(
        "What came back is not an HTTP/1 answer.",
        "Something else listens on that port, or a proxy answers in another protocol.",
        "What answers at your URL does not speak HTTP/1.1. Check the port, and what stands in front of your server.",
    ),
    OutcomeClass.HEADERS_TOO_LARGE: Advice(
        "The headers of the receiver's answer were too large to be read.",
        "The receiver sets many or very large cookies or debugging headers.",
        "The headers of your answer are over 64 KiB. Answer with a plain status and few headers.",
    ),
    OutcomeClass.DEADLINE: Advice(
        "The receiver did not answer in time.",
        "The receiver does its work before it answers, or is overloaded.",
        "Your server took longer than we wait. Store the notification, answer with a 2xx at once, and do the work "
        "afterwards.",
    ),
    OutcomeClass.CLOSED: Advice(
        "The receiver closed the connection without an answer.",
        "The receiver's process was restarted or crashed, or a proxy in front of it gave up.",
        "Your server closed the connection before it answered. Look for restarts and crashes at that moment.",
    ),
    OutcomeClass.RESET: Advice(
        "The connection was reset without an answer.",
        "A firewall or a load balancer cut the connection, or the receiver's process died.",
        "The connection was cut on your side before an answer came. Look at your firewall, your load balancer, and "
        "for crashes at that moment.",
    ),
    OutcomeClass.TLS_CERT: Advice(
        "The receiver's certificate was not accepted.",
        "It has expired, is for another name, is self-signed, or its intermediate certificate is not sent along.",
        "Your certificate cannot be verified. Check that it is valid, names this host, and that your server sends "
        "the whole chain.",
    ),
    OutcomeClass.TLS_PROTOCOL: Advice(
        "No encrypted connection could be agreed with the receiver.",
        "The receiver offers only old versions of TLS, or plain HTTP answers on that port.",
        "Your server and we agree on no version of TLS. Offer TLS 1.2 or later, and check that the port is one of "
        "HTTPS.",
    ),
    OutcomeClass.TLS_CLIENT_CERT: Advice(
        "The receiver wants a client certificate, which is not sent.",
        "Mutual TLS is switched on for this URL.",
        "Your server asks us for a client certificate. Switch that off for this URL, and verify the signature instead.",
    ),
    OutcomeClass.CONNECT: Advice(
        "No connection to the receiver could be made.",
        "The receiver is down, does not listen on that port, or a firewall does not let us in.",
        "Your server cannot be reached. Check that it is up, and that your firewall lets in our sender addresses.",
    ),
    OutcomeClass.DNS: Advice(
        "The name of the receiver's host could not be resolved.",
        "The domain has expired, its record was removed, or its name servers do not answer.",
        "The name of your server has no address. Check the domain, and its A and AAAA records.",
    ),
    OutcomeClass.BLOCKED_ADDRESS: Advice(
        "The name of the receiver's host leads to an address that is not public, so nothing was sent.",
        "The DNS record was set to an internal address, or the name is one of an internal network.",
        "The name of your server leads to an address that the internet cannot reach. Give it a public address.",
    ),
    OutcomeClass.INVALID_CONFIG: Advice(
        "The request could not be built from the endpoint's settings, so nothing was sent.",
        "The URL, a header or the signing secret of the endpoint can never work.",
        "The settings of your endpoint cannot be used as they are. Check its URL and headers, and save them again.",
    ),
    OutcomeClass.INTERNAL: Advice(
        "The attempt failed on our side; it does not count.",
        "A fault of this platform, which its operators have to mend.",
        "This was our fault, and nothing is wrong on your side. It is tried again by itself.",
    ),
    OutcomeClass.WORKER_LOST: Advice(
        "The attempt was interrupted on our side, and its answer was lost.",
        "A machine of this platform stopped in the middle of the attempt.",
        "This was our fault, and nothing is wrong on your side. It is tried again by itself.",
    ),
}


_BY_PHASE: Final[dict[tuple[OutcomeClass, Phase], Advice]] = {
    (OutcomeClass.DEADLINE, Phase.TLS): Advice(
        "The receiver accepted the connection, and then fell silent in the TLS handshake.",
        "What listens on this port does not speak TLS, or the server is overloaded.",
        "Your server takes the connection but does not begin to speak HTTPS. Check the port, and try the URL from "
        "outside your network.",
    ),
    (OutcomeClass.DEADLINE, Phase.WRITE): Advice(
        "The receiver accepted the connection, but did not read the notification in time.",
        "The receiver is overloaded, or a proxy in front of it holds the request back.",
        "Your server took the connection and did not read from it. Look at its load, and at the proxy before it.",
    ),
    (OutcomeClass.CLOSED, Phase.WRITE): Advice(
        "The receiver closed the connection before it had the whole notification.",
        "The receiver was being restarted, or a firewall cut the connection.",
        "Something before or in your server closes connections. Look at restarts and at the firewall at that moment.",
    ),
    (OutcomeClass.RESET, Phase.WRITE): Advice(
        "The receiver cut the connection before it had the whole notification.",
        "The receiver's process crashed, or a firewall cut the connection.",
        "Something before or in your server cuts connections. Look at crashes and at the firewall at that moment.",
    ),
    (OutcomeClass.PROTOCOL, Phase.WRITE): Advice(
        "The receiver spoke before it was asked anything.",
        "Another service than a web server listens on this port: mail, for example, or SSH.",
        "What answers at your URL is not a web server. Check the port of the URL.",
    ),
}
"""Of failures that mean something else by how far the attempt got."""


def _redirect(status: int, name: str) -> Advice:
    common = _BY_CLASS[OutcomeClass.REDIRECT_REFUSED]
    return Advice(
        f"The receiver answered {status} {name}, a redirect, which is never followed.",
        common.likely_cause,
        common.merchant_message,
    )


_BY_STATUS: Final[dict[int, Advice]] = {
    301: _redirect(301, "Moved Permanently"),
    302: _redirect(302, "Found"),
    303: _redirect(303, "See Other"),
    304: Advice(
        "The receiver answered 304 Not Modified, which makes no sense here.",
        "A cache in front of the receiver answers in its place.",
        "A cache answers instead of your server. Take this URL out of it.",
    ),
    307: _redirect(307, "Temporary Redirect"),
    308: _redirect(308, "Permanent Redirect"),
    400: Advice(
        "The receiver answered 400 Bad Request.",
        "The receiver cannot read the body, or misses something in it that it expects.",
        "Your server could not make sense of the body. Check that it reads it as JSON, and which field it misses.",
    ),
    402: Advice(
        "The receiver answered 402 Payment Required.",
        "The receiver's hosting has been suspended, mostly for an unpaid bill.",
        "Your hosting answers that it is not paid for. Ask your provider.",
    ),
    406: Advice(
        "The receiver answered 406 Not Acceptable.",
        "A security module of the receiver's web server, such as ModSecurity, took the request for an attack.",
        "A security rule of your web server refuses our requests. Make an exception for this URL.",
    ),
    415: Advice(
        "The receiver answered 415 Unsupported Media Type.",
        "The receiver expects a form, and gets JSON.",
        "Your server does not take application/json at this URL. Let it.",
    ),
    401: Advice(
        "The receiver answered 401 Unauthorized.",
        "The receiver wants a password or token, or found the signature not genuine.",
        "Your server did not accept our credentials or our signature. Check the password that you have registered, "
        "and verify the signature with the secret of this endpoint over the body exactly as it came.",
    ),
    403: Advice(
        "The receiver answered 403 Forbidden.",
        "A web application firewall, a list of allowed addresses, or protection against forged forms refused it.",
        "Something on your side does not let our requests in. Allow our sender addresses, and take this URL out of "
        "CSRF and bot protection.",
    ),
    404: Advice(
        "The receiver answered 404 Not Found.",
        "The path is misspelt, or the receiver was deployed without this route.",
        "Your server has nothing at this URL. Check its path, and what you have deployed since it last worked.",
    ),
    405: Advice(
        "The receiver answered 405 Method Not Allowed.",
        "The URL is that of a page, and takes another method than the one we send with.",
        "Your server does not take the method that we send with at this URL. Check the URL, or choose the other "
        "method, POST or GET, for your endpoint.",
    ),
    408: Advice(
        "The receiver answered 408 Request Timeout.",
        "The receiver, or a proxy in front of it, gave up reading the request; mostly it is overloaded.",
        "Your server gave up while it read our request. Look at its load, and at the time-outs of your proxy.",
    ),
    409: Advice(
        "The receiver answered 409 Conflict.",
        "The receiver has seen this notification before, or processes it at this moment.",
        "Your server says that this conflicts with what it has. If it means that the notification was processed "
        "already, let it answer with a 2xx.",
    ),
    410: _BY_CLASS[OutcomeClass.GONE],
    413: Advice(
        "The receiver answered 413 Content Too Large.",
        "The receiver's web server has a limit for bodies that is below the size of this one.",
        "Your server takes no body of this size. Raise its limit to 512 KiB.",
    ),
    422: Advice(
        "The receiver answered 422 Unprocessable Content.",
        "The receiver read the body and does not accept a value in it, or does not know this type of event.",
        "Your server read the body but does not accept it. If it does not need this type of event, let it answer "
        "with a 2xx, or do not subscribe to the type.",
    ),
    429: Advice(
        "The receiver answered 429 Too Many Requests.",
        "A rate limit in front of the receiver counts our requests.",
        "Your server is limiting our requests. Raise the limit for our sender addresses, or ask us for a rate limit.",
    ),
    500: Advice(
        "The receiver answered 500 Internal Server Error.",
        "The receiver's code failed while it handled this notification.",
        "Your code failed on this notification. The error is in your log at that moment.",
    ),
    502: Advice(
        "A proxy in front of the receiver answered 502 Bad Gateway.",
        "The receiver's application is not running, or crashed while it answered.",
        "Your proxy is up, but the application behind it did not answer properly. Check that it runs.",
    ),
    503: Advice(
        "The receiver answered 503 Service Unavailable.",
        "The receiver is overloaded, is being deployed, or is in maintenance.",
        "Your server says that it is not available. Check its maintenance mode, its load and its health.",
    ),
    504: Advice(
        "A proxy in front of the receiver answered 504 Gateway Timeout.",
        "The receiver's application takes longer than its proxy waits.",
        "Your application took longer than your proxy waits. Store the notification, answer with a 2xx at once, and "
        "do the work afterwards.",
    ),
}
"""Of statuses that say more than their class does."""
