from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.datafile import all_problems
from dispatcher.errors import Problem
from dispatcher.model.endpoint import REGISTRATION_FIELDS
from dispatcher.model.profile import Profile
from dispatcher.profiles import FIELDS, Known, as_document
from dispatcher.profiles.profile_file import read_profile
from tests.profiles.known import read, toml

GOOD = """description = "d"
source = "s"
methods = ["POST"]
deadline_s = 20
schedule = "exponential"
[url]
schemes = ["https", "http"]
[signature]
schemes = [
  "standard_webhooks_v1",
]
[answers]
success = [200, 202]
disable_on = [410]
[registration]
auth = ["none"]
limit = 16
warn_above = 2
[events]
choice = "closed"
catalogue = [
  "payment.completed",
  "refund.*",
]
"""


def test_a_good_file_is_read() -> None:
    reading = read(GOOD)
    assert reading.profile == Profile(
        name="mine",
        description="d",
        source="s",
        methods=("POST",),
        deadline_s=20.0,
        schedule="exponential",
        url_schemes=("https", "http"),
        success=frozenset({200, 202}),
        disable_on=frozenset({410}),
        auth=("none",),
        endpoint_limit=16,
        warn_above=2,
        event_choice="closed",
        catalogue=("payment.completed", "refund.*"),
        registration_fields=tuple(key for key in REGISTRATION_FIELDS if key not in ("auth", "method")),
    )
    assert (reading.problems, reading.warnings) == ([], [])


def test_what_a_file_leaves_out_has_its_default() -> None:
    assert read("# nothing").profile == Profile(name="mine")


def test_every_field_of_a_profile_is_one_of_a_file() -> None:
    assert [field.attribute for field in FIELDS.values()] == [
        field.name for field in fields(Profile) if field.name != "name"
    ]


def test_windows_line_ends_are_read() -> None:
    assert read(GOOD.replace("\n", "\r\n")).profile == read(GOOD).profile


def test_headers_are_sent_under_another_name() -> None:
    profile = read('[signature]\nheaders = {webhook-signature = "x-signature"}').profile
    assert profile is not None
    assert profile.signature_headers == (("webhook-signature", "x-signature"),)


@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        ('[events]\nchoice = "all"', {"event_types"}),
        ('methods = ["GET"]', {"method"}),
        ('[registration]\nauth = ["none"]', {"auth"}),
        ('[registration]\nauth = ["basic"]\nrequired = ["url", "auth"]', set()),
    ],
)
def test_a_registration_carries_by_default_what_has_an_effect(content: str, left_out: set[str]) -> None:
    profile = read(content).profile
    assert profile is not None
    assert set(REGISTRATION_FIELDS) - set(profile.registration_fields) == left_out


class Broken(NamedTuple):
    """What a file holds, and where and as what it is refused."""

    content: bytes | str
    line: int | None
    field: str
    found: str
    allowed: str


def changed(before: str, after: str) -> str:
    assert GOOD.count(before) == 1
    return GOOD.replace(before, after)


BROKEN = {
    # The file
    "syntax": Broken(changed('"refund.*",\n]', '"refund.*",\n'), 23, "", "Invalid value", "TOML 1.0"),
    "syntax on a field's line": Broken(changed("limit = 16", "limit = many"), 17, "registration.limit", "Inv", "TOML"),
    "syntax before any table": Broken(changed("deadline_s = 20", "deadline_s ="), 4, "deadline_s", "Inv", "TOML"),
    "a field twice": Broken(changed("limit = 16", "limit = 16\nlimit = 3"), 18, "registration.limit", "Cannot", "TOML"),
    "a byte order mark": Broken(b"\xef\xbb\xbf" + GOOD.encode(), 1, "", "a byte order mark", "UTF-8 without"),
    "not UTF-8": Broken(GOOD.encode().replace(b'"s"', b'"\xff"'), 2, "", "byte 0xff", "UTF-8"),
    "a NUL": Broken(GOOD + "\0", 25, "", "a NUL byte", "text"),
    "empty": Broken("", None, "", "an empty file", "description, source, scope, methods"),
    "too big": Broken(GOOD + "#" * 65_536, None, "", "a file of more than 65,536 bytes", "at most 65,536 bytes"),
    # Names
    "an unknown field": Broken(
        changed("deadline_s", "deadline"), 4, "deadline", "an unknown field", "did you mean deadline_s?"
    ),
    "an unknown field like none": Broken("zzz = 1", 1, "zzz", "an unknown field", "docs/profiles.md lists the fields"),
    "an unknown table": Broken("[urls]\nports = true", 1, "urls", "an unknown field", "did you mean url?"),
    "an unknown field of a table": Broken(
        "[url]\nport = true", 2, "url.port", "an unknown field", "did you mean ports?"
    ),
    "a field outside of its table": Broken(
        "limit = 16", 1, "limit", "an unknown field", "did you mean registration.limit?"
    ),
    "a field in another table": Broken(
        "[url]\nmethods = ['GET']", 2, "url.methods", "an unknown field", "did you mean methods?"
    ),
    "a field with an escape": Broken('"\\u001b" = 1', 1, "'\\x1b'", "an unknown field", "docs/profiles.md"),
    "extends": Broken('extends = "default"', 1, "extends", "an unknown field", "did you mean events?"),
    "no table": Broken(
        "url = 1", 1, "url", "1", "a table, [url], with the fields schemes, ports, ip_literals, private_http"
    ),
    "an array of tables": Broken("[[events]]\nchoice = 'all'", 1, "events", "an array", "a table, [events]"),
    # Single values
    "a description that is no text": Broken("description = 1", 1, "description", "1", "at most 1,000 characters"),
    "a description with an escape": Broken('description = "\\u001b"', 1, "description", "a control char", "text of"),
    "a source too long": Broken(f"source = '{'s' * 1_001}'", 1, "source", "1,001 characters", "at most 1,000"),
    "a scope too long": Broken(f"scope = '{'s' * 41}'", 1, "scope", "41 characters", "at most 40 characters"),
    "a flag that is a number": Broken("target = 1", 1, "target", "1", "true or false"),
    "a flag that is text": Broken("[url]\nports = 'yes'", 2, "url.ports", "'yes'", "true or false"),
    "an unknown body": Broken("body = 'envelop'", 1, "body", "'envelop'", '"envelope" or "verbatim" (did you mean env'),
    "a body that is a table": Broken("body = {}", 1, "body", "a table", '"envelope" or "verbatim"'),
    "a member that the envelope has": Broken(
        "envelope_members = ['metadata',\n'data']", 2, "envelope_members[1]", "'data'", "does not have without it"
    ),
    "a member with a space": Broken("envelope_members = ['a b']", 1, "envelope_members[0]", "'a b'", "1 to 64 of"),
    "a member that is a number": Broken("envelope_members = [1]", 1, "envelope_members[0]", "1", "1 to 64 of"),
    "members that are no array": Broken(
        "envelope_members = 'metadata'", 1, "envelope_members", "'metadata'", "an array of names of members"
    ),
    "members without an envelope": Broken(
        "body = 'verbatim'\nenvelope_members = ['metadata']",
        2,
        "envelope_members",
        "members although body is 'verbatim'",
        'only body "envelope" has an envelope',
    ),
    "split modes": Broken("modes = 'split'", 1, "modes", "'split'", '"shared"'),
    "an unknown choice": Broken("[events]\nchoice = 'close'", 2, "events.choice", "'close'", "(did you mean closed?)"),
    "an unknown retry_after": Broken(
        "[answers]\nretry_after = true", 2, "answers.retry_after", "true", '"ignore" or "extend"'
    ),
    "a deadline too short": Broken("deadline_s = 0.5", 1, "deadline_s", "0.5", "a number of seconds from 1 to 60"),
    "a deadline too long": Broken("deadline_s = 61", 1, "deadline_s", "61", "a number of seconds from 1 to 60"),
    "a deadline nan": Broken("deadline_s = nan", 1, "deadline_s", "nan", "a number of seconds"),
    "a deadline with a unit": Broken("deadline_s = '15s'", 1, "deadline_s", "'15s'", "a number of seconds"),
    "a deadline true": Broken("deadline_s = true", 1, "deadline_s", "true", "a number of seconds"),
    "a limit of none": Broken("[registration]\nlimit = 0", 2, "registration.limit", "0", '1 to 1,000,000, or "none"'),
    "a limit in words": Broken("[registration]\nlimit = 'no'", 2, "registration.limit", "'no'", 'or "none"'),
    "a limit true": Broken("[registration]\nlimit = true", 2, "registration.limit", "true", "a whole number"),
    "a limit with a fraction": Broken("[registration]\nlimit = 1.5", 2, "registration.limit", "1.5", "a whole number"),
    "a warning above the limit": Broken(
        changed("warn_above = 2", "warn_above = 16"), 18, "registration.warn_above", "16", "less than registration.li"
    ),
    "never blocked": Broken("[answers]\nblocked_limit = 'none'", 2, "answers.blocked_limit", "'none'", "1 to 1,000"),
    # Arrays
    "methods no array": Broken("methods = 'POST'", 1, "methods", "'POST'", "an array of one or more of POST, GET"),
    "no method": Broken("methods = []", 1, "methods", "an empty array", "an array of one or more of POST, GET"),
    "an unknown method": Broken("methods = ['POST',\n'PSOT']", 2, "methods[1]", "'PSOT'", "(did you mean POST?)"),
    "a method that is a number": Broken("methods = [1]", 1, "methods[0]", "1", "POST, GET"),
    "a method twice": Broken("methods = ['GET', 'GET']", 1, "methods[1]", "'GET' again", "each once"),
    "an unknown URL scheme": Broken("[url]\nschemes = ['ftp']", 2, "url.schemes[0]", "'ftp'", "https, http"),
    "an unknown auth": Broken("[registration]\nauth = ['bsic']", 2, "registration.auth[0]", "'bsic'", "mean basic?)"),
    "too many entries": Broken(
        f"[events]\nchoice = 'closed'\ncatalogue = {[f'a.b{n}' for n in range(501)]}",
        3,
        "events.catalogue",
        "501 entries",
        "at most 500",
    ),
    # Statuses
    "success in words": Broken("[answers]\nsuccess = '2xx'", 2, "answers.success", "'2xx'", '"any_2xx", or an array'),
    "success one number": Broken("[answers]\nsuccess = 200", 2, "answers.success", "200", '"any_2xx", or an array'),
    "no success": Broken("[answers]\nsuccess = []", 2, "answers.success", "an empty array", '"any_2xx", or an array'),
    "a success that is none": Broken("[answers]\nsuccess = [200,\n302]", 3, "answers.success[1]", "302", "200 to 299"),
    "a status in quotes": Broken("[answers]\nsuccess = ['200']", 2, "answers.success[0]", "'200'", "200 to 299"),
    "a status true": Broken("[answers]\nsuccess = [true]", 2, "answers.success[0]", "true", "200 to 299"),
    "a permanent success": Broken(
        "[answers]\npermanent_statuses = [204]", 2, "answers.permanent_statuses[0]", "204", "300 to 599"
    ),
    "disabling on words": Broken("[answers]\ndisable_on = 'gone'", 2, "answers.disable_on", "'gone'", "300 to 599"),
    "a status twice": Broken(
        "[answers]\ndisable_on = [410, 410]", 2, "answers.disable_on[1]", "410 again", "each once"
    ),
    "a status permanent and disabling": Broken(
        "[answers]\npermanent_statuses = [404, 410]\ndisable_on = [410, 404]",
        3,
        "answers.disable_on",
        "404, 410 as in permanent_statuses",
        "disabling rejects too",
    ),
    # Names of other files
    "an unknown schedule": Broken("schedule = 'standrad'", 1, "schedule", "'standrad'", "(did you mean standard?)"),
    "a schedule that is no name": Broken("schedule = 1", 1, "schedule", "1", "the name of a schedule"),
    "an unknown signature scheme": Broken(
        changed("standard_webhooks_v1", "standard_webhook_v1"),
        10,
        "signature.schemes[0]",
        "'standard_webhook_v1'",
        "(did you mean standard_webhooks_v1?)",
    ),
    "a signature scheme that is no name": Broken(
        "[signature]\nschemes = [{}]", 2, "signature.schemes[0]", "a table", "names of signature schemes"
    ),
    "signature schemes no array": Broken(
        "[signature]\nschemes = 'rsa_sha1'", 2, "signature.schemes", "'rsa_sha1'", "an array of names"
    ),
    # Secrets and headers
    "no secret to sign with": Broken(
        "[signature]\nsecret = false", 2, "signature.secret", "false", "true, since a scheme here signs"
    ),
    "a secret for nothing": Broken(
        "[signature]\nschemes = ['rsa_sha1']", 1, "signature.secret", "true", "false, since no scheme"
    ),
    "headers no table": Broken("[signature]\nheaders = ['sign']", 2, "signature.headers", "an array", "a table: "),
    "a header that no scheme sends": Broken(
        '[signature.headers]\nwebhook-signatur = "sign"',
        2,
        "signature.headers.webhook-signatur",
        "a header that is not sent",
        "webhook-id, webhook-timestamp, webhook-signature (did you mean webhook-signature?)",
    ),
    "a header where nothing is signed": Broken(
        '[signature]\nschemes = []\nsecret = false\nheaders = {sign = "x"}',
        4,
        "signature.headers.sign",
        "a header that is not sent",
        "they have none",
    ),
    "a header that is no name": Broken(
        '[signature.headers]\nwebhook-id = "X Id"', 2, "signature.headers.webhook-id", "'X Id'", "a-z, 0-9 and -"
    ),
    "a header that is a number": Broken(
        "[signature.headers]\nwebhook-id = 1", 2, "signature.headers.webhook-id", "1", "a header's name"
    ),
    "a header that frames the request": Broken(
        '[signature]\nheaders = {webhook-id = "content-length"}',
        2,
        "signature.headers.webhook-id",
        "'content-length'",
        "do not need for something else",
    ),
    "a header with an escape": Broken(
        '[signature]\nheaders = {"\\u001b" = "x"}',
        2,
        "signature.headers.'\\x1b'",
        "a header that is not sent",
        "webhook",
    ),
    "two headers under one name": Broken(
        '[signature.headers]\nwebhook-id = "webhook-timestamp"',
        2,
        "signature.headers.webhook-id",
        "'webhook-timestamp', which another header is sent as",
        "a name of its own",
    ),
    # Registration
    "an unknown registration field": Broken(
        "[registration]\nfields = ['url', 'nam']", 2, "registration.fields[1]", "'nam'", "(did you mean name?)"
    ),
    "fields without url": Broken(
        "[registration]\nfields = ['name']\nrequired = ['url', 'name']", 2, "registration.fields", "no url", "url among"
    ),
    "required without url": Broken(
        "[registration]\nrequired = ['name']", 2, "registration.required", "no url", "url among them"
    ),
    "required and not allowed": Broken(
        "[registration]\nfields = ['url']\nrequired = ['url', 'name']",
        3,
        "registration.required[1]",
        "'name'",
        "a field that registration.fields has",
    ),
    "event types without a choice": Broken(
        "[registration]\nfields = ['url', 'event_types']\n[events]\nchoice = 'all'",
        2,
        "registration.fields[1]",
        "'event_types'",
        'fields without it, since events.choice is "all"',
    ),
    "auth without an auth": Broken(
        "[registration]\nfields = ['url', 'auth']\nauth = ['none']",
        2,
        "registration.fields[1]",
        "'auth'",
        "since registration.auth has only none",
    ),
    "a method without a choice": Broken(
        "methods = ['POST']\n[registration]\nfields = ['url', 'method']",
        3,
        "registration.fields[1]",
        "'method'",
        "since there is one method",
    ),
    "basic without its field": Broken(
        "[registration]\nauth = ['basic']", 1, "registration.required", "no auth", "auth among them"
    ),
    # Events
    "closed without a catalogue": Broken(
        "[events]\nchoice = 'closed'", 1, "events.catalogue", "nothing", "at least one event type"
    ),
    "a catalogue that is open": Broken(
        "[events]\ncatalogue = ['a.b']", 2, "events.catalogue", "a catalogue", 'only events.choice "closed"'
    ),
    "a catalogue of everything": Broken(
        changed('"refund.*"', '"*"'), 23, "events.catalogue[1]", "'*'", "an event type, or payment.*"
    ),
    "a malformed event type": Broken(
        changed('"refund.*"', '"refund..x"'), 23, "events.catalogue[1]", "'refund..x'", "an event type"
    ),
    "an event type that is a number": Broken(
        changed('"refund.*"', "3"), 23, "events.catalogue[1]", "3", "an event type"
    ),
    "a catalogue no array": Broken(
        "[events]\nchoice = 'closed'\ncatalogue = 'a.b'", 3, "events.catalogue", "'a.b'", "an array of event types"
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_with_line_field_found_and_allowed(broken: Broken) -> None:
    reading = read(broken.content)
    assert reading.profile is None
    (problem,) = reading.problems
    assert (problem.where, problem.line, problem.field) == ("mine.toml", broken.line, broken.field)
    assert broken.found in problem.found
    assert broken.allowed in f"{problem.allowed}; {problem.hint}"
    assert len(problem.found) < 250
    assert str(problem).isprintable()


def test_there_is_a_broken_file_for_every_field() -> None:
    named = {broken.field.partition("[")[0] for broken in BROKEN.values()}
    assert [name for name in FIELDS if not any(one == name or one.startswith(f"{name}.") for one in named)] == [
        "url.ip_literals",
        "url.private_http",
        "registration.ping",
    ]  # flags, which are read as url.ports and target are


@pytest.mark.parametrize("name", ["", "Mine", "my profile", "x.y", "../x", "x" * 64])
def test_a_name_of_bad_characters_is_refused(name: str) -> None:
    (problem,) = read(GOOD, name).problems
    assert problem.found.startswith("the name ")


def test_every_error_of_a_file_is_told_at_once_in_the_order_of_its_lines() -> None:
    reading = read(
        "methods = ['PUT', 1]\nschedule = 'x'\nnope = 1\n[url]\nschemes = []\nport = 1\n[answers]\nsuccess = [1]\n"
        "disable_on = [410]\npermanent_statuses = [410]\n[registration]\nlimit = 1\nwarn_above = 1\n"
        "[signature]\nschemes = ['x']\nheaders = {a = 1}\n[events]\nchoice = 'closed'\n",
        "No!",
    )
    assert [(problem.line, problem.field) for problem in all_problems([reading])] == [
        (None, ""),
        (1, "methods[0]"),
        (1, "methods[1]"),
        (2, "schedule"),
        (3, "nope"),
        (5, "url.schemes"),
        (6, "url.port"),
        (8, "answers.success[0]"),
        (9, "answers.disable_on"),
        (13, "registration.warn_above"),
        (15, "signature.schemes[0]"),
        (16, "signature.headers.a"),
        (17, "events.catalogue"),
    ]


def test_what_is_refused_is_not_compared_with_its_default() -> None:
    reading = read("[events]\nchoice = 1\ncatalogue = ['a.b']\n[signature]\nschemes = ['rsa_sha1']\nsecret = 1\n")
    assert [problem.field for problem in reading.problems] == ["signature.secret", "events.choice"]
    reading = read('[signature]\nschemes = ["x"]\nsecret = false\n[signature.headers]\nsign = "x-sign"')
    assert [problem.field for problem in reading.problems] == ["signature.schemes[0]"]


def test_a_problem_reads_as_one_line() -> None:
    (problem,) = read("\nmethods = ['PUT']").problems
    assert isinstance(problem, Problem)
    assert str(problem) == (
        "mine.toml:2: methods[0]: found 'PUT'; allowed: an array of one or more of POST, GET, each once"
    )


def test_only_known_schedules_and_schemes_may_be_named() -> None:
    reading = read_profile("mine", GOOD.encode(), where="mine.toml", known=Known(schedules=["other"], schemes={}))
    assert [(problem.field, problem.allowed) for problem in reading.problems] == [
        ("schedule", "a schedule: other"),
        ("signature.schemes[0]", "a signature scheme: "),
    ]


TEXTS = 'description = "d"\nsource = "s"\n'


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        ("# nothing", ["description: missing", "source: missing"]),
        (TEXTS + "methods = ['GET']", ["methods: no POST"]),
        (TEXTS + "deadline_s = 2", ["deadline_s: 2 s; a receiver"]),
        (TEXTS + "[signature]\nschemes = []\nsecret = false", ["signature.schemes: none, so no receiver"]),
        (
            TEXTS + "[answers]\npermanent_statuses = [404, 503]\ndisable_on = [429, 410]",
            ["answers.permanent_statuses: 503: what", "answers.disable_on: 429: what"],
        ),
    ],
)
def test_what_is_doubtful_is_a_warning_and_no_error(content: str, warnings: list[str]) -> None:
    reading = read(content)
    assert reading.profile is not None
    assert len(reading.warnings) == len(warnings)
    for warning, expected in zip(reading.warnings, warnings, strict=True):
        assert re.search(rf"^mine\.toml(:\d+)?: {re.escape(expected)}", str(warning))


_several = st.sampled_from
PROFILES = st.builds(
    replace,
    st.sampled_from(
        [
            Profile(name="mine"),
            Profile(
                name="mine",
                signature_schemes=("rsa_sha1",),
                secret=False,
                signature_headers=(("sign", "x-sign"),),
                event_choice="all",
                registration_fields=("url", "name"),
            ),
            Profile(name="mine", event_choice="closed", catalogue=("a.b", "c.*"), registration_fields=("url",)),
        ]
    ),
    body=_several(["envelope", "verbatim"]),
    deadline_s=st.floats(1, 60),
    schedule=_several(["standard", "exponential"]),
    target=st.booleans(),
    url_schemes=_several([("https",), ("http",), ("https", "http")]),
    url_ip_literals=st.booleans(),
    url_private_http=st.booleans(),
    success=st.just("any_2xx") | st.frozensets(st.integers(200, 299), min_size=1),
    permanent_statuses=st.frozensets(st.integers(300, 409)),
    disable_on=st.frozensets(st.integers(410, 599)),
    blocked_limit=st.integers(1, 1_000),
    endpoint_limit=st.none() | st.integers(11, 1_000_000),
    warn_above=st.none() | st.integers(1, 10),
    ping=st.booleans(),
)


@given(PROFILES)
def test_a_profile_written_as_a_file_reads_back_the_same(profile: Profile) -> None:
    assert read(toml(as_document(profile))).profile == profile


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_profile_or_problems(content: bytes) -> None:
    reading = read(content)
    assert (reading.profile is None) == bool(reading.problems)


VALUES: list[Any] = [
    "0", "-1", "1e400", "nan", "true", '""', '"POST"', '"none"', "[]", '["POST"]', '["url", "url"]', "[200, 410]",
    "[[1]]", "{}", '{a="b"}', "1979-05-27", '["rsa_sha1"]', '"all"', '["basic"]', '"closed"',
]  # fmt: skip


@given(st.dictionaries(st.sampled_from([*FIELDS, "x", "url.x", "signature.headers.sign"]), st.sampled_from(VALUES)))
def test_any_document_is_a_profile_or_problems_with_lines(values: dict[str, str]) -> None:
    # The parent after its child, or the child after a value, is no TOML: then that is the one problem.
    reading = read("".join(f"{key} = {value}\n" for key, value in values.items()) or "# none")
    assert (reading.profile is None) == bool(reading.problems)
    missing = [problem.field for problem in reading.problems if problem.line is None]
    assert set(missing) <= {"signature.secret", "events.catalogue", "registration.required", "answers.disable_on"}
