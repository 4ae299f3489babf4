"""What an outcome means, in plain words: for the operator, and for the merchant on the phone."""

from __future__ import annotations

from typing import Final

from dispatcher.model.outcome import OutcomeClass, Phase
from dispatcher.model.outcome_class import Advice, Verdict


def advise(
    kind: OutcomeClass, *, status_code: int | None = None, phase: Phase | None = None, known: bool = True
) -> Advice:
    """What is to be said of an attempt.

    `phase` is how far it got; `known` is False where the receiver may have got it all the same.

    >>> advise(OutcomeClass.HTTP_4XX, status_code=404).summary
    'The receiver answered 404 Not Found.'
    """
    found = kind.advice
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
    kind for kind in OutcomeClass if kind.verdict is Verdict.BY_STATUS and kind is not OutcomeClass.UNEXPECTED_2XX
)
"""Failures whose status says more than their class."""

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
    common = OutcomeClass.REDIRECT_REFUSED.advice
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
    410: OutcomeClass.GONE.advice,
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
