"""A profile file's text: what it declares, everything wrong with it, and what in it is doubtful.

`FIELDS` is the format. Each field is read on its own; `_CHECKS` then compare fields that must fit each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, get_args

from dispatcher import datafile
from dispatcher.datafile import MAX_TEXT_CHARACTERS, nearest, parse, refuse_unknown, shown, shown_key, text_of
from dispatcher.errors import InvalidInput
from dispatcher.model.endpoint import REGISTRATION_FIELDS, validate_event_types
from dispatcher.model.event import ENVELOPE
from dispatcher.model.headers import OURS
from dispatcher.model.profile import (
    Auth,
    BodyName,
    EventChoice,
    Modes,
    Profile,
    RetryAfter,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

MAX_SCOPE_CHARACTERS: Final = 40
MAX_ENTRIES: Final = 500

_MEMBER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_OURS: Final = OURS | {"authorization", "content-encoding"}
"""Headers that frame, describe or authorise a request: none of them can carry a signature."""

_DOCUMENT: Final = "docs/profiles.md"
_HASTY_S: Final = 5.0
_PASSING: Final = frozenset({408, 425, 429, *range(500, 600)})
"""Statuses that receivers answer with in a bad minute, not for ever."""


class SchemeFacts(Protocol):
    """What a profile must know of a signature scheme; those of `dispatcher.signing` have it."""

    @property
    def header_names(self) -> tuple[str, ...]:
        """The headers that it adds, in lower case."""
        ...

    @property
    def key_owner(self) -> Literal["endpoint", "platform"]:
        """Whose keys sign."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a profile may use: of schedules, and of signature schemes."""

    schedules: Collection[str]
    schemes: Mapping[str, SchemeFacts]


@dataclass(slots=True)
class Reading(datafile.Reading):
    """What came of reading one file: `profile` is None exactly if there are `problems`."""

    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a file: which of Profile's it becomes, what it may be, and how it is read.

    `read` gets the field's name, what was found and what is allowed. It returns the value, or notes a problem: what
    it then returns is not used.
    """

    attribute: str
    read: Callable[[Reading, str, object, str], object]
    allowed: str


_Rule: TypeAlias = "tuple[Callable[[Reading, str, object, str], object], str]"
"""How a kind of field is read, and what it may be."""


def read_profile(name: str, content: bytes, *, where: str, known: Known) -> Reading:
    """Read a profile file's bytes. `where` is how problems name the file. Raises nothing."""
    reading = Reading(where)
    read_into(reading, name, content, known=known)
    return reading


def read_into(reading: Reading, name: str, content: bytes, *, known: Known) -> None:
    """Read a profile file's bytes, noting on `reading` what came of it. Raises nothing."""
    document = parse(reading, name, content, fields=FIELDS)
    if document is None:
        return
    values = _read_fields(reading, document)
    for needed, check in _CHECKS:
        if all(attribute in values for attribute in needed):
            check(reading, values, known)
    if not reading.problems:
        reading.profile = Profile(name=name, **values)
        _lint(reading, reading.profile)


def as_document(profile: Profile) -> dict[str, Any]:
    """The profile as plain JSON values, in the tables and under the names of a file; read back it is the same."""
    document: dict[str, Any] = {}
    for name, field in FIELDS.items():
        table, _, key = name.rpartition(".")
        place = document.setdefault(table, {}) if table else document
        match getattr(profile, field.attribute):
            case None:
                place[key] = "none"
            case frozenset() as statuses:
                place[key] = sorted(statuses)
            case tuple() as pairs if field.attribute == "signature_headers":
                place[key] = dict(pairs)
            case tuple() as several:
                place[key] = list(several)
            case value:
                place[key] = value
    return document


def _read_fields(reading: Reading, document: dict[str, Any]) -> dict[str, Any]:
    """The good values by attribute: those of the file, else the defaults. Refused ones are left out."""
    given: dict[str, object] = {}
    top = [name for name in FIELDS if "." not in name]
    refuse_unknown(reading, document, [*top, *_TABLES], document=_DOCUMENT, elsewhere=FIELDS)
    given |= {key: value for key, value in document.items() if key in top}
    for table, keys in _TABLES.items():
        match document.get(table, {}):
            case dict() as content:
                refuse_unknown(reading, content, keys, document=_DOCUMENT, table=table, elsewhere=FIELDS)
                given |= {f"{table}.{key}": value for key, value in content.items() if key in keys}
            case other:
                reading.refuse(table, shown(other), f"a table, [{table}], with the fields {', '.join(keys)}")
    values = {}
    for name, field in FIELDS.items():
        if name not in given:
            values[field.attribute] = getattr(_DEFAULT, field.attribute)
            continue
        before = len(reading.problems)
        value = field.read(reading, name, given[name], field.allowed)
        if len(reading.problems) == before:
            values[field.attribute] = value
    if "registration.fields" not in given:
        ruled_out = {key for key, _ in _ruled_out(values)}
        values["registration_fields"] = tuple(key for key in REGISTRATION_FIELDS if key not in ruled_out)
    return values


# How one field is read


def _text(limit: int) -> _Rule:
    def read(reading: Reading, key: str, value: object, _allowed: str) -> str:
        return text_of(reading, key, value, limit=limit)

    return read, f"text of at most {limit:,} characters"


def _flag() -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> object:
        if not isinstance(value, bool):
            reading.refuse(key, shown(value), allowed)
        return value

    return read, "true or false"


def _choice(options: tuple[str, ...]) -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> object:
        if value not in options:
            reading.refuse(key, shown(value), allowed + nearest(value, options))
        return value

    return read, " or ".join(f'"{option}"' for option in options)


def _several(options: tuple[str, ...]) -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> tuple[object, ...]:
        for index, item in _elements(reading, key, value, allowed, least=1):
            if item not in options:
                reading.refuse(f"{key}[{index}]", shown(item), allowed + nearest(item, options))
        return tuple(value) if isinstance(value, list) else ()

    return read, f"an array of one or more of {', '.join(options)}, each once"


def _names(what: str) -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> tuple[object, ...]:
        for index, item in _elements(reading, key, value, allowed):
            if not isinstance(item, str):
                reading.refuse(f"{key}[{index}]", shown(item), allowed)
        return tuple(value) if isinstance(value, list) else ()

    return read, f"an array of {what}, each once"


def _name(what: str) -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> object:
        if not isinstance(value, str):
            reading.refuse(key, shown(value), allowed)
        return value

    return read, what


def _number(low: int, high: int) -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> float:
        # NaN compares false.
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        reading.refuse(key, shown(value), allowed)
        return 0.0

    return read, f"a number of seconds from {low} to {high}"


def _count(high: int, *, or_none: bool = False) -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> object:
        if or_none and value == "none":
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
            reading.refuse(key, shown(value), allowed)
        return value

    return read, f"a whole number from 1 to {high:,}" + (', or "none"' if or_none else "")


def _statuses(low: int, high: int, *, or_any: str = "") -> _Rule:
    def read(reading: Reading, key: str, value: object, allowed: str) -> object:
        if or_any and value == or_any:
            return value
        for index, item in _elements(reading, key, value, allowed, least=1 if or_any else 0):
            if not isinstance(item, int) or isinstance(item, bool) or not low <= item <= high:
                reading.refuse(f"{key}[{index}]", shown(item), allowed)
        return frozenset(item for item in value if isinstance(item, int)) if isinstance(value, list) else None

    statuses = f"an array of statuses from {low} to {high}, each once"
    return read, f'"{or_any}", or {statuses}' if or_any else statuses


def _headers(reading: Reading, key: str, value: object, allowed: str) -> tuple[tuple[str, object], ...]:
    if not isinstance(value, dict):
        reading.refuse(key, shown(value), allowed)
        return ()
    for header, sent in value.items():
        if not isinstance(sent, str) or _HEADER.fullmatch(sent) is None:
            reading.refuse(f"{key}.{shown_key(header)}", shown(sent), "a header's name in lower case: a-z, 0-9 and -")
        elif sent in _OURS:
            reading.refuse(
                f"{key}.{shown_key(header)}", shown(sent), "a header that requests do not need for something else"
            )
    return tuple(value.items())


def _envelope_members(reading: Reading, key: str, value: object, allowed: str) -> tuple[object, ...]:
    for index, item in _elements(reading, key, value, allowed):
        if not isinstance(item, str) or _MEMBER.fullmatch(item) is None:
            reading.refuse(f"{key}[{index}]", shown(item), "a name of 1 to 64 of the characters A-Z, a-z, 0-9, _ and -")
        elif item in ENVELOPE:
            reading.refuse(f"{key}[{index}]", shown(item), "a name that the envelope does not have without it")
    return tuple(value) if isinstance(value, list) else ()


def _catalogue(reading: Reading, key: str, value: object, allowed: str) -> tuple[object, ...]:
    for index, item in _elements(reading, key, value, allowed):
        if not isinstance(item, str) or item == "*" or not _is_event_type(item):
            reading.refuse(f"{key}[{index}]", shown(item), "an event type, or payment.* for a family of them")
    return tuple(value) if isinstance(value, list) else ()


def _is_event_type(pattern: str) -> bool:
    try:
        validate_event_types([pattern])
    except InvalidInput:
        return False
    return True


def _elements(
    reading: Reading, key: str, value: object, allowed: str, *, least: int = 0
) -> Iterator[tuple[int, object]]:
    """Each element with its place. Refuses anything but an array of the right length without repeats."""
    if not isinstance(value, list):
        reading.refuse(key, shown(value), allowed)
        return
    if len(value) < least:
        reading.refuse(key, "an empty array", allowed)
    if len(value) > MAX_ENTRIES:
        reading.refuse(key, f"{len(value):,} entries", f"{allowed}; at most {MAX_ENTRIES}")
        return
    for index, item in enumerate(value):
        if item in value[:index]:
            reading.refuse(f"{key}[{index}]", f"{shown(item)} again", allowed)
        else:
            yield index, item


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "description": Field("description", *_text(MAX_TEXT_CHARACTERS)),
        "source": Field("source", *_text(MAX_TEXT_CHARACTERS)),
        "scope": Field("scope", *_text(MAX_SCOPE_CHARACTERS)),
        "methods": Field("methods", *_several(("POST", "GET"))),
        "body": Field("body", *_choice(get_args(BodyName))),
        "envelope_members": Field("envelope_members", _envelope_members, "an array of names of members, each once"),
        "deadline_s": Field("deadline_s", *_number(1, 60)),
        "schedule": Field("schedule", *_name("the name of a schedule")),
        "modes": Field("modes", *_choice(get_args(Modes))),
        "target": Field("target", *_flag()),
        "url.schemes": Field("url_schemes", *_several(("https", "http"))),
        "url.ports": Field("url_ports", *_flag()),
        "url.ip_literals": Field("url_ip_literals", *_flag()),
        "url.private_http": Field("url_private_http", *_flag()),
        "signature.schemes": Field("signature_schemes", *_names("names of signature schemes")),
        "signature.secret": Field("secret", *_flag()),
        "signature.headers": Field("signature_headers", _headers, "a table: a scheme's header = the name that is sent"),
        "answers.success": Field("success", *_statuses(200, 299, or_any="any_2xx")),
        "answers.permanent_statuses": Field("permanent_statuses", *_statuses(300, 599)),
        "answers.disable_on": Field("disable_on", *_statuses(300, 599)),
        "answers.retry_after": Field("retry_after", *_choice(get_args(RetryAfter))),
        "answers.blocked_limit": Field("blocked_limit", *_count(1_000)),
        "registration.fields": Field("registration_fields", *_several(REGISTRATION_FIELDS)),
        "registration.required": Field("required_fields", *_several(REGISTRATION_FIELDS)),
        "registration.auth": Field("auth", *_several(get_args(Auth))),
        "registration.limit": Field("endpoint_limit", *_count(1_000_000, or_none=True)),
        "registration.warn_above": Field("warn_above", *_count(1_000_000, or_none=True)),
        "registration.ping": Field("ping", *_flag()),
        "events.choice": Field("event_choice", *_choice(get_args(EventChoice))),
        "events.catalogue": Field("catalogue", _catalogue, "an array of event types, or payment.* for a family"),
    }
)
"""The format of a file: a field's name, its table before a dot, and what becomes of it."""

_TABLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        table: tuple(name.rpartition(".")[2] for name in FIELDS if name.rpartition(".")[0] == table)
        for table in dict.fromkeys(name.rpartition(".")[0] for name in FIELDS if "." in name)
    }
)

_DEFAULT: Final = Profile(name="default")


# How fields fit each other


def _check_envelope(reading: Reading, values: dict[str, Any], _known: Known) -> None:
    if values["envelope_members"] and values["body"] != "envelope":
        found = f"members although body is {shown(values['body'])}"
        reading.refuse("envelope_members", found, 'none, since only body "envelope" has an envelope')


def _check_schedule(reading: Reading, values: dict[str, Any], known: Known) -> None:
    name = values["schedule"]
    if name not in known.schedules:
        reading.refuse(
            "schedule", shown(name), f"a schedule: {', '.join(known.schedules)}{nearest(name, known.schedules)}"
        )


def _check_schemes(reading: Reading, values: dict[str, Any], known: Known) -> None:
    names = values["signature_schemes"]
    for index, name in enumerate(names):
        if name not in known.schemes:
            allowed = f"a signature scheme: {', '.join(known.schemes)}{nearest(name, known.schemes)}"
            reading.refuse(f"signature.schemes[{index}]", shown(name), allowed)
    if all(name in known.schemes for name in names):
        schemes = [known.schemes[name] for name in names]
        if "secret" in values:
            _check_secret(reading, values["secret"], schemes)
        if "signature_headers" in values:
            _check_headers(reading, dict(values["signature_headers"]), schemes)


def _check_secret(reading: Reading, promised: bool, schemes: list[SchemeFacts]) -> None:
    needed = any(scheme.key_owner == "endpoint" for scheme in schemes)
    if needed and not promised:
        reading.refuse("signature.secret", "false", "true, since a scheme here signs with the endpoint's secret")
    if promised and not needed:
        reading.refuse("signature.secret", "true", "false, since no scheme here signs with an endpoint's secret")


def _check_headers(reading: Reading, renamed: dict[str, str], schemes: list[SchemeFacts]) -> None:
    headers = list(dict.fromkeys(header for scheme in schemes for header in scheme.header_names))
    for header in renamed:
        if header not in headers:
            allowed = f"a header of the schemes: {', '.join(headers) or 'they have none'}{nearest(header, headers)}"
            reading.refuse(f"signature.headers.{shown_key(header)}", "a header that is not sent", allowed)
    sent = [renamed.get(header, header) for header in headers]
    for header in headers:
        if header in renamed and sent.count(renamed[header]) > 1:
            found = f"{shown(renamed[header])}, which another header is sent as"
            reading.refuse(f"signature.headers.{header}", found, "a name of its own for each header")


def _check_statuses(reading: Reading, values: dict[str, Any], _known: Known) -> None:
    both = values["permanent_statuses"] & values["disable_on"]
    if both:
        found = f"{', '.join(map(str, sorted(both)))} as in permanent_statuses"
        reading.refuse("answers.disable_on", found, "statuses not in permanent_statuses: disabling rejects too")


def _check_fields(reading: Reading, values: dict[str, Any], _known: Known) -> None:
    allowed = values["registration_fields"]
    if "url" not in allowed:
        reading.refuse("registration.fields", "no url", "url among them: every endpoint has one")
    ruled_out = dict(_ruled_out(values))
    for index, field in enumerate(allowed):
        if field in ruled_out:
            reading.refuse(
                f"registration.fields[{index}]", shown(field), f"fields without it, since {ruled_out[field]}"
            )


def _check_required(reading: Reading, values: dict[str, Any], _known: Known) -> None:
    required = values["required_fields"]
    if "url" not in required:
        reading.refuse("registration.required", "no url", "url among them: every endpoint has one")
    if values.get("auth") == ("basic",) and "auth" not in required:
        reading.refuse("registration.required", "no auth", "auth among them, since registration.auth leaves no choice")
    for index, field in enumerate(required):
        if field != "url" and field not in values.get("registration_fields", required):
            reading.refuse(f"registration.required[{index}]", shown(field), "a field that registration.fields has")


def _check_limits(reading: Reading, values: dict[str, Any], _known: Known) -> None:
    limit, warn_above = values["endpoint_limit"], values["warn_above"]
    if limit is not None and warn_above is not None and warn_above >= limit:
        reading.refuse("registration.warn_above", str(warn_above), f"less than registration.limit, which is {limit}")


def _check_events(reading: Reading, values: dict[str, Any], _known: Known) -> None:
    closed = values["event_choice"] == "closed"
    if closed and not values["catalogue"]:
        reading.refuse("events.catalogue", "nothing", 'at least one event type, since events.choice is "closed"')
    if not closed and values["catalogue"]:
        reading.refuse("events.catalogue", "a catalogue", 'none, since only events.choice "closed" has a catalogue')


def _ruled_out(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of a registration that would have no effect, and why."""
    if values.get("event_choice") == "all":
        yield "event_types", 'events.choice is "all"'
    if values.get("auth") == ("none",):
        yield "auth", "registration.auth has only none"
    if len(values.get("methods", ())) == 1:
        yield "method", "there is one method"


_CHECKS: Final[tuple[tuple[tuple[str, ...], Callable[[Reading, dict[str, Any], Known], None]], ...]] = (
    (("body", "envelope_members"), _check_envelope),
    (("schedule",), _check_schedule),
    (("signature_schemes",), _check_schemes),
    (("permanent_statuses", "disable_on"), _check_statuses),
    (("registration_fields",), _check_fields),
    (("required_fields",), _check_required),
    (("endpoint_limit", "warn_above"), _check_limits),
    (("event_choice", "catalogue"), _check_events),
)
"""Each check with the attributes without which it cannot be made."""


def _lint(reading: Reading, profile: Profile) -> None:
    """What is allowed and yet likely a slip."""
    for key in ("description", "source"):
        if not getattr(profile, key):
            reading.doubt(key, "missing; say for people whose webhooks these are and who declared it")
    if not profile.signature_schemes:
        reading.doubt("signature.schemes", "none, so no receiver can tell who sent a delivery")
    if "POST" not in profile.methods:
        reading.doubt("methods", "no POST, so no delivery has a body")
    if profile.deadline_s < _HASTY_S:
        reading.doubt("deadline_s", f"{profile.deadline_s:g} s; a receiver that is merely busy will time out")
    for key in ("permanent_statuses", "disable_on"):
        if passing := sorted(getattr(profile, key) & _PASSING):
            text = f"{', '.join(map(str, passing))}: what a receiver answers in a bad minute would end its deliveries"
            reading.doubt(f"answers.{key}", text)
