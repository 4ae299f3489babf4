"""The platform's own signing keys: which of them sign, and which are published, at every instant.

Time decides; nothing has to run at the instant when a key begins or ends. A new key is published at once and begins to
sign later. The keys that signed until then do so for an overlap beside it, and are published for that long again:

    created        signs_from of the new             + overlap                 + overlap again, an hour at least
    ├──────────────┼─────────────────────────────────┼─────────────────────────┤
    old            signs                             signs                     is published
    new            is published                      signs                     signs

A scheme that signs with every key therefore sends both signatures during the overlap, so that a receiver who holds
either key finds one that verifies. A scheme that sends one signature takes the newest key: it switches when the new key
begins, for which its receivers had the time since that key was published. A delivery verifies with the keys that are
published when it is signed, and for as long after as its timestamp counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dispatcher.clock import SYSTEM, Clock
from dispatcher.errors import ConfigurationError, Conflict, InvalidInput, NotFound, Problem
from dispatcher.retry import format_duration
from dispatcher.signing import SCHEMES, Secret, platform_keys
from dispatcher.signing.platform_keys import PlatformKey
from dispatcher.signing.secrets import Keyring, SealError
from dispatcher.store import signing_keys as store
from dispatcher.store import trail
from dispatcher.store.signing_keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from dispatcher.signing import Scheme
    from dispatcher.signing.scheme import KeyKind

SIGNS_IN: Final = timedelta(hours=24)
"""How long a new key is published before it signs, so that receivers have it by then."""

OVERLAP: Final = timedelta(hours=24)
"""How long the old key signs beside the new one, for receivers who hold one key only and are late."""

STAYS_PUBLISHED: Final = timedelta(hours=1)
"""How long at least an old key is published after its last signature: a timestamp counts for five minutes, a worker
sees a change up to 30 s late, an attempt takes 15 s, and clocks differ."""

LONGEST: Final = timedelta(days=366)
"""Of either wait: what is longer was mistyped."""

PURPOSE: Final = "platform-signing"
"""What a private half is sealed for, with the key's id, so that it opens in its own row only."""


def generate(
    connection: Connection,
    keyring: Keyring,
    kind: KeyKind,
    *,
    by: str,
    signs_in: timedelta | None = None,
    overlap: timedelta = OVERLAP,
    clock: Clock = SYSTEM,
) -> SigningKey:
    """A new key, published at once; `by` is who asks for it.

    It signs after `signs_in`, by default SIGNS_IN or, where no key of its kind signs, at once. Those that would sign on
    beside it end `overlap` later. Raises InvalidInput. RSA takes 0.1 to 0.5 s of one core.
    """
    _check_waits(signs_in, overlap)
    key = platform_keys.generate_key(kind)
    return _add(connection, keyring, key, "generated", by=by, signs_in=signs_in, overlap=overlap, clock=clock)


def import_(
    connection: Connection,
    keyring: Keyring,
    pem: bytes,
    *,
    by: str,
    password: Secret | None = None,
    kind: KeyKind | None = None,
    signs_in: timedelta | None = None,
    overlap: timedelta = OVERLAP,
    clock: Clock = SYSTEM,
) -> SigningKey:
    """The key in a PEM file, which then is as a new one. `kind`: the only one that will do.

    Raises InvalidInput, whose text repeats nothing of the file, and Conflict where the key is here already.
    """
    _check_waits(signs_in, overlap)
    key = platform_keys.import_pem(pem, password=password, kind=kind)
    return _add(connection, keyring, key, "imported", by=by, signs_in=signs_in, overlap=overlap, clock=clock)


def rotate(connection: Connection, keyring: Keyring, kind: KeyKind, *, by: str, clock: Clock = SYSTEM) -> SigningKey:
    """A new key in place of the one that signs, without a receiver that notices."""
    return generate(connection, keyring, kind, by=by, clock=clock)


def ensure(connection: Connection, keyring: Keyring, *, by: str, clock: Clock = SYSTEM) -> list[SigningKey]:
    """Makes a key of each kind of which none is published, so that every profile can sign; returns those it made.

    For the start of a process: a key that was there before, or that another process makes meanwhile, is enough.
    """
    kinds = {scheme.key_kind for scheme in SCHEMES.values() if scheme.key_kind is not None}
    lacking = kinds - {key.kind for key in store.published(connection, now=clock.now())}
    if not lacking:
        return []
    store.lock(connection)
    lacking -= {key.kind for key in store.published(connection, now=clock.now())}
    return [generate(connection, keyring, kind, by=by, clock=clock) for kind in sorted(lacking)]


def retire(connection: Connection, key_id: str, *, by: str, force: bool = False, clock: Clock = SYSTEM) -> SigningKey:
    """Has the key neither sign nor be published from now on, as when it leaked. What it still has to sign, the key
    before it does, as if this one had never been.

    Raises NotFound, and Conflict where it is retired already or, unless forced, where no other key of its kind signs
    now: deliveries of its schemes would wait for a key.
    """
    store.lock(connection)
    now = clock.now()
    key = next((one for one in store.list_(connection) if one.id == key_id), None)
    if key is None:
        raise NotFound(f"there is no signing key {key_id}")
    if not key.is_published(now):
        raise Conflict(f"the signing key {key_id} is not published any more")
    others = [one for one in store.list_(connection, kind=key.kind) if one.id != key_id]
    if not force and key.signs_after(now) and not any(one.signs(now) for one in others):
        raise Conflict(
            f"no other {key.kind} key signs now: deliveries would wait for one; "
            "generate one that signs at once first, or force it"
        )
    retired = replace(key, signs_until=_earlier(key.signs_until, now), published_until=now)
    _change(connection, key, retired, "retired", by=by)
    # The newest of those that began before it. If there is none, those that sign now began later, and go on.
    before = next((one for one in others if one.signs_after(now) and _order(one) <= _order(key)), None)
    if before is not None and key.signs_after(now):
        reinstated = replace(
            before,
            signs_until=_later(before.signs_until, key.signs_until),
            published_until=_later(before.published_until, key.published_until),
        )
        _change(connection, before, reinstated, "reinstated", by=by)
    return retired


def _add(
    connection: Connection,
    keyring: Keyring,
    key: PlatformKey,
    verb: str,
    *,
    by: str,
    signs_in: timedelta | None,
    overlap: timedelta,
    clock: Clock,
) -> SigningKey:
    store.lock(connection)
    now = clock.now()
    others = store.list_(connection, kind=key.kind)
    if any(one.id == key.id for one in others):
        raise Conflict(f"the signing key {key.id} is here already")
    if signs_in is None:
        signs_in = SIGNS_IN if any(one.signs(now) for one in others) else timedelta(0)
    signs_from = now + signs_in
    stays = max(overlap, STAYS_PUBLISHED)
    # One that is to begin later than this one ends it, as if it had been made after it.
    next_from = min(
        (one.signs_from for one in others if one.signs_from > signs_from and one.signs_after(now)), default=None
    )
    added = SigningKey(
        id=key.id,
        kind=key.kind,
        public=key.public,
        sealed=keyring.seal(key.private, tenant="", endpoint="", purpose=_purpose(key.id)),
        created_at=now,
        signs_from=signs_from,
        signs_until=None if next_from is None else next_from + overlap,
        published_until=None if next_from is None else next_from + overlap + stays,
    )
    store.add(connection, added)
    _note(connection, verb, added, before=None, by=by)
    until = signs_from + overlap
    for one in others:
        if one.signs_from <= signs_from and (one.signs_until is None or one.signs_until > until):
            published_until = _earlier(one.published_until, until + stays)
            superseded = replace(one, signs_until=until, published_until=published_until)
            _change(connection, one, superseded, "superseded", by=by)
    return added


def _change(connection: Connection, before: SigningKey, after: SigningKey, verb: str, *, by: str) -> None:
    if after != before:
        store.set_ends(connection, after)
        _note(connection, verb, after, before=before, by=by)


def _note(connection: Connection, verb: str, key: SigningKey, *, before: SigningKey | None, by: str) -> None:
    trail.append(
        connection,
        actor=by,
        action=f"signing_key.{verb}",
        object=key.id,
        tenant_id=None,
        before=None if before is None else _facts(before),
        after=_facts(key),
    )


def _facts(key: SigningKey) -> dict[str, Any]:
    """What everybody may know of the key."""
    windows = {name: getattr(key, name) for name in ("signs_from", "signs_until", "published_until")}
    return {"kind": key.kind} | {name: None if at is None else at.isoformat() for name, at in windows.items()}


def _check_waits(signs_in: timedelta | None, overlap: timedelta) -> None:
    for pointer, wait in (("/signs_in", signs_in), ("/overlap", overlap)):
        if wait is not None and not timedelta(0) <= wait <= LONGEST:
            found = format_duration(wait) if wait > LONGEST else "a duration below 0"
            raise InvalidInput(pointer, found, f"0s to {format_duration(LONGEST)}")


def _purpose(key_id: str) -> str:
    return f"{PURPOSE} {key_id}"


def _order(key: SigningKey) -> tuple[datetime, datetime]:
    return key.signs_from, key.created_at


def _earlier(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else min(one, other)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return None if one is None or other is None else max(one, other)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A key that can sign."""

    key: SigningKey
    private: Secret


@dataclass(frozen=True, slots=True)
class PlatformKeys:
    """The platform's keys as they were published at an instant, opened: what a worker signs with for a while.

    `keys` are those published, the newest `signs_from` first; `faults` says by id why one of them cannot sign.
    """

    keys: tuple[SigningKey, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)
    _opened: Mapping[str, tuple[_Opened, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, connection: Connection, keyring: Keyring, clock: Clock = SYSTEM) -> PlatformKeys:
        """The keys as they are now. One that cannot be opened is among the faults and stops no other."""
        now = clock.now()
        keys = tuple(store.published(connection, now=now))
        opened: dict[str, tuple[_Opened, ...]] = {}
        faults: dict[str, str] = {}
        for key in keys:
            if not key.signs_after(now):
                continue
            try:
                private = _open(keyring, key)
            except (SealError, ValueError) as error:
                faults[key.id] = str(error)
            else:
                opened[key.kind] = (*opened.get(key.kind, ()), _Opened(key, private))
        return cls(keys, faults, opened)

    def signing(self, scheme: Scheme, at: datetime) -> tuple[bytes, ...]:
        """The keys that the scheme signs with at that instant, PKCS #8 in DER, the newest first.

        None for a scheme of endpoints' own secrets, and where `fault` says why.
        """
        return tuple(one.private.reveal() for one in self._opened.get(scheme.key_kind or "", ()) if one.key.signs(at))

    def fault(self, scheme: Scheme, at: datetime) -> str | None:
        """Why the scheme cannot sign at that instant, in words; None if it can, or takes none of these keys."""
        if scheme.key_kind is None or self.signing(scheme, at):
            return None
        closed = [
            f"signing key {one.id}: {self.faults[one.id]}"
            for one in self.keys
            if one.kind == scheme.key_kind and one.id in self.faults and one.signs(at)
        ]
        return "; ".join(closed) or f"the platform has no {scheme.key_kind} key that signs now"

    def public(self, at: datetime) -> tuple[SigningKey, ...]:
        """The keys that are published at that instant, the newest `signs_from` first."""
        return tuple(one for one in self.keys if one.is_published(at))

    def self_test(self, schemes: Iterable[Scheme] = tuple(SCHEMES.values())) -> None:
        """Signs and verifies by each of the schemes with every key of its kind that signs, or is to.

        Raises ConfigurationError with all that failed, and with the keys that could not be opened.
        """
        tried = [scheme for scheme in schemes if scheme.key_kind is not None]
        kinds = {scheme.key_kind for scheme in tried}
        problems = [
            Problem(f"signing key {one.id}", one.kind, self.faults[one.id], "a private half that the keyring opens")
            for one in self.keys
            if one.id in self.faults and one.kind in kinds
        ]
        pairs = [
            (scheme, PlatformKey(one.key.kind, one.key.id, one.private, one.key.public))
            for scheme in tried
            for one in self._opened.get(scheme.key_kind or "", ())
        ]
        try:
            platform_keys.self_test(pairs)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(problems)


def _open(keyring: Keyring, key: SigningKey) -> Secret:
    """The private half. Raises SealError, and ValueError where it is not the one of what is published."""
    private = keyring.open(key.sealed, tenant="", endpoint="", purpose=_purpose(key.id))
    if platform_keys.load_key(private).public != key.public:
        raise ValueError("its public half is another key's")
    return private
