"""The audit log: who changed what."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from dispatcher.shapes.about import About
from dispatcher.shapes.values import ChangeId, Instant, Paged, TenantId


class AuditEntry(TypedDict):
    """One change."""

    id: ChangeId
    at: Instant
    actor: Annotated[
        str,
        About(
            "The id of a key, `cli:` and the account's name, or the process that changed it by itself.",
            "key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968",
        ),
    ]
    action: Annotated[str, About(example="endpoint.created")]
    object: Annotated[str, About("The id of the object that was changed.", "ep_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968")]
    tenant_id: Annotated[
        TenantId | None, About("The tenant that owns the object; null for an object of the whole installation.")
    ]
    before: Annotated[dict[str, Any] | None, About("The object before the change, without secrets.", None)]
    after: Annotated[
        dict[str, Any] | None,
        About("The object after the change, without secrets.", {"url": "https://shop.example.com/webhooks"}),
    ]


class AuditPage(Paged):
    """A page of the audit log, the newest entry first."""

    data: list[AuditEntry]
