r"""One parser for URLs, used at registration and at every send.

URL parsers disagree: `https://example.com\@127.0.0.1/` goes to 127.0.0.1 in one and to example.com in another.
So whatever two of them could read differently is refused here, the canonical form is stored, and what is dialled is
what was checked.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import idna

from dispatcher.errors import InvalidInput

MAX_URL_CHARACTERS = 2_048

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHAPE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?]*)([^?]*)(\?.*)?\Z", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\Z")
_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_PORT = re.compile(r":([1-9][0-9]{0,4})\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Printable, but in no URL by RFC 3986: sent percent-encoded, as httpx and browsers send them.
_ENCODED = {ord(character): f"%{ord(character):02X}" for character in '"<>^`{|}'}
# Unicode categories without a visible form: controls, format (zero-width) characters, separators, unassigned.
_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})

_PRIVATE_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".onion", ".home.arpa")
# Names under which clouds serve credentials to their own machines; those below .internal are covered above.
_METADATA_NAMES = frozenset(
    {
        "metadata.tencentyun.com",
        "metadata.packet.net",
        "metadata.platformequinix.com",
    }
)


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What a URL may be, beyond the rules that always hold.

    `allow_private_names` lets through localhost, names of one label and the private suffixes. `private_networks` are
    those that the operator allows: an address in one of them, and, where there are any, a private name, may be named
    with a port, and by http if `private_http`; every other host keeps the rules. What is dialled is decided by the
    address policy in any case.
    """

    allow_http: bool = False
    allow_ports: bool = False
    allow_ip_literals: bool = False
    allow_private_names: bool = False
    private_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    private_http: bool = True

    def for_private(self) -> UrlPolicy:
        """The policy for a host that the operator vouches for."""
        return replace(
            self,
            allow_http=self.allow_http or self.private_http,
            allow_ports=True,
            allow_ip_literals=True,
            allow_private_names=True,
            private_networks=(),
        )


STRICT = UrlPolicy()
ANY_HOST = UrlPolicy(allow_http=True, allow_ports=True, allow_ip_literals=True, allow_private_names=True)


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A checked URL.

    `host` is lower-case ASCII, an IPv6 address without brackets; `target` is path and query as sent;
    `canonical` parses to an equal TargetUrl.
    """

    scheme: str
    host: str
    port: int
    target: bytes
    canonical: str
    is_ip: bool
    origin: tuple[str, str, int] = field(init=False, repr=False, compare=False)
    authority: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", (self.scheme, self.host, self.port))
        object.__setattr__(self, "authority", _authority(self.scheme, self.host, self.port).encode("ascii"))


def _authority(scheme: str, host: str, port: int) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == _DEFAULT_PORTS[scheme] else f"{bracketed}:{port}"


def _refuse(found: str, allowed: str) -> InvalidInput:
    return InvalidInput("/url", found, allowed)


@lru_cache(maxsize=4_096)
def parse_url(text: str, policy: UrlPolicy = STRICT) -> TargetUrl:
    """Check `text` and return its canonical form; raises InvalidInput with the pointer "/url".

    The message never repeats what could be a password. Remembered, since every attempt parses its URL again.

    >>> parse_url("HTTPS://Shop.Example.COM./hooks?a=1").canonical
    'https://shop.example.com/hooks?a=1'
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise _refuse(f"{len(text)} characters", f"at most {MAX_URL_CHARACTERS}")
    for character in text:
        if unicodedata.category(character) in _INVISIBLE:
            raise _refuse(f"the character U+{ord(character):04X}", "no space, control or invisible character")
    for character, name in (("\\", "a backslash"), ("#", "a fragment")):
        if character in text:
            raise _refuse(name, "none")
    shape = _SHAPE.match(text)
    if shape is None:
        raise _refuse("no scheme and host", "https://host/path")
    if policy.private_networks and _is_private(shape[2], policy.private_networks):
        policy = policy.for_private()
    scheme = shape[1].lower()
    schemes = ("http", "https") if policy.allow_http else ("https",)
    if scheme not in schemes:
        raise _refuse(f"the scheme {scheme!r}", " or ".join(schemes))
    host, port, is_ip = _host_and_port(shape[2], scheme, policy)
    target = _target(shape[3], shape[4] or "")
    canonical = f"{scheme}://{_authority(scheme, host, port)}{target}"
    if len(canonical) > MAX_URL_CHARACTERS:
        raise _refuse(f"{len(canonical)} characters in its canonical form", f"at most {MAX_URL_CHARACTERS}")
    return TargetUrl(scheme, host, port, target.encode("ascii"), canonical, is_ip)


def _is_private(authority: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    """Whether the host is an address in one of the networks, or a private name; a malformed one is neither."""
    if authority.startswith("["):
        host = authority[1:].partition("]")[0]
    else:
        try:
            host = _ascii_name(authority.partition(":")[0]).removesuffix(".")
        except InvalidInput:
            return False
    try:
        address = ip_address(host)
    except ValueError:
        return bool(host) and _LABEL.match(host.partition(".")[0]) is not None and _is_private_name(host)
    return any(address in network for network in networks)


def _is_private_name(host: str) -> bool:
    return "." not in host or f".{host}".endswith(_PRIVATE_SUFFIXES)


def _host_and_port(authority: str, scheme: str, policy: UrlPolicy) -> tuple[str, int, bool]:
    if "@" in authority:
        raise _refuse("userinfo before the host", "none: credentials are sent as headers")
    if "%" in authority:
        raise _refuse("a percent sign in the host", "a plain host name")
    if authority.startswith("["):
        literal, bracket, rest = authority[1:].partition("]")
        if not bracket:
            raise _refuse("an opening bracket only", "[address]")
        return _ipv6(literal, policy), _port(rest, scheme, policy), True
    host, colon, rest = authority.partition(":")
    port = _port(colon + rest, scheme, policy)
    host = _ascii_name(host).removesuffix(".")
    if not host:
        raise _refuse("no host", "a host name")
    if _NUMERIC.match(host.rpartition(".")[2]):
        return _ipv4(host, authority, policy), port, True
    _check_name(host, policy)
    return host, port, False


def _port(text: str, scheme: str, policy: UrlPolicy) -> int:
    if not text:
        return _DEFAULT_PORTS[scheme]
    if not policy.allow_ports:
        raise _refuse("a port", "none")
    match = _PORT.match(text)
    if match is None or int(match[1]) > 65_535:
        raise _refuse("a port that is not a number", ":1 to :65535")
    return int(match[1])


def _ipv4(host: str, authority: str, policy: UrlPolicy) -> str:
    if not policy.allow_ip_literals:
        raise _refuse("an address, or a name that ends in a number", "a host name")
    try:
        address = str(IPv4Address(host))
    except ValueError:
        address = ""
    # Exactly as written: neither 127.1 nor 0x7f000001 nor full-width digits, which others read as addresses.
    if address != host or not authority.startswith(host):
        raise _refuse("an address that is not written as four decimal numbers", "an address like 192.0.2.1")
    return address


def _ipv6(literal: str, policy: UrlPolicy) -> str:
    if not policy.allow_ip_literals:
        raise _refuse("an address", "a host name")
    try:
        address = IPv6Address(literal)
    except ValueError as error:
        raise _refuse("brackets around what is not an IPv6 address", "an address like [2001:db8::1]") from error
    if address.ipv4_mapped is not None:
        raise _refuse("an IPv4-mapped address", "the IPv4 address itself")
    return str(address)


def searched_host(host: str) -> str:
    """Return the form in which canonical URLs hold `host`; what is not a valid name is returned as it is.

    >>> searched_host("Bücher.example."), searched_host("shop.example.com")
    ('xn--bcher-kva.example', 'shop.example.com')
    """
    try:
        return _ascii_name(host).removesuffix(".")
    except InvalidInput:
        return host


def searched_url(url: str) -> str:
    """Return the canonical form of `url`, as it is stored; what is not a valid URL is returned as it is.

    >>> searched_url("https://Bücher.example/hook")
    'https://xn--bcher-kva.example/hook'
    """
    try:
        return parse_url(url, ANY_HOST).canonical
    except InvalidInput:
        return url


def _ascii_name(host: str) -> str:
    if host.isascii():
        return host.lower()
    try:
        return idna.encode(host, uts46=True, std3_rules=True).decode("ascii").lower()
    except UnicodeError as error:  # idna.IDNAError is one
        raise _refuse("a host that is not a valid internationalised name", "a name that IDNA accepts") from error


def _check_name(host: str, policy: UrlPolicy) -> None:
    if len(host) > 253:
        raise _refuse(f"a host of {len(host)} characters", "at most 253")
    labels = host.split(".")
    for label in labels:
        if _LABEL.match(label) is None:
            raise _refuse("a host with an empty, too long or malformed label", "letters, digits and inner hyphens")
        if label.startswith("xn--"):
            _check_punycode(label)
    if policy.allow_private_names:
        return
    if len(labels) < 2:
        raise _refuse(f"the name {host!r}", "a name with at least two labels")
    if _is_private_name(host) or host in _METADATA_NAMES:
        raise _refuse(f"the private name {host!r}", "a public name")


def _check_punycode(label: str) -> None:
    try:
        again = idna.encode(idna.decode(label), uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:
        raise _refuse(f"the label {label!r}", "Punycode of a name that IDNA accepts") from error
    if again != label:
        raise _refuse(f"the label {label!r}", f"its canonical form {again!r}")


def _target(path: str, query: str) -> str:
    raw = path + query
    if not raw.isascii():
        raise _refuse("a character outside ASCII after the host", "its percent-encoded form")
    if _BAD_ESCAPE.search(raw):
        raise _refuse("a percent sign without two hexadecimal digits", "%25 for the sign itself")
    return (_without_dot_segments(path) + query).translate(_ENCODED)


def _without_dot_segments(path: str) -> str:
    """Resolve "." and ".." as RFC 3986, section 5.2.4, does, so that no client resolves them differently."""
    if "/." not in path:
        return path or "/"
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
