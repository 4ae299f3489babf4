"""`dispatcher sign` and `dispatcher verify`: what they sign is genuine, and why something is not is told in words."""

from __future__ import annotations

import base64
import hmac
import json
import shlex
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from dispatcher.clock import SYSTEM
from dispatcher.signing import SCHEMES, Scheme, Secret, public_keys
from dispatcher.signing.standard_webhooks_v1a import write_whpk, write_whsk
from tests.support.command import Command

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
AT = 1_614_265_330
BODY = b'{"amount": "12.30 \xe2\x82\xac", "ok":true}\n'
ID = "evt_01a1fc08-8eed-7fd4-808c-8a82ca61f56a"

platform_schemes = pytest.mark.parametrize(
    "scheme", [one for one in SCHEMES.values() if one.key_owner == "platform"], ids=lambda one: one.name
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)
    return Command(monkeypatch, capsys)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    file = tmp_path / "body.json"
    file.write_bytes(BODY)
    return file


@pytest.fixture
def headers(run: Command, body: Path, tmp_path: Path) -> Path:
    """What was signed a moment ago, as a file of lines."""
    file = tmp_path / "headers.txt"
    file.write_text(run("sign", str(body), "--secret", SECRET, "--id", ID).out)
    return file


@cache
def key_pair(name: str) -> tuple[bytes, bytes]:
    return SCHEMES[name].generate_keys()


def private_pem(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n"


# Signing


def test_sign_prints_what_the_specification_prints(run: Command) -> None:
    # The vector of the Standard Webhooks repository.
    signed = run(
        "sign", "--secret", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "--id", "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "--timestamp", str(AT), stdin=b'{"test": 2432232314}',
    )  # fmt: skip
    assert signed.out.splitlines() == [
        "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp: 1614265330",
        "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ]


def test_sign_makes_an_id_and_takes_the_time_of_now(run: Command) -> None:
    signed = run("sign", "--secret", SECRET, "--output", "json", stdin=BODY).json
    assert signed["webhook-id"].startswith("evt_")
    assert abs(int(signed["webhook-timestamp"]) - SYSTEM.now().timestamp()) < 60
    keys = [base64.b64decode(SECRET.removeprefix("whsec_"))]
    SCHEMES["standard_webhooks_v1"].verify(headers=signed, body=BODY, keys=keys, now=int(signed["webhook-timestamp"]))


def test_a_secret_comes_from_a_file_or_the_environment_too(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    words = ["sign", "--id", ID, "--timestamp", str(AT)]
    expected = run(*words, "--secret", SECRET, stdin=BODY).out
    assert run(*words, "--secret-file", str(file), stdin=BODY).out == expected
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    assert run(*words, stdin=BODY).out == expected
    monkeypatch.setenv("WEBHOOK_SECRET", f"{SECRET} {OTHER}")
    assert run(*words, stdin=BODY).out.count("v1,") == 2


@pytest.mark.parametrize("is_file", [True, False])
def test_the_curl_command_posts_the_bytes_that_were_signed(run: Command, body: Path, is_file: bool) -> None:
    where = [str(body)] if is_file else []
    said = run(
        "sign", *where, "--secret", SECRET, "--output", "curl", "--url", "http://localhost:3000/a?b=c&d", stdin=BODY
    )
    words = [word for word in shlex.split(said.out.removesuffix("\n")) if word != "\n"]
    assert words[:2] == ["curl", "http://localhost:3000/a?b=c&d"]
    headers = dict(word.split(": ", 1) for before, word in pairwise(words) if before == "-H")
    assert headers.pop("content-type") == "application/json"
    keys = [base64.b64decode(SECRET.removeprefix("whsec_"))]
    SCHEMES["standard_webhooks_v1"].verify(headers=headers, body=BODY, keys=keys, now=int(headers["webhook-timestamp"]))
    assert words[-2:] == (["--data-binary", f"@{body}"] if is_file else ["--data-raw", BODY.decode()])


def test_a_body_that_no_command_line_holds_is_asked_for_as_a_file(run: Command) -> None:
    for content in (b"\xff", b"a\0b", b"\x1b[2J", b"\r\n"):
        said = run("sign", "--secret", SECRET, "--output", "curl", "--url", "http://localhost/", stdin=content)
        assert said.code == 2
        assert "as a file" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--secret", "whsec_shorT"], "--secret: found"),
        (["--secret", SECRET, "--id", "a.b"], "without a dot"),
        ([], "WEBHOOK_SECRET"),
        (["--scheme", "rsa_sha1", "--secret", SECRET], "--private-key"),
        (["--secret", SECRET, "--output", "curl"], "--url"),
        (["--secret", SECRET, "--url", "http://localhost/"], "--output curl"),
    ],
)
def test_what_cannot_be_signed_with_is_a_usage_error(run: Command, words: list[str], said: str) -> None:
    ran = run("sign", *words, stdin=BODY)
    assert ran.code == 2
    assert said in ran.err
    assert "shorT" not in ran.err, "a secret is never repeated"


# Signing and verifying


@platform_schemes
def test_the_platforms_schemes_go_there_and_back(run: Command, scheme: Scheme, body: Path, tmp_path: Path) -> None:
    private, public = key_pair(scheme.name)
    (tmp_path / "key.pem").write_text(private_pem(private))
    (tmp_path / "public.pem").write_text(public_keys.pem(public))
    (tmp_path / "jwks.json").write_text(
        json.dumps(public_keys.jwks([key_pair("rsa_sha1")[1], key_pair("standard_webhooks_v1a")[1], public]))
    )
    signed = run("sign", str(body), "--scheme", scheme.name, "--private-key", str(tmp_path / "key.pem"))
    assert signed.code == 0, signed.err
    (tmp_path / "headers").write_text(signed.out)
    verify = ["verify", "--scheme", scheme.name, "--headers-file", str(tmp_path / "headers")]
    for key in (["--public-key", str(tmp_path / "public.pem")], ["--jwks", str(tmp_path / "jwks.json")]):
        good = run(*verify, str(body), *key)
        assert good.code == 0, good.out + good.err
        assert good.out.startswith("valid: ")
        bad = run(*verify, *key, stdin=b"{}")
        assert bad.code == 1
        assert bad.out.startswith("not valid: wrong key, or the body was changed")
    (tmp_path / "new.pem").write_text(public_keys.pem(scheme.generate_keys()[1]))
    assert run(*verify, str(body), "--public-key", str(tmp_path / "new.pem")).code == 1


def test_the_texts_of_an_ed25519_key_are_read_too(run: Command, body: Path, tmp_path: Path) -> None:
    private, public = key_pair("standard_webhooks_v1a")
    (tmp_path / "whsk").write_text(write_whsk(Secret(private)) + "\n")
    (tmp_path / "whpk").write_text(write_whpk(public) + "\n")
    words = ["--scheme", "standard_webhooks_v1a"]
    (tmp_path / "headers").write_text(run("sign", str(body), *words, "--private-key", str(tmp_path / "whsk")).out)
    for key in (write_whpk(public), str(tmp_path / "whpk")):
        words = ["--scheme", "standard_webhooks_v1a", "--headers-file", str(tmp_path / "headers"), "--public-key", key]
        assert run("verify", str(body), *words).code == 0


@pytest.mark.parametrize("content", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "EC"}]}', '{"keys": [1]}'])
def test_what_is_no_jwks_is_a_usage_error(run: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "jwks.json").write_text(content)
    ran = run("verify", "--scheme", "rsa_sha1", "--header", "sign: eA==", "--jwks", str(tmp_path / "jwks.json"))
    assert ran.code == 2
    assert "--jwks" in ran.err
    assert "allowed: " in ran.err


def test_a_private_key_is_no_public_one_and_the_other_way_round(run: Command, tmp_path: Path) -> None:
    private, public = key_pair("standard_webhooks_v1a")
    (tmp_path / "private.pem").write_text(private_pem(private))
    (tmp_path / "public.pem").write_text(public_keys.pem(public))
    words = ["--scheme", "standard_webhooks_v1a"]
    for key in ("private.pem", "nowhere.pem"):
        ran = run("verify", *words, "--header", "webhook-id: a", "--public-key", str(tmp_path / key))
        assert ran.code in {1, 2}
        assert "found a private key" in ran.err or "No such file" in ran.err
    ran = run("sign", *words, "--private-key", str(tmp_path / "public.pem"), stdin=BODY)
    assert ran.code == 2
    assert "found a public key only" in ran.err
    (tmp_path / "rsa.pem").write_text(private_pem(key_pair("rsa_sha1")[0]))
    ran = run("sign", *words, "--private-key", str(tmp_path / "rsa.pem"), stdin=BODY)
    assert ran.code == 2
    assert "an RSA key where an Ed25519 key is needed" in ran.err


# Headers


def test_headers_come_from_options_lines_or_json(run: Command, body: Path, headers: Path, tmp_path: Path) -> None:
    lines = headers.read_text().splitlines()
    verify = ["verify", str(body), "--secret", SECRET]
    options = [word for line in lines for word in ("--header", line[:10].title() + line[10:])]
    assert run(*verify, *options).code == 0
    pairs = [line.split(": ", 1) for line in lines]
    attempt = {
        "number": 1,
        "request": {"method": "POST", "url": "https://x.example", "headers": pairs},
        "body_sha256": None,
    }
    for value in (dict(pairs), pairs, attempt, {"attempts": [{"request": {"headers": []}}, attempt]}):
        (tmp_path / "headers.json").write_text(json.dumps(value))
        ran = run(*verify, "--headers-file", str(tmp_path / "headers.json"))
        assert ran.code == 0, ran.out + ran.err
    (tmp_path / "raw.txt").write_text(
        "POST http://localhost:3000/hook HTTP/1.1\r\nHost: localhost\r\n" + "\r\n".join(lines) + "\r\n\r\n"
    )
    assert run(*verify, "--headers-file", str(tmp_path / "raw.txt")).code == 0
    for content in ("nonsense", "17", "null", '["a"]'):
        (tmp_path / "raw.txt").write_text(content)
        ran = run(*verify, "--headers-file", str(tmp_path / "raw.txt"))
        assert ran.code == 2, content
        assert "allowed: lines of" in ran.err
    assert run(*verify).code == 2


# Why not


def why(run: Command, headers: Path, body: bytes, *words: str) -> str:
    ran = run("verify", "--secret", SECRET, "--headers-file", str(headers), *words, stdin=body)
    assert ran.code == 1, ran.out + ran.err
    assert ran.out.startswith("not valid: ")
    return ran.out


def test_a_genuine_one_says_so_with_its_age(run: Command, body: Path, headers: Path) -> None:
    ran = run("verify", str(body), "--secret", SECRET, "--headers-file", str(headers))
    assert ran.code == 0
    assert ran.out.startswith(f"valid: {ID}, signed ")
    as_json = run("verify", str(body), "--secret", SECRET, "--headers-file", str(headers), "--output", "json").json
    assert as_json == {"valid": True, "scheme": "standard_webhooks_v1", "reason": None}
    both = ["--secret", OTHER, "--secret", SECRET]
    assert run("verify", str(body), *both, "--headers-file", str(headers)).code == 0


@pytest.mark.parametrize(
    ("received", "said"),
    [
        (BODY.removesuffix(b"\n"), "the signature is right for the body with a trailing newline"),
        (BODY.replace(b"\n", b"\r\n"), "the signature is right for the body with \\n for \\r\\n"),
        (b"\xef\xbb\xbf" + BODY, "the signature is right for the body without the byte order mark"),
        (BODY + b"\n", "the signature is right for the body without one of its trailing newlines"),
    ],
)
def test_a_changed_line_end_is_found(run: Command, headers: Path, received: bytes, said: str) -> None:
    assert said in why(run, headers, received)


def test_a_newline_that_a_shell_added_is_found(run: Command, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text(run("sign", "--secret", SECRET, stdin=b'{"a": 1}').out)
    said = why(run, tmp_path / "headers", b'{"a": 1}\n')
    assert "right for the body without its trailing newline" in said


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b'{"a":1,"b":"\xc3\xa9"}', b'{"a": 1, "b": "\\u00e9"}'),
        (b'{"a":1,"b":"\\u00e9"}', b'{"a": 1, "b": "\xc3\xa9"}'),
        (b'{"a": 1, "b": [2, 3]}', b'{"a":1,"b":[2,3]}'),
        (b'{\n  "a": 1\n}', b'{"a":1}'),
    ],
)
def test_json_that_was_written_anew_is_found(run: Command, tmp_path: Path, sent: bytes, received: bytes) -> None:
    (tmp_path / "headers").write_text(run("sign", "--secret", SECRET, stdin=sent).out)
    said = why(run, tmp_path / "headers", received)
    assert "the body was changed: the signature is right for the body as " in said
    assert "before anything parses" in said


def test_a_wrong_secret_or_another_body_is_said_with_what_to_look_at(run: Command, headers: Path) -> None:
    ran = run("verify", "--secret", OTHER, "--headers-file", str(headers), stdin=BODY)
    assert ran.code == 1
    assert "wrong secret, or the body was changed" in ran.out
    assert "rotated" in ran.out
    assert OTHER not in ran.out
    assert SECRET not in why(run, headers, b"{}")


def test_the_delivery_log_tells_a_wrong_secret_from_a_changed_body(
    run: Command, body: Path, headers: Path, tmp_path: Path
) -> None:
    pairs = [line.split(": ", 1) for line in headers.read_text().splitlines()]
    shown = {"attempts": [{"request": {"headers": pairs}, "body_sha256": sha256(BODY).hexdigest()}]}
    (tmp_path / "shown.json").write_text(json.dumps(shown))
    words = ["--headers-file", str(tmp_path / "shown.json")]
    assert run("verify", str(body), "--secret", SECRET, *words).code == 0
    assert (
        "not valid: wrong secret: the body is byte for byte" in run("verify", str(body), "--secret", OTHER, *words).out
    )
    assert "not valid: the body was changed: it is not" in why(run, tmp_path / "shown.json", b"{}")


def test_a_secret_that_was_used_as_text_is_found(run: Command, tmp_path: Path) -> None:
    now = int(SYSTEM.now().timestamp())
    for key in (SECRET, SECRET.removeprefix("whsec_")):
        digest = hmac.digest(key.encode(), f"{ID}.{now}.".encode() + BODY, "sha256")
        (tmp_path / "headers").write_text(
            f"webhook-id: {ID}\nwebhook-timestamp: {now}\nwebhook-signature: v1,{base64.b64encode(digest).decode()}\n"
        )
        assert "used the text of the secret as the key" in why(run, tmp_path / "headers", BODY)


@pytest.mark.parametrize(("seconds", "word"), [(-400, "too old"), (400, "too new")])
def test_a_timestamp_out_of_bounds_is_said_in_seconds(run: Command, tmp_path: Path, seconds: int, word: str) -> None:
    signed = run("sign", "--secret", SECRET, "--timestamp", str(AT + seconds), "--id", ID, stdin=BODY)
    (tmp_path / "headers").write_text(signed.out)
    at = ["--at", "2021-02-25T15:02:10Z"]  # AT
    said = why(run, tmp_path / "headers", BODY, *at)
    assert f"{word} by 100 s: signed 400 s " in said
    assert "allowed: 300 s. The signature itself is right" in said
    assert "And the signature is not right either: wrong secret" in why(run, tmp_path / "headers", b"{}", *at)
    ran = run(
        "verify", "--secret", SECRET, "--headers-file", str(tmp_path / "headers"), "--tolerance", "400", *at, stdin=BODY
    )
    assert ran.code == 0, ran.out


def test_a_missing_or_mangled_header_is_named(run: Command, headers: Path, tmp_path: Path) -> None:
    lines = headers.read_text().splitlines(keepends=True)
    (tmp_path / "some").write_text(lines[0])
    said = why(run, tmp_path / "some", BODY)
    assert "the headers are missing: webhook-timestamp, webhook-signature (given: webhook-id)" in said
    (tmp_path / "some").write_text(lines[0] + "webhook-timestamp: yesterday\n" + lines[2])
    assert "webhook-timestamp is not a number of seconds" in why(run, tmp_path / "some", BODY)


def test_headers_of_another_scheme_name_it(run: Command, headers: Path, tmp_path: Path) -> None:
    (tmp_path / "sign").write_text("sign: eA==\n")
    assert "try --scheme rsa_sha1" in why(run, tmp_path / "sign", BODY)
    lines = headers.read_text().replace("v1,", "v1a,")
    (tmp_path / "v1a").write_text(lines)
    said = why(run, tmp_path / "v1a", BODY)
    assert "holds no v1 signature" in said
    assert "try --scheme standard_webhooks_v1a" in said


GET_URL = "https://shop.example.com/notify%2F1?shop=7&object_id=a%20b"


def test_a_get_is_signed_and_verified_by_its_path_and_query(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "get.txt"
    file.write_text(run("sign", "--get", GET_URL, "--secret", SECRET, "--id", ID).out)

    def verified(url: str) -> str:
        return run("verify", "--get", url, "--headers-file", file, "--secret", SECRET).out

    target = GET_URL.removeprefix("https://shop.example.com")
    for same in (GET_URL, target, f"http://localhost:3000{target}"):
        assert verified(same).startswith(f"valid: {ID}")
    assert "wrong secret, or the request target was changed" in verified(GET_URL.replace("%20", "+"))


def test_a_signed_get_as_a_curl_command(run: Command) -> None:
    words = shlex.split(run("sign", "--get", GET_URL, "--secret", SECRET, "--id", ID, "--output", "curl").out)
    assert words[0] == "curl"
    assert GET_URL in words
    assert not [word for word in words if word.startswith("--data")]
    assert f"webhook-id: {ID}" in words


def test_a_get_has_no_body_and_one_url(run: Command, body: Path) -> None:
    for given, said in (
        ([str(body), "--get", GET_URL], "give BODY or --get, not both"),
        (["--get", GET_URL, "--url", GET_URL, "--output", "curl"], "give --url or --get, not both"),
        (["--get", "/notify", "--output", "curl"], "a path without a host"),
        (["--get", "https://shop.example.com/#a"], "found a fragment"),
    ):
        assert said in run("sign", *given, "--secret", SECRET).err
