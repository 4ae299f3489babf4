"""Preview tokens: exactly what was previewed, for who has previewed it, for an hour."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.flow import previews
from dispatcher.ids import uuid7
from dispatcher.model.delivery import FAILED
from dispatcher.signing import Keyring
from dispatcher.store.log import Filter
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
PROMISE = previews.Promise("replay", CHOSEN, 128)
TOKEN, UNTIL = previews.seal(walk.KEYS, PROMISE, own=OWN, now=walk.NOW)


def read(token: str = TOKEN, *, keyring: Keyring = walk.KEYS, own: UUID | None = OWN, **values: object) -> object:
    asked = {"kind": "replay", "now": walk.NOW} | values
    return previews.read(keyring, token, own=own, **asked)  # type: ignore[arg-type]


def test_a_token_says_what_was_previewed() -> None:
    assert read() == PROMISE
    lifetime = UNTIL - walk.NOW
    assert lifetime == timedelta(hours=1)
    assert previews.is_same(
        CHOSEN,
        Filter(
            **{
                name: getattr(CHOSEN, name)
                for name in ("states", "but_delivered", "tenant_id", "endpoint_id", "delivery_ids", "created_after")
            }
        ),
    )
    assert not previews.is_same(CHOSEN, Filter(states=FAILED))


def test_a_token_counts_for_an_hour() -> None:
    assert read(now=walk.NOW + timedelta(minutes=59, seconds=59)) == PROMISE
    with pytest.raises(InvalidInput, match="older than an hour"):
        read(now=walk.NOW + timedelta(hours=1))


@pytest.mark.parametrize(("own", "kind"), [(None, "replay"), (uuid7(), "replay"), (OWN, "cancellation")])
def test_a_token_counts_for_nobody_and_nothing_else(own: UUID | None, kind: str) -> None:
    with pytest.raises(InvalidInput, match="another preview"):
        read(own=own, kind=kind)


def test_a_token_outlives_a_rotation_of_the_keyring_while_its_key_is_there() -> None:
    assert read(keyring=walk.KEYS.rotated()) == PROMISE
    with pytest.raises(InvalidInput, match="no token of ours"):
        read(keyring=Keyring.generate())


def test_its_key_is_neither_the_keyrings_own_nor_that_of_another_purpose() -> None:
    derived = walk.KEYS.derive("one")
    assert len(derived) == 32
    assert derived != b"k" * 32
    assert derived != walk.KEYS.derive("other")
    assert derived == walk.KEYS.rotated().derive("one", key_id="k1")


def test_an_altered_document_is_refused() -> None:
    key_id, document, tag = TOKEN.split(".")
    said = orjson.loads(urlsafe_b64decode(document + "=="))
    for change in ({"count": 1}, {"own": None}, {"until": "2999-01-01T00:00:00+00:00"}, {"kind": "cancellation"}):
        forged = urlsafe_b64encode(orjson.dumps(said | change)).decode()
        with pytest.raises(InvalidInput, match="no token of ours"):
            read(f"{key_id}.{forged}.{tag}")


@given(st.text(max_size=60) | st.builds("{}.{}.{}".format, st.just("k1"), st.text(max_size=20), st.text(max_size=20)))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no token of ours"):
        read(text)
