"""Which platform key signs and which is published, whatever is done to them and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from dispatcher.clock import Clock
from dispatcher.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from dispatcher.flow import signing_keys as flow
from dispatcher.flow.signing_keys import OVERLAP, SIGNS_IN, PlatformKeys
from dispatcher.signing import SCHEMES, Keyring, Scheme, Secret, VerificationError, loaded_keys, platform_keys
from dispatcher.signing.platform_keys import PlatformKey, import_pem, load_key
from dispatcher.signing.platform_keys import generate_key as make_key
from dispatcher.signing.scheme import KeyKind
from dispatcher.store import signing_keys as store
from dispatcher.store import trail
from dispatcher.store.signing_keys import SigningKey
from tests.support import walk
from tests.support.walk import NOW


@pytest.fixture(autouse=True)
def no_keys(engine: Engine) -> None:
    walk.forget_signing_keys(engine)


PEM = (Path(__file__).parents[1] / "vectors/rfc9500_rsa_2048.pem").read_bytes()
KEYS = Keyring({"k1": b"k" * 32})
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
PLATFORM = [scheme for scheme in SCHEMES.values() if scheme.key_kind is not None]
RSA_SHA1, RSA_SHA256, V1A = SCHEMES["rsa_sha1"], SCHEMES["rsa_sha256"], SCHEMES["standard_webhooks_v1a"]


@cache
def key_of(kind: KeyKind, number: int) -> PlatformKey:
    """The same keys in every test: to make an RSA key of 3,072 bits takes half a second."""
    if kind == "ed25519":
        return make_key(kind)
    made = generate_private_key(65_537, 2048)
    return import_pem(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@dataclass
class Desk:
    """The verbs, on one connection and a clock that is moved by hand."""

    connection: Connection
    monkeypatch: pytest.MonkeyPatch
    now: datetime = NOW
    made: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(platform_keys, "generate_key", lambda kind: key_of(kind, next(self.made)))

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now)

    def generate(self, kind: KeyKind = "ed25519", **values: Any) -> SigningKey:
        return flow.generate(self.connection, KEYS, kind, by="cli:test", clock=self.clock, **values)

    def import_(self, pem: bytes = PEM, **values: Any) -> SigningKey:
        return flow.import_(self.connection, KEYS, pem, by="cli:test", clock=self.clock, **values)

    def rotate(self, kind: KeyKind = "ed25519") -> SigningKey:
        return flow.rotate(self.connection, KEYS, kind, by="cli:test", clock=self.clock)

    def retire(self, key: SigningKey, **values: Any) -> SigningKey:
        return flow.retire(self.connection, key.id, by="cli:test", clock=self.clock, **values)

    def load(self, keyring: Keyring = KEYS) -> PlatformKeys:
        return PlatformKeys.load(self.connection, keyring, self.clock)

    def windows(self) -> dict[str, tuple[datetime | None, datetime | None]]:
        return {one.id: (one.signs_until, one.published_until) for one in store.list_(self.connection)}

    def ids_signing(self, scheme: Scheme, at: datetime) -> list[str]:
        return [load_key(Secret(private)).id for private in self.load().signing(scheme, at)]


@pytest.fixture
def desk(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with engine.connect() as connection:
        yield Desk(connection, monkeypatch)


def signed(scheme: Scheme, keys: tuple[bytes, ...], at: datetime) -> dict[str, str]:
    raw = scheme.sign(message_id="evt_1", timestamp=int(at.timestamp()), body=b"{}", keys=keys)
    return {name.decode(): value.decode() for name, value in raw}


def verify(scheme: Scheme, headers: dict[str, str], publics: list[bytes], at: datetime) -> None:
    scheme.verify(headers=headers, body=b"{}", keys=publics, now=int(at.timestamp()))


# Rotation


def test_the_first_key_of_a_kind_signs_at_once_and_without_end(desk: Desk) -> None:
    first = desk.generate()
    assert (first.created_at, first.signs_from, first.signs_until, first.published_until) == (NOW, NOW, None, None)
    assert desk.import_().signs_from == NOW, "another kind has a first key of its own"


def test_a_rotation_publishes_now_signs_in_a_day_and_overlaps_for_another(desk: Desk) -> None:
    old = desk.generate()
    new = desk.rotate()
    assert (new.signs_from, new.signs_until, new.published_until) == (NOW + SIGNS_IN, None, None)
    until = NOW + SIGNS_IN + OVERLAP
    assert desk.windows()[old.id] == (until, until + OVERLAP)
    for at, signing, published in (
        (NOW, [old], [new, old]),
        (new.signs_from - SECOND, [old], [new, old]),
        (new.signs_from, [new, old], [new, old]),
        (until - SECOND, [new, old], [new, old]),
        (until, [new], [new, old]),
        (until + OVERLAP, [new], [new]),
    ):
        assert desk.ids_signing(V1A, at) == [one.id for one in signing]
        assert [one.id for one in desk.load().public(at)] == [one.id for one in published]


def test_a_receiver_with_either_key_finds_its_signature_during_the_overlap(desk: Desk) -> None:
    old, new = desk.generate(), desk.rotate()
    at = new.signs_from + HOUR
    headers = signed(V1A, desk.load().signing(V1A, at), at)
    verify(V1A, headers, [old.public], at)
    verify(V1A, headers, [new.public], at)


def test_a_scheme_of_one_signature_switches_when_the_new_key_begins(desk: Desk) -> None:
    old = desk.import_()
    new = desk.generate("rsa", signs_in=HOUR)
    before, after = new.signs_from - SECOND, new.signs_from
    keys = desk.load()
    verify(RSA_SHA1, signed(RSA_SHA1, keys.signing(RSA_SHA1, before), before), [old.public], before)
    headers = signed(RSA_SHA1, keys.signing(RSA_SHA1, after), after)
    verify(RSA_SHA1, headers, [new.public], after)
    with pytest.raises(VerificationError):
        verify(RSA_SHA1, headers, [old.public], after)


def test_an_old_key_is_published_for_an_hour_at_least_after_its_last_signature(desk: Desk) -> None:
    old = desk.generate()
    desk.generate(signs_in=timedelta(0), overlap=timedelta(0))
    assert desk.windows()[old.id] == (NOW, NOW + flow.STAYS_PUBLISHED)


def test_a_second_rotation_lengthens_nothing_and_a_shorter_one_shortens(desk: Desk) -> None:
    first, second = desk.generate(), desk.rotate()
    before = desk.windows()[first.id]
    desk.now += HOUR
    desk.rotate()
    assert desk.windows()[first.id] == before
    desk.generate(signs_in=timedelta(0), overlap=HOUR)
    assert desk.windows()[first.id] == (desk.now + HOUR, desk.now + 2 * HOUR)
    assert desk.windows()[second.id][0] == second.signs_from + HOUR + OVERLAP, "which has not begun"


def test_a_key_that_begins_before_one_that_waits_ends_after_it(desk: Desk) -> None:
    desk.generate()
    waiting = desk.rotate()
    urgent = desk.generate(signs_in=timedelta(0), overlap=HOUR)
    assert urgent.signs_until == waiting.signs_from + HOUR
    assert desk.ids_signing(V1A, waiting.signs_from) == [waiting.id, urgent.id]


def test_waits_that_cannot_be_meant_are_refused(desk: Desk) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"signs_in": -SECOND}, "/signs_in"),
        ({"overlap": -SECOND}, "/overlap"),
        ({"signs_in": timedelta(days=367)}, "/signs_in"),
        ({"overlap": timedelta.max}, "/overlap"),
    ]
    for values, pointer in refused:
        with pytest.raises(InvalidInput) as caught:
            desk.generate(**values)
        assert caught.value.pointer == pointer
    assert desk.windows() == {}


# Import


def test_an_imported_key_is_as_a_new_one(desk: Desk) -> None:
    key = desk.import_()
    assert (key.id, key.kind) == (import_pem(PEM).id, "rsa")
    assert desk.ids_signing(RSA_SHA1, NOW) == [key.id]
    with pytest.raises(Conflict, match="here already"):
        desk.import_()


def test_an_encrypted_key_is_imported_with_its_password_and_of_the_right_kind_only(desk: Desk) -> None:
    private = loaded_keys.private_key(key_of("ed25519", 0).private.reveal())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    for values in ({}, {"password": Secret(b"other")}, {"password": Secret(b"word"), "kind": "rsa"}):
        with pytest.raises(InvalidInput):
            desk.import_(pem, **values)
    assert desk.import_(pem, password=Secret(b"word")).id == key_of("ed25519", 0).id


# Retiring


def test_a_retired_key_neither_signs_nor_is_published(desk: Desk) -> None:
    old, new = desk.generate(), desk.generate(signs_in=timedelta(0))
    desk.now += HOUR
    retired = desk.retire(old)
    assert (retired.signs_until, retired.published_until) == (desk.now, desk.now)
    assert desk.ids_signing(V1A, desk.now) == [new.id]
    assert [one.id for one in desk.load().public(desk.now)] == [new.id]
    with pytest.raises(Conflict, match="not published any more"):
        desk.retire(old)


def test_the_only_key_that_signs_is_not_retired_unless_forced(desk: Desk) -> None:
    only = desk.generate()
    waiting = desk.rotate()
    with pytest.raises(Conflict, match="no other ed25519 key signs now"):
        desk.retire(only)
    desk.retire(only, force=True)
    assert desk.ids_signing(V1A, NOW) == []
    assert desk.load().fault(V1A, NOW) == "the platform has no ed25519 key that signs now"
    assert desk.ids_signing(V1A, waiting.signs_from) == [waiting.id]
    assert desk.generate().signs_from == NOW, "where none signs, the next one does at once"


def test_when_a_new_key_is_retired_the_one_before_it_goes_on(desk: Desk) -> None:
    old = desk.generate()
    new = desk.rotate()
    desk.now += SIGNS_IN + HOUR
    desk.retire(new)
    assert desk.windows()[old.id] == (None, None)
    assert desk.ids_signing(V1A, desk.now + 1000 * HOUR) == [old.id]


def test_an_unknown_key_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound):
        desk.retire(SigningKey(id="x", kind="rsa", public=b"", sealed="", created_at=NOW, signs_from=NOW))


def test_every_change_is_in_the_audit_log_with_public_facts_only(desk: Desk) -> None:
    old = desk.import_()
    new = desk.generate("rsa", signs_in=HOUR)
    desk.retire(new)
    entries = {one.action: one for one in trail.read(desk.connection)}
    assert {action: one.object for action, one in entries.items()} == {
        "signing_key.imported": old.id,
        "signing_key.generated": new.id,
        "signing_key.superseded": old.id,
        "signing_key.retired": new.id,
        "signing_key.reinstated": old.id,
    }
    assert entries["signing_key.superseded"].before == entries["signing_key.reinstated"].after
    for one in entries.values():
        assert (one.actor, one.tenant_id) == ("cli:test", None)
        assert one.after is not None
        assert set(one.after) == {"kind", "signs_from", "signs_until", "published_until"}


# What workers load


def test_a_private_half_opens_in_its_own_row_only(desk: Desk) -> None:
    first, second = desk.generate(), desk.generate(signs_in=timedelta(0))
    desk.connection.execute(
        text("UPDATE dispatcher.signing_keys SET sealed = :sealed WHERE id = :id"),
        {"sealed": first.sealed, "id": second.id},
    )
    keys = desk.load()
    assert set(keys.faults) == {second.id}
    assert "does not open this value" in keys.faults[second.id]
    assert len(keys.signing(V1A, NOW)) == 1, "and stops no other"
    assert keys.fault(V1A, NOW) is None


def test_a_public_half_of_another_key_is_a_fault(desk: Desk) -> None:
    key = desk.generate()
    desk.connection.execute(
        text("UPDATE dispatcher.signing_keys SET public = :public"), {"public": key_of("ed25519", 7).public}
    )
    assert desk.load().fault(V1A, NOW) == f"signing key {key.id}: its public half is another key's"


def test_a_key_that_cannot_be_opened_stops_only_its_own_schemes(desk: Desk) -> None:
    desk.generate()
    other_keyring = Keyring({"k2": b"o" * 32})
    flow.import_(desk.connection, other_keyring, PEM, by="x", clock=desk.clock)
    keys = desk.load()
    assert len(keys.signing(V1A, NOW)) == 1
    assert keys.signing(RSA_SHA1, NOW) == ()
    assert "sealed by key k2, which is not in the keyring" in str(keys.fault(RSA_SHA1, NOW))
    assert len(keys.public(NOW)) == 2, "others may verify what was signed before"
    with pytest.raises(ConfigurationError, match="a private half that the keyring opens") as caught:
        keys.self_test()
    assert len(caught.value.problems) == 1
    keys.self_test([V1A])
    assert len(desk.load(other_keyring).faults) == 1


def test_a_key_that_signs_no_more_need_not_open(desk: Desk) -> None:
    flow.generate(desk.connection, Keyring({"lost": b"o" * 32}), "ed25519", by="x", clock=desk.clock)
    desk.generate(signs_in=timedelta(0), overlap=timedelta(0))
    keys = desk.load()
    assert not keys.faults
    assert len(keys.public(NOW)) == 2
    keys.self_test()


def test_the_self_test_tells_of_keys_and_schemes_that_fail(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.generate()
    desk.import_()
    desk.load().self_test()

    def forbidden(**_: object) -> None:
        raise ValueError("SHA-1 is not supported here")

    monkeypatch.setattr(type(RSA_SHA1), "sign", lambda self, **values: forbidden(**values))
    with pytest.raises(ConfigurationError, match="SHA-1 is not supported here") as caught:
        desk.load().self_test()
    assert [problem.field for problem in caught.value.problems] == ["rsa_sha1"]
    desk.load().self_test([RSA_SHA256, V1A])


def test_without_keys_nothing_signs_and_endpoints_secrets_are_no_matter_of_these() -> None:
    keys = PlatformKeys()
    assert keys.public(NOW) == ()
    keys.self_test()
    for scheme in SCHEMES.values():
        assert keys.signing(scheme, NOW) == ()
        assert (keys.fault(scheme, NOW) is None) == (scheme.key_owner == "endpoint")


def test_a_snapshot_shows_no_private_half(desk: Desk) -> None:
    desk.generate()
    keys = desk.load()
    assert repr(keys.signing(V1A, NOW)[0])[2:-1] not in repr(keys)
    assert "v1.k1" not in repr(keys)


# The invariant

waits = st.sampled_from([timedelta(0), SECOND, HOUR, SIGNS_IN, 3 * SIGNS_IN])
changes = st.lists(
    st.tuples(
        st.sampled_from(["generate", "generate", "rotate", "retire", "force"]),
        st.sampled_from(["rsa", "ed25519"]),
        waits,
        waits,
        st.integers(0, 9),
        st.sampled_from([timedelta(0), SECOND, timedelta(minutes=4), 5 * HOUR, 23 * HOUR, 25 * HOUR, 4 * SIGNS_IN]),
    ),
    min_size=2,
    max_size=7,
)


@given(steps=changes, later=st.lists(st.timedeltas(timedelta(0), timedelta(days=9)), min_size=2, max_size=4))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_signed_at_any_instant_verifies_with_what_is_published_then(
    engine: Engine, steps: list[Any], later: list[timedelta]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, engine.connect() as connection:
        desk = Desk(connection, monkeypatch)
        broken: set[str] = set()  # kinds of which an operator took away a key by force
        begun: set[str] = set()
        sent: list[tuple[Scheme, dict[str, str], datetime]] = []
        for verb, kind, signs_in, overlap, which, passed in steps:
            desk.now += passed
            keys = [one for one in store.list_(connection, kind=kind) if one.is_published(desk.now)]
            try:
                match verb:
                    case "generate":
                        desk.generate(kind, signs_in=signs_in if keys else None, overlap=overlap)
                    case "rotate":
                        desk.rotate(kind)
                    case _ if keys:
                        desk.retire(keys[which % len(keys)], force=verb == "force")
                        sent = [one for one in sent if one[0].key_kind != kind]  # what it signed is refused, as said
                        broken |= {kind} if verb == "force" else set()
            except Conflict:
                event("a retirement was refused")
            begun |= {one.kind for one in store.list_(connection)}
            snapshot = desk.load()
            assert not snapshot.faults

            # What was sent within the last minutes still verifies.
            sent = [one for one in sent if desk.now - one[2] <= timedelta(minutes=5)]
            for scheme, headers, _ in sent:
                found = [one.public for one in snapshot.public(desk.now) if one.kind == scheme.key_kind]
                verify(scheme, headers, found, desk.now)

            for at in (desk.now, *(desk.now + wait for wait in later)):
                for scheme in PLATFORM:
                    signing = snapshot.signing(scheme, at)
                    if not signing:
                        assert scheme.key_kind in broken or scheme.key_kind not in begun, "there is always one"
                        continue
                    headers = signed(scheme, signing, at)
                    for publication in (at, at + timedelta(minutes=5)):
                        found = [one.public for one in snapshot.public(publication) if one.kind == scheme.key_kind]
                        verify(scheme, headers, found, publication)
                    if at == desk.now:
                        sent.append((scheme, headers, at))
