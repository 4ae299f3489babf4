"""`docs/profiles.md` says what the code and the files say."""

from __future__ import annotations

import json
from pathlib import Path

from dispatcher.model.profile import Profile
from dispatcher.profiles import FIELDS, as_document, lint, load_catalog, shipped_profiles_dir
from dispatcher.retry import format_duration
from tests.profiles.known import KNOWN
from tests.test_docs import blocks, table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/profiles.md"


def test_every_field_is_documented_with_what_is_allowed_and_its_default() -> None:
    rows = table(DOCUMENT, "field")
    assert [row[0] for row in rows] == list(FIELDS)
    default = as_document(Profile(name="default"))
    for name, about, allowed, shown in rows:
        assert about
        assert allowed == FIELDS[name].allowed
        top, _, key = name.partition(".")
        value = default[top][key] if key else default[top]
        if name == "registration.fields":
            assert shown == "all that have an effect"
        else:
            assert shown == (f"{value:g}" if isinstance(value, float) else json.dumps(value)), name


def test_the_shipped_profiles_are_documented_as_they_are() -> None:
    catalog = load_catalog(shipped_profiles_dir(), known=KNOWN)
    rows = {row[0]: row[1:] for row in table(DOCUMENT, "profile")}
    assert sorted(rows) == sorted(catalog)
    for name, (scope, url, methods, signature, success, schedule, registration, events) in rows.items():
        profile = catalog[name]
        assert scope == profile.scope
        assert url == " or ".join(profile.url_schemes) + (", a port" if profile.url_ports else "")
        assert methods == ", ".join(profile.methods)
        assert signature == ", ".join(profile.signature_schemes)
        assert success == ("any 2xx" if profile.success == "any_2xx" else ", ".join(map(str, profile.success)))
        assert schedule == profile.schedule
        assert registration == "; ".join(
            said
            for said, holds in (
                ("name and url only", profile.registration_fields == ("name", "url")),
                ("basic authentication", "basic" in profile.auth),
                ("a ping", profile.ping),
                ("at most 1 endpoint", profile.endpoint_limit == 1),
                (f"at most {profile.endpoint_limit} endpoints", (profile.endpoint_limit or 0) > 1),
                (f"a warning above {profile.warn_above}", profile.warn_above is not None),
                ("no secret", not profile.secret),
            )
            if holds
        )
        assert events == (
            ", ".join(profile.catalogue)
            if profile.catalogue
            else {"open": "chosen", "all": "all"}[profile.event_choice]
        )


def test_the_example_of_a_profile_file_is_one(tmp_path: Path) -> None:
    (example,) = [block.text for block in blocks(DOCUMENT) if block.language == "toml"]
    (tmp_path / "example.toml").write_text(example)
    report = lint(tmp_path / "example.toml", known=KNOWN)
    assert (report.problems, report.warnings) == ((), ())


def test_the_totals_of_the_schedules_are_what_the_readings_say() -> None:
    text = DOCUMENT.read_text()
    assert format_duration(KNOWN.schedules["standard"].total) == "1d3h35m5s"
    assert "27 h 35 m 05 s" in text
    assert KNOWN.schedules["exponential"].total.total_seconds() == 126 * 60
    assert "126 minutes" in text
