"""A profile file's text: what it declares, everything wrong with it, and what in it is doubtful.

`FIELDS` is the format. Each field is read on its own; `_CHECKS` then compare fields that must fit each other.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from dispatcher import datafile
from dispatcher.datafile import nearest, parse, refuse_unknown, shown, text_of
from dispatcher.errors import InvalidInput
from dispatcher.model.endpoint import validate_event_types
from dispatcher.model.profile import (
    REGISTRATION_FIELDS,
    Auth,
    BodyName,
    EventChoice,
    Modes,
    Profile,
    RetryAfter,
    SecretOwner,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

MAX_SCOPE_CHARACTERS: Final = 40
MAX_CATALOGUE: Final = 500
DEADLINE_S: Final = (1, 60)

_HEADER: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_OURS: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""Headers that frame, describe or authorise a request: none of them can carry a signature."""

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

    `read` returns the value, or notes a problem; what it then returns is not used.
    """

    attribute: str
    allowed: str
    read: Callable[[Reading, str, object, str], object]


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
    given = frozenset(values)
    values = _DEFAULTS | {attribute: values.get(attribute) for attribute in _refused(reading)} | values
    for attribute in _refused(reading):
        values.pop(attribute, None)
    _fit_registration_fields(values, given)
    for needed, check in _CHECKS:
        if all(attribute in values for attribute in needed):
            check(reading, values, known)
    if not reading.problems:
        reading.profile = Profile(name=name, **values)
        _lint(reading, reading.profile)
