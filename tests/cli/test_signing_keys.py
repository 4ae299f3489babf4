"""`dispatcher signing-keys` on a real database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from sqlalchemy import Engine

from dispatcher.cli.signing_keys import state
from dispatcher.signing.platform_keys import import_pem
from dispatcher.store import trail
from dispatcher.store.signing_keys import SigningKey
from tests.support import walk
from tests.support.command import Command
from tests.support.walk import NOW


@pytest.fixture(autouse=True)
def no_keys(engine: Engine) -> None:
    walk.forget_signing_keys(engine)


RSA_FILE = Path(__file__).parents[1] / "vectors/rfc9500_rsa_2048.pem"
HOUR = timedelta(hours=1)


Run = Command


@pytest.fixture
def run(local_system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Command(monkeypatch, capsys, ("signing-keys",))


def encrypted() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass word")
    )


def test_a_key_is_generated_rotated_listed_and_retired(run: Run, engine: Engine) -> None:
    assert "No signing key is published" in run("list", "--direct").out
    first = run("generate", "ed25519", "--output", "json").json
    assert first["state"].startswith("signs since ")
    assert first["whpk"].startswith("whpk_")
    second = run("rotate", "ed25519", "--output", "json").json
    assert second["state"].startswith("is published, signs from ")
    listed = run("list", "--direct")
    assert listed.code == 0, listed.err
    rows = [line.split(maxsplit=2) for line in listed.out.splitlines()]
    assert rows[0] == ["kind", "id", "state"]
    assert [row[:2] for row in rows[1:]] == [["ed25519", second["id"]], ["ed25519", first["id"]]]
    assert " until " in rows[2][2]
    assert {one["id"] for one in run("list", "--direct", "--output", "json").json["data"]} == {
        first["id"],
        second["id"],
    }
    assert [one["kid"] for one in run("export-jwks", "--direct").json["keys"]] == [second["id"], first["id"]]

    refused = run("retire", first["id"], "--yes")
    assert refused.code == 1
    assert "no other ed25519 key signs now" in refused.err
    assert "within 30 s" in run("retire", second["id"], "--yes").out
    assert run("retire", first["id"], "--yes", "--force", "--output", "json").json["state"].startswith("ended")
    assert run("export-jwks", "--direct").json == {"keys": []}
    assert run("list", "--direct", "--output", "json").data == [], "what is not published is not listed"
    with engine.connect() as connection:
        assert all(one.actor.startswith("cli") for one in trail.read(connection))


def test_times_are_chosen(run: Run) -> None:
    run("generate", "ed25519")
    made = run("generate", "ed25519", "--signs-in", "0s", "--overlap", "1h", "--output", "json").json
    assert made["state"].startswith("signs since ")
    refused = run("generate", "ed25519", "--signs-in", "soon")
    assert (refused.code, "not a duration" in refused.err) == (2, True)
    refused = run("generate", "ed25519", "--overlap", "4000d")
    assert (refused.code, "/overlap: found 4000d" in refused.err) == (2, True)


def test_an_rsa_key_is_imported_from_a_file_and_shown_in_public_only(run: Run) -> None:
    shown = run("import", str(RSA_FILE))
    assert shown.code == 0, shown.err
    assert import_pem(RSA_FILE.read_bytes()).id in shown.out
    assert "rsa_sha256, rsa_sha1" in shown.out
    assert "BEGIN PUBLIC KEY" in shown.out
    assert "PRIVATE" not in shown.out
    again = run("import", stdin=RSA_FILE.read_bytes())
    assert (again.code, "here already" in again.err) == (1, True)


def test_a_password_comes_from_a_file_or_is_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password, key = tmp_path / "password", tmp_path / "key.pem"
    password.write_text("pass word\n")
    assert run("import", "--password-file", str(password), stdin=encrypted()).code == 0

    asked: list[str] = []

    def prompt(text: str, **values: object) -> str:
        asked.append(text)
        return "pass word"

    monkeypatch.setattr(click, "prompt", prompt)
    key.write_bytes(encrypted())
    assert run("import", str(key)).code == 0
    assert asked == ["Password of the key"]

    monkeypatch.setattr(click, "prompt", lambda text, **values: "another")
    key.write_bytes(encrypted())
    refused = run("import", str(key))
    assert (refused.code, "another password" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("import",), b"nonsense", 2, "found no PEM"),
        (("import",), encrypted(), 2, "--password-file"),
        (("import", "/does/not/exist"), b"", 2, "No such file"),
        (("generate", "dsa"), b"", 2, "rsa"),
        (("rotate",), b"", 2, "rsa|ed25519"),
        (("retire", "x", "--yes"), b"", 1, "there is no signing key x"),
        (("retire", "-" + "h" * 42, "--yes"), b"", 1, "there is no signing key -hhh"),
        (("retire", "--yes", "--", "-" + "o" * 42), b"", 1, "there is no signing key -ooo"),
    ],
)
def test_bad_input_gets_one_clear_error(
    run: Run, arguments: tuple[str, ...], stdin: bytes, code: int, said: str
) -> None:
    ran = run(*arguments, stdin=stdin)
    assert ran.code == code, ran
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert run("list", "--direct", "--output", "json").data == []


def test_retiring_asks_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("generate", "ed25519", "--output", "json").json
    assert run("retire", made["id"], "--force", stdin=b"n\n").code == 1
    assert run("list", "--direct", "--output", "json").json["data"][0]["published_until"] is None


def test_a_user_without_a_name_is_no_obstacle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert run("generate", "ed25519").code == 0


def test_what_a_key_does_is_said_in_words() -> None:
    key = SigningKey(id="x", kind="rsa", public=b"", sealed="", created_at=NOW, signs_from=NOW + HOUR)
    ending = replace(key, signs_until=NOW + 2 * HOUR, published_until=NOW + 3 * HOUR)
    said = {
        state(key, NOW): "is published, signs from 2026-03-02T10:00:00Z",
        state(key, NOW + HOUR): "signs since 2026-03-02T10:00:00Z",
        state(ending, NOW): "is published, signs from 2026-03-02T10:00:00Z until 2026-03-02T11:00:00Z",
        state(ending, NOW + HOUR): "signs since 2026-03-02T10:00:00Z until 2026-03-02T11:00:00Z",
        state(ending, NOW + 2 * HOUR): "signs no more, is published until 2026-03-02T12:00:00Z",
        state(ending, NOW + 3 * HOUR): "ended, was published until 2026-03-02T12:00:00Z",
    }
    assert list(said) == list(said.values())
