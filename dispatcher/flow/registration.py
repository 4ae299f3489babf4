"""What a registration may say: the rules that hold for every endpoint, and those of its profile.

Each function takes what was asked for one field, None where nothing was, and returns what is to be stored. All raise
InvalidInput naming the field; none repeats a value that may be secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.egress import parse_url
from dispatcher.errors import InvalidInput
from dispatcher.flow.rules import url_policy
from dispatcher.model import json_text, limits
from dispatcher.model.endpoint import validate_event_types
from dispatcher.model.headers import OURS
from dispatcher.signing import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from dispatcher.model.profile import Profile

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_OURS: Final = OURS | {header for scheme in SCHEMES.values() for header in scheme.header_names}
_OUR_PREFIX: Final = "webhook-"


def check_fields(asked: Mapping[str, object], profile: Profile, *, is_new: bool) -> None:
    """Whether the profile has the fields that are asked for, and none that it demands is lacking or taken away."""
    for name, value in asked.items():
        if value is not None and name not in profile.registration_fields:
            allowed = ", ".join(profile.registration_fields)
            raise InvalidInput(f"/{name}", f"a field that the profile {profile.name!r} does not have", allowed)
    for name in profile.required_fields:
        if asked.get(name) is None and (is_new or name in asked):
            raise InvalidInput(f"/{name}", "nothing", f"a value: the profile {profile.name!r} requires it")


def url(asked: str, profile: Profile, networks: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """The URL in its canonical form."""
    return parse_url(asked, url_policy(profile, networks)).canonical


def line(name: str, asked: str | None) -> str | None:
    """A name, a description or a reason."""
    if asked is not None and len(asked) > limits.TEXT:
        raise InvalidInput(f"/{name}", f"{len(asked)} characters", f"at most {limits.TEXT} characters")
    if asked is not None and _UNSTORABLE.search(asked):
        raise InvalidInput(f"/{name}", "NUL or half of a surrogate pair", "Unicode text without NUL")
    return asked


def event_types(asked: Sequence[str] | None, profile: Profile) -> tuple[str, ...] | None:
    """The patterns that the endpoint chooses by; None for all that its profile offers."""
    patterns = validate_event_types(asked)
    for n, pattern in enumerate(patterns or ()):
        if not profile.offers(pattern):
            allowed = ", ".join(profile.catalogue)
            raise InvalidInput(f"/event_types/{n}", repr(pattern), allowed or "all types, without a choice")
    return patterns


def metadata(asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the owner keeps with it: JSON that the database keeps as it is."""
    allowed = "JSON values that can be stored"
    try:
        stored = orjson.dumps(asked or {})
    except TypeError as error:
        raise InvalidInput("/metadata", str(error), allowed) from error
    if b"\\u0000" in stored:
        raise InvalidInput("/metadata", "the character NUL", allowed)
    if json_text.is_deeper(stored, json_text.MAX_DEPTH):
        raise json_text.too_deep("/metadata")
    if len(stored) > limits.METADATA_BYTES:
        raise InvalidInput("/metadata", f"{len(stored)} bytes", f"at most {limits.METADATA_BYTES} bytes")
    if orjson.loads(stored) != (asked or {}):
        raise InvalidInput("/metadata", "a number that is not finite", allowed)
    return dict(asked or {})


def schedule(asked: str | None, profile: Profile, known: Sequence[str]) -> str:
    """The name of a schedule that is published."""
    wanted = asked or profile.schedule
    if wanted not in known:
        raise InvalidInput("/schedule", repr(wanted)[:80], ", ".join(known))
    return wanted


def signature(asked: Sequence[str] | None, profile: Profile) -> tuple[str, ...] | None:
    """The names of signature schemes; None for those of the profile."""
    if asked is None:
        return None
    known = [name for name, one in SCHEMES.items() if profile.secret or one.key_owner == "platform"]
    if not asked:
        raise InvalidInput("/signature", "an empty list", "leave it out for the profile's, or name at least one")
    for n, name in enumerate(asked):
        if name not in known:
            raise InvalidInput(f"/signature/{n}", repr(name)[:80], ", ".join(known))
    return tuple(dict.fromkeys(asked))


def auth(asked: Mapping[str, str] | None, profile: Profile) -> dict[str, str] | None:
    """How a delivery authenticates itself: by a username and a password."""
    if asked is None:
        return None
    if asked["type"] not in profile.auth or asked["type"] == "none":
        raise InvalidInput("/auth/type", repr(asked["type"])[:80], " or ".join(profile.auth))
    username, password = asked["username"], asked["password"]
    if len(username) > 255 or re.search(limits.USERNAME, username) is None or _UNSTORABLE.search(username):
        allowed = "1 to 255 characters, no colon, no control character"
        raise InvalidInput("/auth/username", f"{len(username)} characters", allowed)
    if len(password) > 1024 or re.search(limits.PASSWORD, password) is None or _UNSTORABLE.search(password):
        raise InvalidInput("/auth/password", f"{len(password)} characters", "at most 1024, no control character")
    return {"type": "basic", "username": username, "password": password}


def headers(asked: Mapping[str, str] | None, profile: Profile) -> list[tuple[str, str]]:
    """The endpoint's own headers, none of which is one of ours."""
    found: dict[str, tuple[str, str]] = {}
    ours = _OURS | {sent for _, sent in profile.signature_headers}
    if len(asked or {}) > limits.HEADERS:
        raise InvalidInput("/headers", f"{len(asked or {})} headers", f"at most {limits.HEADERS}")
    for name, value in (asked or {}).items():
        if re.search(limits.HEADER_NAME, name) is None or name.endswith("\n"):
            raise InvalidInput("/headers", f"the name {name[:80]!r}", "names of 1 to 128 characters of a token")
        lowered, pointer = name.lower(), "/headers/" + name.replace("~", "~0")
        if lowered in ours or lowered.startswith(_OUR_PREFIX):
            raise InvalidInput(pointer, "a header that is the platform's", "others")
        if lowered in found:
            raise InvalidInput(pointer, "the header twice", "each once")
        if re.search(limits.HEADER_VALUE, value) is None or value.endswith("\n"):
            allowed = f"1 to {limits.HEADER_BYTES} characters of visible ASCII, with spaces inside"
            raise InvalidInput(pointer, f"{len(value)} characters", allowed)
        found[lowered] = (name, value)
    return list(found.values())


def check_authorization(names: Collection[str], *, has_auth: bool) -> None:
    """Whether the endpoint's own headers leave `authorization` to its authentication."""
    if has_auth and any(name.lower() == "authorization" for name in names):
        raise InvalidInput("/headers", "authorization beside auth", "one of the two")


def method(asked: str | None, profile: Profile) -> str:
    """What deliveries are sent by."""
    if asked is not None and asked not in profile.methods:
        raise InvalidInput("/method", repr(asked)[:80], " or ".join(profile.methods))
    return asked or profile.methods[0]


def max_in_flight(asked: int | None) -> int:
    """How many deliveries may be attempted at once."""
    if asked is not None and not 1 <= asked <= limits.MAX_IN_FLIGHT:
        raise InvalidInput("/max_in_flight", str(asked), f"1 to {limits.MAX_IN_FLIGHT}")
    return limits.IN_FLIGHT if asked is None else asked


def rate_limit(asked: float | None) -> float | None:
    """Attempts a second; None for no limit."""
    least, most = limits.RATE_LIMIT
    if asked is not None and not least <= asked <= most:
        raise InvalidInput("/rate_limit", str(asked), f"{least:g} to {most:g} attempts a second")
    return asked
