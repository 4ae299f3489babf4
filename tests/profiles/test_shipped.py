"""The shipped profiles, against what each system documents. One test for each row, and one for what they share."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dispatcher.egress import UrlPolicy, parse_url
from dispatcher.egress.outcome import classify
from dispatcher.errors import InvalidInput
from dispatcher.model.endpoint import validate_event_types
from dispatcher.model.event import BodyForm
from dispatcher.model.outcome import OutcomeClass
from dispatcher.model.profile import Profile
from dispatcher.profiles import load_catalog, shipped_profiles_dir
from dispatcher.retry import DecisionRules
from dispatcher.signing import SCHEMES
from tests.profiles.known import KNOWN

CATALOG = load_catalog(shipped_profiles_dir(), known=KNOWN)
SYSTEMS = ("multisafepay", "checkout", "gateway", "terminal", "musepay")


def accepts(profile: Profile, url: str) -> bool:
    policy = UrlPolicy(
        allow_http="http" in profile.url_schemes,
        allow_ports=profile.url_ports,
        allow_ip_literals=profile.url_ip_literals,
    )
    try:
        return parse_url(url, policy).scheme in profile.url_schemes
    except InvalidInput:
        return False


def test_seven_profiles_are_shipped() -> None:
    assert sorted(CATALOG) == sorted(["default", "standard-webhooks", *SYSTEMS])


def test_the_shipped_profiles_raise_no_warning() -> None:
    assert CATALOG.warnings == ()


@pytest.mark.parametrize("name", CATALOG)
def test_a_shipped_profile_writes_out_every_field_and_says_what_it_read(name: str) -> None:
    import tomllib

    from dispatcher.profiles import FIELDS

    text = CATALOG.files[name].path.read_text()
    document = tomllib.loads(text)
    written = {key for key, value in document.items() if not isinstance(value, dict)}
    written |= {f"{table}.{key}" for table, of in document.items() if isinstance(of, dict) for key in of}
    assert written == set(FIELDS)
    assert name == "default" or "# Readings:\n# - " in text


def test_default_is_what_a_file_gets_by_saying_nothing() -> None:
    said = CATALOG["default"]
    assert replace(said, description="", source="") == Profile(name="default")


@pytest.mark.parametrize("name", CATALOG)
def test_the_values_are_those_that_the_rest_of_the_system_takes(name: str) -> None:
    profile = CATALOG[name]
    assert BodyForm(profile.body) is BodyForm.ENVELOPE
    rules = DecisionRules(profile.permanent_statuses, profile.disable_on, profile.retry_after)
    assert rules.refund_limit == 3
    assert classify(200, has_retry_after=False, success=profile.success) is OutcomeClass.OK
    assert set(profile.signature_schemes) <= set(SCHEMES)
    if profile.catalogue:
        assert validate_event_types(profile.catalogue) == profile.catalogue


@pytest.mark.parametrize("name", SYSTEMS)
def test_none_of_the_five_systems_gives_up_before_its_schedule_ends(name: str) -> None:
    profile = CATALOG[name]
    assert DecisionRules(profile.permanent_statuses, profile.disable_on, profile.retry_after) == DecisionRules()


def test_standard_webhooks_410_disables_retry_after_counts_any_2xx_delivers_within_15_to_30_s() -> None:
    profile = CATALOG["standard-webhooks"]
    assert (profile.disable_on, profile.retry_after, profile.success) == ({410}, "extend", "any_2xx")
    assert 15 <= profile.deadline_s <= 30
    assert (profile.signature_schemes, profile.signature_headers, profile.secret) == (
        ("standard_webhooks_v1",),
        (),
        True,
    )
    assert (profile.url_schemes, profile.methods) == (("https",), ("POST",))


def test_multisafepay_https_without_a_port_post_or_get_and_a_url_of_the_order() -> None:
    profile = CATALOG["multisafepay"]
    assert profile.scope == "website"
    assert accepts(profile, "https://shop.example.com/notify")
    assert not accepts(profile, "http://shop.example.com/notify")
    assert not accepts(profile, "https://shop.example.com:8443/notify")
    assert profile.methods == ("POST", "GET")  # POST is recommended
    assert profile.target
    assert profile.endpoint_limit == 1
    assert (profile.success, profile.schedule) == ("any_2xx", "standard")


def test_checkout_name_and_url_give_a_secret_all_payment_events_signed_any_2xx_within_15_s_one_endpoint() -> None:
    profile = CATALOG["checkout"]
    assert profile.scope == "account"
    assert profile.url_schemes == ("https",)
    assert profile.registration_fields == profile.required_fields == ("name", "url")
    assert profile.secret
    assert profile.envelope_members == ("metadata",)
    assert (profile.event_choice, profile.offers("payment.*"), profile.offers("*")) == ("all", False, True)
    assert (profile.methods, profile.signature_schemes) == (("POST",), ("standard_webhooks_v1",))
    assert (profile.success, profile.deadline_s) == ("any_2xx", 15)
    schedule = KNOWN.schedules[profile.schedule]
    assert [wait.total_seconds() for wait in schedule.waits] == [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 36_000]
    assert schedule.relative_to == "previous_failure"
    assert profile.modes == "shared"
    assert (profile.endpoint_limit, profile.warn_above) == (None, 1)


def test_gateway_http_or_https_with_or_without_basic_authentication_and_event_types_chosen() -> None:
    profile = CATALOG["gateway"]
    assert profile.scope == "portfolio or reseller"
    assert accepts(profile, "http://shop.example.com/notify")
    assert accepts(profile, "https://shop.example.com:8443/notify")
    assert not accepts(profile, "http://localhost/notify")
    assert not accepts(profile, "http://192.0.2.1/notify")
    assert profile.auth == ("none", "basic")
    assert (profile.event_choice, profile.offers("chargeback.opened")) == ("open", True)
    assert {"auth", "event_types"} <= set(profile.registration_fields)
    assert (profile.success, profile.schedule) == ("any_2xx", "standard")


def test_terminal_https_that_answers_a_ping_four_event_types_a_secret_and_16_endpoints_at_most() -> None:
    profile = CATALOG["terminal"]
    assert profile.scope == "group"
    assert profile.url_schemes == ("https",)
    assert profile.ping
    assert profile.secret
    assert profile.registration_fields == ("url", "description", "event_types", "metadata")
    assert profile.event_choice == "closed"
    assert profile.catalogue == ("payment.completed", "payment.failed", "payment.cancelled", "payment.timeout")
    assert not profile.offers("payment.refunded")
    assert profile.endpoint_limit == 16
    assert (profile.success, profile.schedule) == ("any_2xx", "standard")


def test_musepay_signs_with_rsa_and_sha1_in_sign_takes_only_200_and_tries_seven_times() -> None:
    profile = CATALOG["musepay"]
    assert profile.scope == "partner"
    assert profile.endpoint_limit is None  # one or more URLs
    assert profile.methods == ("POST",)
    (scheme,) = profile.signature_schemes
    renamed = dict(profile.signature_headers)
    assert [renamed.get(header, header) for header in SCHEMES[scheme].header_names] == ["sign"]
    assert SCHEMES[scheme].key_owner == "platform"
    assert not profile.secret
    assert profile.success == {200}
    assert classify(204, has_retry_after=False, success=profile.success) is OutcomeClass.UNEXPECTED_2XX
    schedule = KNOWN.schedules[profile.schedule]
    assert [wait.total_seconds() / 60 for wait in schedule.waits] == [0, 2, 4, 8, 16, 32, 64]
    assert profile.offers("order.paid")
    assert profile.offers("card.*")
    assert not profile.offers("payment.completed")


@pytest.mark.parametrize(
    ("name", "readings"),
    {
        "multisafepay": ["wins over the website's", "no signature is stated"],
        "checkout": ["share one endpoint", "registered with a warning", "at the failure of the previous attempt"],
        "gateway": ["any 2xx", "below it"],
        "terminal": ["authenticates calls to the api"],
        "musepay": ["seven attempts", "taken as the name of a header", "rsassa-pkcs1-v1_5", "send it again"],
    }.items(),
)
def test_a_profile_says_how_it_read_what_its_system_leaves_open(name: str, readings: list[str]) -> None:
    comments = " ".join(re.findall(r"^#(.*)", CATALOG.files[name].path.read_text(), re.MULTILINE)).lower()
    comments = re.sub(r"\s+", " ", comments)
    for reading in [*readings, "no permanent status and no retry-after is declared"]:
        assert reading in comments, reading
