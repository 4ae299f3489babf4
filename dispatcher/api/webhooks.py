"""The `webhooks` of the OpenAPI document: what receivers are sent, in each form that a profile can choose."""

from __future__ import annotations

from typing import Any, Final

from dispatcher.signing import SCHEMES

_ANSWERS: Final = {
    "2XX": {"description": "The event is delivered, unless the profile asks for more, such as a body that says OK."},
    "default": {
        "description": "The attempt failed; it is repeated on the endpoint's schedule, or not at all after 410."
    },
}

_QUERY: Final = {
    "id": ("The event's id.", "evt_019cade3-3f40-7c1e-9d2b-5f6a7b8c9d0e", True),
    "type": ("The event's type.", "payment.completed", True),
    "object_id": ("What the event is about, where it says so.", "pay_8f3k2", False),
    "timestamp": ("When the event was accepted.", "2026-03-02T09:00:00.123Z", True),
}


def _parameter(place: str, name: str, description: str, example: str, *, required: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": description,
        "schema": {"type": "string", "examples": [example]},
    }


def _signatures() -> list[dict[str, Any]]:
    """The headers of every scheme; which of them are sent is the endpoint's choice."""
    found: dict[str, list[str]] = {}
    for scheme in SCHEMES.values():
        for header in scheme.header_names:
            found.setdefault(header, []).append(scheme.name)
    return [
        _parameter("header", header, f"Sent by {', '.join(schemes)}; see docs/signatures.md.", "…", required=False)
        for header, schemes in found.items()
    ]


def _operation(summary: str, description: str, *, schema: Any = None, query: bool = False) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "description": description,
        "operationId": "deliver" + "".join(word.capitalize() for word in summary.split()),
        "tags": ["webhooks"],
        "security": [],
        "parameters": _signatures(),
        "responses": _ANSWERS,
    }
    if query:
        operation["parameters"] += [
            _parameter("query", name, text, example, required=required)
            for name, (text, example, required) in _QUERY.items()
        ]
    else:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def webhooks() -> dict[str, Any]:
    """Each by its name. The shape `DeliveredEvent` must be among the document's."""
    delivered = {"$ref": "#/components/schemas/DeliveredEvent"}
    return {
        "event": {
            "post": _operation(
                "Event",
                "An event, of a profile whose body form is `envelope`, as that of the default one.",
                schema=delivered,
            )
        },
        "verbatim": {
            "post": _operation(
                "Verbatim Event", "An event's payload alone, of a profile whose body form is `verbatim`.", schema={}
            )
        },
        "ping": {
            "post": _operation(
                "Ping",
                "Sent when an endpoint is registered, where the profile asks for that, and by `pingEndpoint`: an event "
                "of the type `endpoint.ping` in test mode. The first one is not signed: nobody holds the secret yet.",
                schema=delivered,
            )
        },
        "get": {
            "get": _operation(
                "Event By Get",
                "An event to an endpoint with the method GET: what happened stands in the query. Path and query are "
                "signed in the place of a body; see 'What is signed' in docs/signatures.md.",
                query=True,
            )
        },
    }
