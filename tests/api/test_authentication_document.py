"""The signing code of docs/authentication.md does what it says there, and the application accepts what it signs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from tests.api.callers import make_key, serving

TEXT = (Path(__file__).parents[2] / "docs/authentication.md").read_text()
CODE = dict(
    re.findall(r"^### \w+(?:\.js)?\n(?:(?!^```).*\n)*?```(python|javascript|sh)\n((?:.*\n)*?)```", TEXT, re.MULTILINE)
)

SIGNED, HEADERS = re.findall(r"^```\n([^`]*)```$", TEXT.partition("### An example")[2], re.MULTILINE)[:2]

KEY_ID, SECRET = "key_0190d1f2-5a3c-7e4b-9a6d-3f1c2b4a5968", "hmsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TIMESTAMP = "2026-03-02T09:00:00Z"
TARGET = "/v1/events?tenant_id=ten_00000000-0000-7000-8000-000000000001"
BODY = '{"type":"payment.completed","payload":{"amount":1000}}'

Sign = Callable[..., dict[str, str]]


def run(*command: str, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=["python", "javascript", "sh"])
def sign(request: pytest.FixtureRequest, tmp_path: Path) -> Sign:
    """The document's code in one of its languages: (key id, secret, method, target, body[, timestamp]) to headers."""
    code = CODE[request.param]

    def by_python(*arguments: str) -> dict[str, str]:
        (tmp_path / "sign.py").write_text(
            f"{code}\nimport json, sys\na = sys.argv[1:]\n"
            "print(json.dumps(signed_headers(*a[:4], a[4].encode(), *a[5:])))\n"
        )
        found: dict[str, str] = json.loads(run(sys.executable, str(tmp_path / "sign.py"), *arguments))
        return found

    def by_node(*arguments: str) -> dict[str, str]:
        (tmp_path / "sign.mjs").write_text(
            f"{code}\nconsole.log(JSON.stringify(signedHeaders(...process.argv.slice(2))));\n"
        )
        found: dict[str, str] = json.loads(run("node", str(tmp_path / "sign.mjs"), *arguments))
        return found

    def by_shell(key_id: str, secret: str, method: str, target: str, body: str, timestamp: str = "") -> dict[str, str]:
        (tmp_path / "sign.sh").write_text(code)
        (tmp_path / "body").write_text(body)
        environ = os.environ | {"KEY_ID": key_id, "SIGNING_SECRET": secret, "TIMESTAMP": timestamp}
        file = [str(tmp_path / "body")] if body else []
        printed = run("sh", str(tmp_path / "sign.sh"), method, target, *file, environ=environ)
        return dict(line.split(": ", 1) for line in printed.splitlines())

    if request.param == "javascript" and shutil.which("node") is None:
        pytest.skip("there is no node here")
    if request.param == "sh" and shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    return {"python": by_python, "javascript": by_node, "sh": by_shell}[request.param]


def test_the_example_is_what_its_parts_make() -> None:
    assert KEY_ID in TEXT
    assert SECRET in TEXT
    assert f"`{BODY}`" in TEXT
    lines = [TIMESTAMP, "POST", TARGET, sha256(BODY.encode()).hexdigest()]
    assert SIGNED.splitlines() == lines
    assert set(dict(line.split(": ", 1) for line in HEADERS.splitlines())) == {
        "x-api-key",
        "x-timestamp",
        "x-signature",
    }


def test_the_code_makes_the_signature_of_the_example(sign: Sign) -> None:
    expected = dict(line.split(": ", 1) for line in HEADERS.splitlines())
    assert sign(KEY_ID, SECRET, "POST", TARGET, BODY, TIMESTAMP) == expected


async def test_the_application_accepts_what_the_code_signs(sign: Sign, migrated_database_url: str) -> None:
    async with serving(migrated_database_url) as client:
        key = await make_key(client)
        headers = sign(key["id"], key["signing_secret"], "POST", TARGET, BODY)
        answer = await client.post(TARGET, content=BODY, headers=headers | {"content-type": "application/json"})
        assert answer.status_code == 202, answer.text
        reading = "/v1/events?object_id=pay%201%2F2&limit=1"
        headers = sign(key["id"], key["signing_secret"], "GET", reading, "")
        assert (await client.get(reading, headers=headers)).status_code == 200
