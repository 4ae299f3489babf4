"""Which event types an endpoint's patterns match, said in Python and in SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from dispatcher.errors import InvalidInput
from dispatcher.model.endpoint import SealedSecret, like_patterns, rotated, validate_event_types

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

words = st.text(alphabet="aA_1", min_size=1, max_size=3)
types = st.lists(st.tuples(st.sampled_from(".-"), words), min_size=1, max_size=3).map(
    lambda parts: "".join(separator + word for separator, word in parts)[1:]
)
patterns = types | types.map(lambda kind: kind + ".*") | st.just("*")


def wanted(kind: str, chosen: Sequence[str]) -> bool:
    """What a pattern means: the type itself, everything below a family, or all."""
    return any(p in ("*", kind) or (p.endswith(".*") and kind.startswith(p.removesuffix("*"))) for p in chosen)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(patterns, min_size=1, max_size=4), st.lists(types, min_size=1, max_size=8))
def test_like_matches_exactly_what_the_wildcard_means(engine: Engine, chosen: list[str], kinds: list[str]) -> None:
    asked = text("SELECT kind, patterns IS NULL OR kind LIKE ANY (patterns) FROM unnest(CAST(:kinds AS text[])) kind,"
                 " (SELECT CAST(:patterns AS text[]) AS patterns) p")  # fmt: skip
    with engine.connect() as connection:
        answers = dict(
            connection.execute(asked, {"kinds": kinds, "patterns": like_patterns(validate_event_types(chosen))}).all()
        )
    assert answers == {kind: wanted(kind, chosen) for kind in kinds}


@given(st.lists(patterns, min_size=1, max_size=5))
def test_patterns_keep_their_order_and_lose_their_doubles(chosen: list[str]) -> None:
    assert validate_event_types(chosen) == tuple(dict.fromkeys(chosen))


def test_none_means_all() -> None:
    assert validate_event_types(None) is None
    assert like_patterns(None) is None


@pytest.mark.parametrize(
    "pattern", ["", "**", ".*", "a.*.b", "*.a", "a*", "a.%", "a\\", "a b", "a..*", "ä", "a\n", "a" * 129], ids=repr
)
def test_any_other_wildcard_is_refused_with_its_place(pattern: str) -> None:
    with pytest.raises(InvalidInput) as error:
        validate_event_types(["a", pattern])
    assert error.value.pointer == "/event_types/1"


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match="leave it out"):
        validate_event_types([])


def test_a_secret_is_kept_as_json_with_its_end_or_without_one() -> None:
    for secret in (SealedSecret("sealed"), SealedSecret("sealed", NOW)):
        kept = json.loads(json.dumps(secret.to_json(), default=str))
        assert SealedSecret.from_json(kept) == secret


def test_a_new_secret_lets_the_others_sign_for_an_overlap_and_no_longer_than_they_would() -> None:
    old, ending, ended = SealedSecret("old"), SealedSecret("ending", NOW + HOUR), SealedSecret("ended", NOW)
    new = SealedSecret("new")
    assert rotated((old, ending, ended), new, now=NOW, overlap=2 * HOUR) == (
        new,
        SealedSecret("old", NOW + 2 * HOUR),
        ending,
    )
    assert rotated((old, ending), new, now=NOW, overlap=timedelta()) == (new,)
