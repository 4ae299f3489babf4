"""Previews: exactly what was previewed, once, for who has previewed it, for an hour."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from dispatcher.errors import Conflict, InvalidInput
from dispatcher.flow import previews, prune
from dispatcher.flow.previews import Promise
from dispatcher.flow.replay_choice import Options
from dispatcher.ids import format_id, parse_id, uuid7
from dispatcher.model.delivery import FAILED
from dispatcher.model.filter import Filter
from dispatcher.store.replays import Kind
from tests.support import walk

OWN = uuid7()
CHOSEN = Filter(
    states=FAILED,
    but_delivered=True,
    tenant_id=OWN,
    endpoint_id=uuid7(),
    delivery_ids=(uuid7(), uuid7()),
    created_after=walk.NOW - timedelta(days=1),
    as_of=walk.NOW,
)
PROMISE = Promise("replay", CHOSEN, 128, Options(rate=2.5, rate_per_endpoint=1.0, canary=3, goes_to=uuid7()))


def keep(connection: Connection) -> str:
    return previews.keep(connection, PROMISE, own=OWN, now=walk.NOW)[0]


def take(
    connection: Connection, token: str, *, kind: Kind = "replay", own: UUID | None = OWN, now: datetime = walk.NOW
) -> Promise:
    return previews.take(connection, token, kind=kind, own=own, now=now)[1]


def test_a_token_is_short_and_stands_for_what_was_previewed(engine: Engine) -> None:
    with engine.begin() as connection:
        token, until = previews.keep(connection, PROMISE, own=OWN, now=walk.NOW)
        assert until - walk.NOW == timedelta(hours=1)
        assert token == format_id("prv", parse_id("prv", token))
        assert take(connection, token) == PROMISE
    chosen = {one.name: getattr(CHOSEN, one.name) for one in fields(Filter) if one.name != "as_of"}
    assert previews.is_same(CHOSEN, Filter(**chosen))
    assert not previews.is_same(CHOSEN, Filter(states=FAILED))


def test_a_token_counts_for_an_hour(engine: Engine) -> None:
    with engine.begin() as connection:
        token = keep(connection)
        assert take(connection, token, now=walk.NOW + timedelta(minutes=59, seconds=59)) == PROMISE
        with pytest.raises(InvalidInput, match="older than an hour"):
            take(connection, token, now=walk.NOW + timedelta(hours=1))


def test_anothers_token_is_answered_as_one_of_nobody(engine: Engine) -> None:
    nobodys = format_id("prv", uuid7())
    with engine.begin() as connection:
        token = keep(connection)
        said = set()
        for asked, own in ((token, None), (token, uuid7()), (nobodys, OWN), (nobodys, None)):
            with pytest.raises(InvalidInput) as error:
                take(connection, asked, own=own)
            said.add(str(error.value))
    expected = "found an unknown or expired preview_token; allowed: one of the same resource, at most an hour old"
    assert said == {f"/preview_token: {expected}"}


def test_a_token_is_of_one_kind(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(InvalidInput, match="preview of a replay"):
        take(connection, keep(connection), kind="cancellation")


@pytest.mark.parametrize("token", ["", "prv_1", "k1.a.b", "rpl_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968", "prv_\0"])
def test_a_malformed_token_is_refused(engine: Engine, token: str) -> None:
    with engine.begin() as connection, pytest.raises(InvalidInput) as error:
        take(connection, token)
    assert (error.value.pointer, error.value.allowed) == ("/preview_token", "prv_ and a UUID")


def test_a_token_starts_one_replay_also_once_its_hour_has_passed(engine: Engine) -> None:
    first = uuid7()
    with engine.begin() as connection:
        token = keep(connection)
        previews.use(connection, parse_id("prv", token), first)
        for now in (walk.NOW, walk.NOW + timedelta(hours=2)):
            with pytest.raises(Conflict, match=format_id("rpl", first)) as error:
                take(connection, token, now=now)
            assert error.value.code == "PREVIEW_USED"


def test_previews_whose_hour_has_passed_are_deleted(engine: Engine) -> None:
    with engine.begin() as connection:
        token = keep(connection)
        prune.prune(connection, now=walk.NOW + timedelta(minutes=59))
        assert take(connection, token) == PROMISE
        prune.prune(connection, now=walk.NOW + timedelta(hours=1))
        assert walk.rows(connection, "SELECT id FROM dispatcher.previews") == []
