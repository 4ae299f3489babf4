"""The database's address: any spelling of a PostgreSQL URL, libpq's for several hosts too, as SQLAlchemy's."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

EXAMPLE: Final = (
    "a URL such as postgresql://user:password@host/database, or with several hosts "
    "postgresql://user:password@host1:5432,host2:5432/database"
)

_CONNECT_S: Final = (10, 3)
"""How long a host may take to connect: one alone, and each of several, of which the first may be gone."""

_AUTHORITY: Final = re.compile(
    r"(?P<before>[\w+]+://(?:[^:/@]*(?::[^@]*)?@)?)(?P<hosts>[^/?@]*)(?P<after>.*)", re.DOTALL
)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>\d+))?", re.ASCII)


def read(value: str) -> URL:
    """The URL, its hosts in its query where there are several; then of a server that can be written to, by default.

    Raises ValueError with what is allowed.
    """
    try:
        url = _with_hosts(value)
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            raise ValueError(EXAMPLE)
        url = url.set(drivername="postgresql+psycopg")
        if has_several_hosts(url):
            url = url.update_query_dict({"target_session_attrs": "read-write", **url.query})
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is not a number
        raise ValueError(EXAMPLE) from error
    return url


def _with_hosts(value: str) -> URL:
    parts = _AUTHORITY.fullmatch(value)
    if parts is None or "," not in parts["hosts"]:
        url = make_url(value)
        hosts, port = url.query.get("host"), url.query.get("port")
        if isinstance(hosts, str) and isinstance(port, str) and "," in hosts and "," not in port:
            url = url.update_query_dict({"port": ",".join([port] * len(hosts.split(",")))})  # one is that of all
        return url
    found = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")]
    url = make_url(parts["before"] + parts["after"])
    if None in found or {"host", "port"} & url.query.keys():
        raise ValueError(value)
    matches = [match for match in found if match is not None]
    return url.update_query_dict(
        {
            "host": ",".join(match["ipv6"] or match["name"] for match in matches),
            "port": ",".join(match["port"] or "5432" for match in matches),
        }
    )


def has_several_hosts(url: URL) -> bool:
    """Whether there are hosts to choose from. Raises ArgumentError where their ports are not as many."""
    return "," in str(_arguments(url).get("host", ""))


def _arguments(url: URL) -> dict[str, Any]:
    return dict(url.get_dialect()().create_connect_args(url)[1])


def connect_timeout(value: str) -> dict[str, int]:
    """How long each host may take to connect, as an argument of a connection; none where the URL says it itself."""
    url = make_url(value)
    if "connect_timeout" in url.query:
        return {}
    return {"connect_timeout": _CONNECT_S[has_several_hosts(url)]}
