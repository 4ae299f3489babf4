"""The statements that publish profiles, so that whoever accepts events knows them without the files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING
from uuid import UUID

import orjson
from sqlalchemy import text

from dispatcher.model.profile import Profile
from dispatcher.store.rows import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from sqlalchemy import Connection

_PUBLISH = text("""
INSERT INTO dispatcher.profiles AS p (name, body, is_default)
SELECT * FROM json_to_recordset(CAST(CAST(:rows AS text) AS json)) AS x(name text, body json, is_default boolean)
ORDER BY is_default, name -- so the default of before is none any more when the new one is written
ON CONFLICT (name) DO UPDATE SET body = excluded.body, is_default = excluded.is_default
WHERE p.is_default <> excluded.is_default OR CAST(p.body AS text) <> CAST(excluded.body AS text)
""")

_WITHDRAW = text("""
DELETE FROM dispatcher.profiles
WHERE name NOT IN (SELECT value FROM json_array_elements_text(CAST(CAST(:names AS text) AS json)))
""")

_OF_TENANTS = text("""
SELECT CAST(t.id AS text), pg_catalog.convert_to(CAST(p.body AS text), 'UTF8')
FROM pg_catalog.json_array_elements_text(CAST(CAST(:ids AS text) AS json)) x
CROSS JOIN LATERAL (SELECT id, profile FROM dispatcher.tenants WHERE id = CAST(x.value AS uuid) OFFSET 0) t
JOIN dispatcher.profiles p ON p.name = t.profile OR (t.profile IS NULL AND p.is_default)
""")


@dataclass(frozen=True, slots=True)
class Published:
    """A profile, and the networks that its endpoints may be in although they are not public."""

    profile: Profile
    networks: tuple[IPv4Network | IPv6Network, ...]


def publish(
    connection: Connection,
    profiles: Mapping[str, Profile],
    *,
    default: str,
    networks: Sequence[IPv4Network | IPv6Network] = (),
) -> None:
    """Makes these the published profiles, all others gone; `default` is that of tenants that name none."""
    rows = [
        {"name": name, "body": _write(profile, networks), "is_default": name == default}
        for name, profile in profiles.items()
    ]
    connection.execute(_WITHDRAW, {"names": to_json(list(profiles))})
    connection.execute(_PUBLISH, {"rows": to_json(rows)})


def of_tenants(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Published]:
    """The profile of each tenant; of none that does not exist, or whose profile is not published."""
    rows = connection.execute(_OF_TENANTS, {"ids": to_json(list(ids))})
    return {UUID(id_): _read(bytes(body)) for id_, body in rows}


def _write(profile: Profile, networks: Sequence[IPv4Network | IPv6Network]) -> dict[str, object]:
    """The profile's fields by their names; sets as sorted lists."""
    values = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(profile).items()}
    return values | {"networks": [str(network) for network in networks]}


@lru_cache(maxsize=256)
def _read(body: bytes) -> Published:
    """What `_write` wrote. A field of a later version is not known, and left out."""
    values = orjson.loads(body)
    networks = tuple(ip_network(network) for network in values.pop("networks"))
    known = {name: values[name] for name in Profile.__dataclass_fields__ if name in values}
    for name, value in known.items():
        if name in _SETS:
            known[name] = value if isinstance(value, str) else frozenset(value)
        elif isinstance(value, list):
            known[name] = tuple(tuple(one) if isinstance(one, list) else one for one in value)
    return Published(Profile(**known), networks)


_SETS = {name for name, field in Profile.__dataclass_fields__.items() if "frozenset" in str(field.type)}
