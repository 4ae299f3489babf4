"""What was checked is what is dialled."""

from __future__ import annotations

from ipaddress import ip_network
from urllib.parse import urlsplit

import httpx
import pytest
import yarl
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.egress import UrlPolicy, parse_url
from dispatcher.egress.url import ANY_HOST
from dispatcher.errors import InvalidInput

STRICT = UrlPolicy()


def agree(canonical: str, host: str, port: int, target: bytes) -> None:
    """Every parser reads the canonical form as ours does."""
    ours = parse_url(canonical, ANY_HOST)
    assert (ours.canonical, ours.host, ours.port, ours.target) == (canonical, host, port, target)
    theirs = httpx.URL(canonical)
    assert theirs.raw_host.decode() == host
    assert (theirs.port or {"http": 80, "https": 443}[theirs.scheme]) == port
    assert theirs.raw_path == target
    assert not theirs.userinfo
    split = urlsplit(canonical)
    assert (split.hostname, split.port or ours.port) == (host, port)
    assert split.username is None
    other = yarl.URL(canonical, encoded=True)
    assert (other.raw_host, other.port) == (host, port)
    assert other.user is None


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://shop.example.com", "https://shop.example.com/"),
        ("HTTPS://Shop.Example.COM./Hooks?A=b", "https://shop.example.com/Hooks?A=b"),
        ("https://shop.example.com?x=1", "https://shop.example.com/?x=1"),
        ("https://shop.example.com/a/../b/./c/..", "https://shop.example.com/b/"),
        ("https://shop.example.com/../../a", "https://shop.example.com/a"),
        ("https://shop.example.com/a//b", "https://shop.example.com/a//b"),
        ("https://shop.example.com/%7Euser/%2e", "https://shop.example.com/%7Euser/%2e"),
        ('https://shop.example.com/{a}|"b"?c[]=<d>', "https://shop.example.com/%7Ba%7D%7C%22b%22?c[]=%3Cd%3E"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        ("https://r3---sn-x.example.com/", "https://r3---sn-x.example.com/"),
        ("https://127.0.0.1.nip.io/", "https://127.0.0.1.nip.io/"),
    ],
)
def test_a_url_has_one_canonical_form(text: str, canonical: str) -> None:
    target = parse_url(text, STRICT)
    assert target.canonical == canonical
    assert parse_url(canonical, STRICT) == target
    agree(canonical, target.host, target.port, target.target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop.example.com",
        "//shop.example.com/",
        "http://shop.example.com/",
        "ftp://shop.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:shop.example.com",
        "https:/shop.example.com",
        "https:///shop.example.com",
        "https://",
        "https://?x",
        "https://shop.example.com:443/",
        "https://shop.example.com:8443/",
        "https://shop.example.com:/",
        # Parsers disagree on each of these.
        "https://example.com\\@127.0.0.1/",
        "https://127.0.0.1\\@example.com/",
        "https://example.com@127.0.0.1/",
        "https://user:secret@shop.example.com/",
        "https://@shop.example.com/",
        "https://example.com#@127.0.0.1/",
        "https://shop.example.com/#fragment",
        "https://shop.example.com/\t",
        "https://shop.exa\nmple.com/",
        "https://shop.example.com/\r\nHost: x",
        " https://shop.example.com/",
        "https://shop.example.com/ ",
        "https://shop.example.com/a b",
        "https://shop.exam\u200bple.com/",
        "https://shop.exam\u00adple.com/",
        "https://shop.exam\u2060ple.com/",
        "https://shop.example.com/\ufeff",
        "https://shop.example.com/\u00a0",
        "https://shop.example.com/\x00",
        "https://shop.example.com/\x7f",
        "https://shop.example.com/\ud800",
        "https://shop%2eexample.com/",
        "https://shop.example.com%00.evil.example/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://shop.example.com/%zz",
        "https://shop.example.com/%",
        "https://shop.example.com/é",
        # Addresses, by any spelling.
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://127.0.0.1../",
        "https://１２７.０.０.１/",
        "https://127。0。0。1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::1/",
        "https://::1/",
        "https://example.0x7f/",
        "https://example.123/",
        "https://1.2.3.4.5/",
        # Names that lead inside.
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
        "https://localhost.localdomain/",
        "https://printer.local/",
        "https://printer.local./",
        "https://db.internal/",
        "https://metadata.google.internal/",
        "https://metadata.tencentyun.com/",
        "https://abc.onion/",
        "https://router.home.arpa/",
        "https://metadata/",
        "https://shop/",
        # Names that are none.
        "https://shop..example.com/",
        "https://.example.com/",
        "https://-shop.example.com/",
        "https://shop-.example.com/",
        "https://sh_op.example.com/",
        "https://sh*op.example.com/",
        "https://shop,example.com/",
        "https://" + "a" * 64 + ".example.com/",
        "https://" + ".".join(["a" * 60] * 5) + ".com/",
        "https://xn--a.example/",
        "https://xn--.example/",
        "https://xn--shop-.example/",
        "https://shop.example.com/" + "a" * 2_048,
        "https://shop.example.com/" + '"' * 1_000,
    ],
)
def test_a_url_that_leads_astray_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_url(text, STRICT)
    assert refused.value.pointer == "/url"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "canonical", "is_ip"),
    [
        ("http://shop.example.com/", "http://shop.example.com/", False),
        ("http://shop.example.com:80/", "http://shop.example.com/", False),
        ("https://shop.example.com:443/", "https://shop.example.com/", False),
        ("https://shop.example.com:8443/", "https://shop.example.com:8443/", False),
        ("http://shop.example.com:443/", "http://shop.example.com:443/", False),
        ("http://127.0.0.1:65535/", "http://127.0.0.1:65535/", True),
        ("http://[::1]:80/", "http://[::1]/", True),
        ("http://[2001:DB8:0::1]:8080/x", "http://[2001:db8::1]:8080/x", True),
        ("http://localhost:8000/", "http://localhost:8000/", False),
        ("http://receiver:8000/", "http://receiver:8000/", False),
        ("http://printer.local/", "http://printer.local/", False),
    ],
)
def test_a_policy_may_allow_more(text: str, canonical: str, is_ip: bool) -> None:
    target = parse_url(text, ANY_HOST)
    assert (target.canonical, target.is_ip) == (canonical, is_ip)
    agree(canonical, target.host, target.port, target.target)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.1/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://１２７.０.０.１/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://localhost:0/",
        "http://localhost:65536/",
        "http://localhost:080/",
        "http://localhost:٨٠/",
        "http://localhost:-1/",
        "http://localhost:8000:8000/",
        "http://[::1]x/",
        "http://user@localhost/",
    ],
)
def test_no_policy_allows_what_is_ambiguous(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_url(text, ANY_HOST)


@pytest.mark.parametrize(
    "host", ["bücher.internal", "BÜCHER.internal.", "bücher。internal", "xn--bcher-kva.internal", "bücher"]
)
def test_a_private_name_may_have_a_port_in_either_spelling(host: str) -> None:
    policy = UrlPolicy(private_networks=(ip_network("10.0.0.0/8"),))
    target = parse_url(f"https://{host}:8443/hook", policy)
    assert (target.host.partition(".")[0], target.port) == ("xn--bcher-kva", 8443)


def test_a_public_internationalised_name_keeps_the_rule_for_ports() -> None:
    policy = UrlPolicy(private_networks=(ip_network("10.0.0.0/8"),))
    for host in ("bücher.example", "xn--bcher-kva.example", "bü_cher.internal"):
        with pytest.raises(InvalidInput) as refused:
            parse_url(f"https://{host}:8443/hook", policy)
        assert refused.value.found == "a port"


LABELS = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9\-]{0,10}[a-zA-Z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATHS = st.text(alphabet="aZ0/.-_~!$&'()*+,;=:@%[]{}|^`\"<>?2eEfF", max_size=30)
PORTS = st.sampled_from(["", ":1", ":80", ":443", ":8443", ":65535"])


@given(st.sampled_from(["http", "HTTPS"]), HOSTS, PORTS, PATHS)
@example("http", "a.example", "", "/.%2e/..")
@example("http", "a.example", "", "//evil.example")
def test_every_parser_reads_the_canonical_form_alike(scheme: str, host: str, port: str, path: str) -> None:
    try:
        target = parse_url(f"{scheme}://{host}{port}/{path}", ANY_HOST)
    except InvalidInput:
        return
    agree(target.canonical, target.host, target.port, target.target)


@given(st.text(alphabet="htps:/\\@#?.%[]0123456789xabc-_ \t\n\u200bé１。", max_size=40))
def test_whatever_is_accepted_is_read_alike(tail: str) -> None:
    try:
        target = parse_url("http://" + tail, ANY_HOST)
    except InvalidInput:
        return
    agree(target.canonical, target.host, target.port, target.target)
