"""A share of `make attack`, bounded in time: healthy callers are served beside every attack, and memory has a bound."""

from __future__ import annotations

from tests.attack.attacks import ATTACKS
from tests.attack.campaign import MEMORY_MB, Api, Seen, campaign

SECONDS = 1.2
NAMES = list(ATTACKS)


def test_healthy_callers_are_served_beside_every_attack(migrated_database_url: str) -> None:
    found: list[Seen] = campaign(Api(migrated_database_url), NAMES, SECONDS, lambda _: None)
    assert [seen.attack for seen in found] == NAMES
    for seen in found:
        assert not seen.faults, seen.attack
        assert seen.tried or seen.attack == "nobody"
        assert seen.memory_mb < found[0].memory_mb + MEMORY_MB, seen.attack
