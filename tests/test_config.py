"""Settings: read once, refused all at once, never shown when secret."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from secrets import token_hex, token_urlsafe

import pytest

from dispatcher import config
from dispatcher.errors import ConfigurationError
from dispatcher.model.access import EXAMPLE_KEY

ROOT = Path(__file__).resolve().parents[1]

GOOD = {
    "DISPATCHER_DATABASE_URL": "postgres://user:secret-word@db.example.com:5433/app?sslmode=require",
    "DISPATCHER_BROKER_URL": "amqp://guest@mq.example.com//",
    "DISPATCHER_PORT": "8080",
    "DISPATCHER_ALLOW_NETWORKS": "10.0.0.0/8, ::1/128",
    "DISPATCHER_WORKER_LEASE_S": "12.5",
    "DISPATCHER_EGRESS_ADDRESSES": "192.0.2.1,192.0.2.2",
    "DISPATCHER_LOG_FORMAT": "JSON",
    "DISPATCHER_BOOTSTRAP_KEY": "",
}


def test_good_settings_are_read_with_their_types() -> None:
    found = config.load(GOOD)
    assert found.database_url == "postgresql+psycopg://user:secret-word@db.example.com:5433/app?sslmode=require"
    assert found.port == 8080
    assert found.allow_networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert found.worker_lease_s == 12.5
    assert found.egress_addresses == ("192.0.2.1", "192.0.2.2")
    assert found.log_format == "json"
    assert "secret-word" not in repr(found)
    assert found.bootstrap_key is None, "an empty variable is an absent one"


def test_every_error_is_reported_at_once_and_no_secret_with_it() -> None:
    bad = {
        "DISPATCHER_DATABASE_URL": "mysql://user:secret-word@db/app",
        "DISPATCHER_BROKER_URL": "kafka://user:secret-word@mq",
        "DISPATCHER_PORT": "-1",
        "DISPATCHER_WORKERS": "²",
        "DISPATCHER_MAX_IN_FLIGHT": "many",
        "DISPATCHER_WORKER_LEASE_S": "nan",
        "DISPATCHER_ALLOW_NETWORKS": "10.0.0.1/8",
        "DISPATCHER_SCHEDULES_DIR": "/does/not/exist",
        "DISPATCHER_LOG_LEVEL": "loud",
        "DISPATCHER_EGRESS_PROXY": "http://proxy:secret-word@3128",
        "DISPATCHER_COLOUR": "red",
    }
    with pytest.raises(ConfigurationError) as caught:
        config.load(bad)
    assert {problem.where for problem in caught.value.problems} == set(bad)
    assert "secret-word" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == len(bad)
    assert all("; allowed: " in str(one) or "lists them" in str(one) for one in caught.value.problems)


def said(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        config.load(environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("DISPATCHER_PROT", "did you mean DISPATCHER_PORT?"),
        ("DISPATCHER_SECRET_KEY", "did you mean DISPATCHER_SECRET_KEYS?"),
        ("DISPATCHER_DATABASE", "did you mean DISPATCHER_DATABASE_URL?"),
        ("DISPATCHER_API_KEYS", "did you mean DISPATCHER_API_KEY?"),
        ("DISPATCHER_COLOUR", "docs/configuration.md lists them"),
        ("DISPATCHER_", "docs/configuration.md lists them"),
    ],
)
def test_an_unknown_setting_is_one_line_with_the_nearest_name(variable: str, hint: str) -> None:
    line = said({variable: "secret-word"})
    assert line == f"{variable}: found a setting that does not exist; {hint}"


def service_links(name: str) -> dict[str, str]:
    """What the kubelet sets in each pod for a Service of this name with a TCP port 8420 named http and a UDP one."""
    prefix = name.upper().replace("-", "_")
    links = {
        f"{prefix}_SERVICE_HOST": "10.0.0.1",
        f"{prefix}_SERVICE_PORT": "8420",
        f"{prefix}_SERVICE_PORT_HTTP": "8420",
        f"{prefix}_PORT": "tcp://10.0.0.1:8420",
    }
    for protocol in ("tcp", "udp", "sctp"):
        port = f"{prefix}_PORT_8420_{protocol.upper()}"
        links |= {
            port: f"{protocol}://10.0.0.1:8420",
            f"{port}_PROTO": protocol,
            f"{port}_PORT": "8420",
            f"{port}_ADDR": "10.0.0.1",
        }
    return links


@pytest.mark.parametrize(
    "name", ["dispatcher", "dispatcher-api", "dispatcher-api-url", "dispatcher-probe", "dispatcher-2-port"]
)
def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_setting(name: str) -> None:
    links = service_links(name)
    assert config.load(links) == config.load({})
    assert config.load(links | {"DISPATCHER_HOST": "0.0.0.0"}).port == 8420
    shown = {one.variable: one for one in config.show(config.load(links), links)}
    assert (shown["DISPATCHER_PORT"].value, shown["DISPATCHER_PORT"].source) == ("8420", "default")


def test_what_only_looks_like_a_service_link_is_refused() -> None:
    assert "a whole number" in said({"DISPATCHER_PORT": "http://10.0.0.1:8420"})
    assert "does not exist" in said({"DISPATCHER_API_PORT": "8420"})
    assert "does not exist" in said({"DISPATCHER_SERVICE": "10.0.0.1"})


def test_no_setting_has_a_name_that_kubernetes_could_set() -> None:
    for setting in fields(config.Settings):
        assert not config.is_service_link(config.PREFIX + setting.name.upper(), "8420"), setting.name


def test_a_long_random_operators_key_is_accepted() -> None:
    for key in (f"dsk_{token_urlsafe(32)}", token_hex(16), "!~" * 256):
        assert config.load({"DISPATCHER_BOOTSTRAP_KEY": key}).bootstrap_key == key


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("change-me", "a key that is published with the source code"),
        (EXAMPLE_KEY, "a key that is published with the source code"),
        ("x" * 31, "a key of 31 characters"),
        ("x" * 513, "a key of 513 characters"),
        ("secret word" * 4, "a key with a space"),
        ("secret-word" * 4 + "\n", "a key with a space"),
        ("secret-wörd" * 4, "a key with a space"),
    ],
)
def test_a_weak_operators_key_is_refused_with_the_command_that_makes_one(key: str, found: str) -> None:
    line = said({"DISPATCHER_BOOTSTRAP_KEY": key})
    assert line.startswith(f"DISPATCHER_BOOTSTRAP_KEY: found {found}")
    assert line.endswith(config.MAKE_KEY)
    assert key == "change-me" or key not in line
    command = config.MAKE_KEY.removeprefix('python3 -c "').removesuffix('"')
    printed = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True).stdout
    assert config.load({"DISPATCHER_BOOTSTRAP_KEY": printed.strip()})


def test_a_password_or_a_keyring_of_the_example_is_refused_and_not_repeated() -> None:
    line = said({"DISPATCHER_DATABASE_URL": "postgresql://dispatcher:change-me@postgres:5432/dispatcher"})
    assert line.startswith("DISPATCHER_DATABASE_URL: found the password of the example")
    assert "DISPATCHER_SECRET_KEYS: entry 1: found no colon" in said({"DISPATCHER_SECRET_KEYS": "change-me"})


SHIPPED = ("bench", "dispatcher", "docs", "examples", "scripts", "workers")
ASSIGNED = re.compile(r"""DISPATCHER_(BOOTSTRAP_KEY|SECRET_KEYS)["']?\s*[:=]\s*["']?([^\s"'$(]++)(?![(])""")


def test_no_secret_that_stands_in_this_repository_is_accepted() -> None:
    paths = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".env"]
    paths += [path for name in SHIPPED for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    tried = {("BOOTSTRAP_KEY", key) for key in config.PUBLISHED}
    for path in paths:
        text = path.read_text(errors="replace")
        tried |= set(ASSIGNED.findall(text))
        tried |= {("BOOTSTRAP_KEY", key) for key in re.findall(r"\bdsk_[A-Za-z0-9_-]{28,}", text)}
        tried |= {("SECRET_KEYS", key) for key in re.findall(r"\b\w+:[A-Za-z0-9+/]{43}=", text)}
    assert ("BOOTSTRAP_KEY", EXAMPLE_KEY) in tried
    accepted = []
    for name, value in tried:
        try:
            config.load({f"DISPATCHER_{name}": value})
        except ConfigurationError:
            continue
        accepted.append((name, value))
    assert not accepted


def test_a_number_of_thousands_of_digits_is_refused_as_any_other() -> None:
    assert said({"DISPATCHER_WORKERS": "9" * 5000}).endswith("allowed: a whole number from 1 to 256")
    assert said({"DISPATCHER_WORKER_LEASE_S": "9" * 5000}).endswith("allowed: seconds, from 1 to 600")
    assert "allowed: a duration such as 30d" in said({"DISPATCHER_RETENTION_PAYLOADS": "9" * 5000 + "d"})


@pytest.mark.parametrize("name", ["DATABASE_URL", "BROKER_URL"])
def test_a_port_that_is_no_number_is_refused_with_what_is_allowed(name: str) -> None:
    scheme = "postgresql" if name == "DATABASE_URL" else "redis"
    with pytest.raises(ConfigurationError, match="allowed: a URL such as") as caught:
        config.load({f"DISPATCHER_{name}": f"{scheme}://user:secret-word@host:port/0"})
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sentinel://:secret-word@one:26379", "the address of a Redis Sentinel"),
        ("sentinel://one:26379;sentinel://two:26379", "the address of a Redis Sentinel"),
        ("redis-sentinel://one:26379/0", "the address of a Redis Sentinel"),
        ("redis+sentinel://one:26379/0", "the address of a Redis Sentinel"),
        ("rediss+cluster://one:6379/0", "the address of a Redis Cluster"),
        ("redis+cluster://:secret-word@one:7000,two:7001", "the address of a Redis Cluster"),
        ("redis-cluster://one:7000", "the address of a Redis Cluster"),
        ("redis://:secret-word@one:7000,two:7001/0", "the addresses of several Redis servers"),
        ("redis://one,two/0", "the addresses of several Redis servers"),
        ("redis://:secret-word@one:6379/0;redis://:secret-word@two:6379/0", "the addresses of several Redis servers"),
        ("rediss://one/0;two/0", "the addresses of several Redis servers"),
    ],
)
def test_several_redis_servers_are_refused_in_one_sentence_that_says_what_works(url: str, found: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load({"DISPATCHER_BROKER_URL": url})
    said = str(caught.value)
    assert said.startswith(f"DISPATCHER_BROKER_URL: found {found}; allowed: one Redis, such as redis://")
    assert "which is to be the primary" in said
    assert "\n" not in said
    assert "secret-word" not in said


@pytest.mark.parametrize("url", ["amqp://one,two//", "amqp://one//;two", "amqp://one//;redis://two/0"])
def test_a_list_of_rabbitmqs_is_of_whole_urls(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: RabbitMQ servers such as amqp://one//;amqp://two//"):
        config.load({"DISPATCHER_BROKER_URL": url})


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:pa,ss@cache:6379/0",
        "rediss://user:p%40ss@cache:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/a,b.pem",
        "redis+socket:///run/a,b.sock?virtual_host=2",
        "redis://[::1]:6379/0",
        "amqp://user:password@one//;amqps://user:password@two//",
    ],
)
def test_one_redis_and_one_or_several_rabbitmqs_are_brokers(url: str) -> None:
    assert config.load({"DISPATCHER_BROKER_URL": url}).broker_url == url


def test_what_is_shown_masks_secrets_and_names_the_source() -> None:
    shown = {one.variable: one for one in config.show(config.load(GOOD), GOOD)}
    assert shown["DISPATCHER_DATABASE_URL"].value == "***"
    assert shown["DISPATCHER_PORT"].source == "environment"
    assert shown["DISPATCHER_BOOTSTRAP_KEY"].source == "default"
    assert "secret-word" not in repr(shown)


def test_every_setting_says_what_it_means() -> None:
    assert all(one.about for one in config.show(config.load({}), {}))
