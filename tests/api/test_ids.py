"""`GET /v1/ids/{short_id}`: the ids that begin with some characters, as far as the caller may read the objects."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dispatcher.api.ids import LISTED_IDS, READERS
from dispatcher.ids import format_id
from dispatcher.model.access import Scope
from tests.api.callers import bearer, make_key
from tests.api.conftest import other_tenant
from tests.support import walk

READ = {
    "evt": "/v1/events/{}",
    "ep": "/v1/endpoints/{}",
    "dlv": "/v1/deliveries/{}",
    "rpl": "/v1/replays/{}",
    "ten": "/v1/tenants/{}",
    "key": "/v1/keys",
    "pau": "/v1/pauses",
    "ers": "/v1/erasures/{}",
}
"""The route that reads an object, by the kind of id; the list, where an object has no route of its own."""


async def make(api: httpx.AsyncClient, key: str) -> dict[str, str]:
    """An object of every kind, made with this key: their ids by the kind."""

    async def post(path: str, **asked: Any) -> Any:
        answer = await api.post(path, json=asked, headers=bearer(key))
        assert answer.is_success, answer.text
        return answer.json()

    endpoint = await post("/v1/endpoints", url="https://shop.example.com/hook")
    event = await post("/v1/events", type="payment.completed", payload=1)
    (delivery,) = (await api.get("/v1/deliveries", params={"event_id": event["id"]}, headers=bearer(key))).json()[
        "data"
    ]
    token = (await post("/v1/replays/preview"))["preview_token"]
    return {
        "evt": event["id"],
        "ep": endpoint["id"],
        "dlv": delivery["id"],
        "rpl": (await post("/v1/replays", preview_token=token))["id"],
        "ten": endpoint["tenant_id"],
        "key": (await post("/v1/keys", name="till"))["id"],
        "pau": (await post("/v1/pauses", endpoint_id=endpoint["id"]))["id"],
        "ers": (await post("/v1/erasures", object_id="pay_1"))["id"],
    }


@pytest.fixture
async def two(api: httpx.AsyncClient, engine: Engine) -> tuple[dict[str, str], dict[str, str], str]:
    """The objects of two tenants, made at about the same time, and a key of the second one."""
    _, key = other_tenant(engine)
    owner = (await api.post("/v1/tenants", json={"name": "mine"})).json()["id"]
    mine = await make_key(api, tenant_id=owner)
    return await make(api, key), await make(api, mine["key"]), mine["key"]


async def ids(api: httpx.AsyncClient, short_id: str, key: str | None = None) -> list[str]:
    answer = await api.get(f"/v1/ids/{short_id}", headers={} if key is None else bearer(key))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["ids"])


def in_common(first: str, second: str) -> str:
    """The longest beginning of both."""
    length = next(n for n, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
    return first[:length]


async def shortest(api: httpx.AsyncClient, id_: str) -> str:
    """The shortest beginning that no other id has."""
    short = id_[:8]
    while (found := await ids(api, short)) != [id_]:
        assert id_ in found
        short = id_[: len(short) + 1]
    return short


async def test_ids_of_every_kind_are_found_by_their_beginning(
    api: httpx.AsyncClient, two: tuple[dict[str, str], dict[str, str], str]
) -> None:
    theirs, mine, key = two
    assert theirs.keys() == mine.keys() == READERS.keys()
    for prefix, id_ in mine.items():
        short = in_common(id_, theirs[prefix])
        both = await ids(api, short)
        assert both == sorted(both, reverse=True), "the newest first"
        assert {id_, theirs[prefix]} <= set(both), prefix
        own = await ids(api, short, key)
        assert id_ in own, prefix
        assert theirs[prefix] not in own, prefix
        assert len(await shortest(api, id_)) < len(id_)
        assert await ids(api, id_) == [id_], "a whole id is the beginning of itself"


async def test_an_id_of_another_tenant_is_not_found(
    api: httpx.AsyncClient, two: tuple[dict[str, str], dict[str, str], str]
) -> None:
    theirs, _, key = two
    for id_ in theirs.values():
        short = await shortest(api, id_)
        answer = await api.get(f"/v1/ids/{short}", headers=bearer(key))
        assert answer.status_code == 404
        assert answer.json()["detail"].partition(";")[0] == f"there is no id that begins with {short}"


async def test_a_key_needs_the_scopes_of_reading_the_object(
    api: httpx.AsyncClient, two: tuple[dict[str, str], dict[str, str], str]
) -> None:
    _, mine, key = two
    for scope in Scope:
        scoped = (await make_key(api, by=key, scopes=[scope]))["key"]
        for prefix, id_ in mine.items():
            read = await api.get(READ[prefix].format(id_), headers=bearer(scoped))
            resolved = await api.get(f"/v1/ids/{id_[:12]}", headers=bearer(scoped))
            assert resolved.status_code == read.status_code, (scope, prefix)
            if read.status_code == 403:
                assert resolved.json()["detail"] == read.json()["detail"]


async def test_an_ended_delivery_is_found_as_a_waiting_one_is(api: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection)
        first = walk.emit(connection, 1, now=None)
        worker = walk.add_worker(connection, now=None)
        walk.record(connection, [walk.result(claim) for claim in walk.claim(connection, worker, now=None)], now=None)
        walk.emit(connection, 1, now=None)
    assert first
    listed = [one["id"] for one in (await api.get("/v1/deliveries")).json()["data"]]
    states = [one["status"] for one in (await api.get("/v1/deliveries")).json()["data"]]
    assert sorted(states) == ["delivered", "waiting"]
    assert await ids(api, in_common(*listed)) == listed


async def test_of_many_ids_the_newest_are_listed(api: httpx.AsyncClient) -> None:
    made = [(await api.post("/v1/keys", json={"name": "till"})).json()["id"] for _ in range(LISTED_IDS + 1)]
    answer = (await api.get("/v1/ids/key_0")).json()
    assert answer == {"ids": made[:0:-1], "has_more": True}


async def test_a_deleted_endpoint_is_found_only_by_who_may_read_the_audit_log(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    endpoint = (await api.post("/v1/endpoints", json={"url": "https://shop.example.com/"})).json()["id"]
    assert await ids(api, endpoint[:15]) == [endpoint]
    await api.delete(f"/v1/endpoints/{endpoint}")
    assert await ids(api, endpoint[:15]) == [endpoint]
    reader = (await make_key(api, scopes=["deliveries:read"]))["key"]
    assert (await api.get(f"/v1/ids/{endpoint[:15]}", headers=bearer(reader))).status_code == 404
    _, key = other_tenant(engine)
    assert (await api.get(f"/v1/ids/{endpoint[:15]}", headers=bearer(key))).status_code == 404


@pytest.mark.parametrize("short_id", ["dlv_f", "dlv_0", "ep_ffffffff-ffff-ffff-ffff-ffffffffffff"])
async def test_the_first_and_the_last_ids_there_can_be_are_searched_too(api: httpx.AsyncClient, short_id: str) -> None:
    assert (await api.get(f"/v1/ids/{short_id}")).status_code == 404


@pytest.mark.parametrize("short_id", ["dlv_", "dlv_0189A", "dlv_01890a5dac96", "att_0189", "pay_1", "0189", "dlv_x"])
async def test_what_no_id_begins_with_is_refused(api: httpx.AsyncClient, short_id: str) -> None:
    answer = await api.get(f"/v1/ids/{short_id}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "short_id")
    assert f"found {short_id!r}" in answer.json()["detail"]
    assert "dlv_" in answer.json()["detail"]


async def test_the_default_tenant_is_found_by_its_beginning(api: httpx.AsyncClient) -> None:
    assert await ids(api, "ten_00000000") == [format_id("ten", walk.DEFAULT_TENANT)]
