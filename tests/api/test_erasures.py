"""`/v1/erasures`."""

from __future__ import annotations

import httpx
from sqlalchemy import Engine

from tests.support import walk


async def test_an_erased_event_says_so(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
    sent = await api.post("/v1/events", json={"type": "a.b", "payload": {"card": 1}, "object_id": "pay_1"})
    answer = await api.post("/v1/erasures", json={"object_id": "pay_1", "reason": "asked for"})
    assert answer.status_code == 202
    found = answer.json()
    assert (found["status"], found["events"], found["cancelled_deliveries"]) == ("done", 1, 1)
    event = (await api.get(f"/v1/events/{sent.json()['id']}")).json()
    assert (event["payload"], event["payload_gone"]) == (None, "erased")
    again = (await api.get(f"/v1/erasures/{found['id']}")).json()
    assert again == found
    log = (await api.get("/v1/audit_log", params={"object": found["id"]})).json()["data"]
    assert [entry["action"] for entry in log] == ["object.erased"]
