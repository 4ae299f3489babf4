"""What is signed of a POST and of a GET, held against OpenSSL's signatures and against verifiers that are not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import standardwebhooks
import svix

from dispatcher.flow.requests import SECRET_PURPOSE, Prepared
from dispatcher.ids import DEFAULT_TENANT, parse_id, uuid7
from dispatcher.model.endpoint import Endpoint, SealedSecret
from dispatcher.model.event import StoredEvent
from dispatcher.signing import SCHEMES, parse_secret
from tests.support import walk
from tests.support.delivery_vectors import DELIVERIES, SECRET, TIMESTAMP, VECTORS, Delivery, private_key, public_key

ROOT = Path(__file__).parents[2]
OF_V1 = [one for one in DELIVERIES if one.scheme == "standard_webhooks_v1"]
AT = datetime.fromtimestamp(TIMESTAMP, UTC)
JUDGES = ROOT / ".venv-judges"

each_v1 = pytest.mark.parametrize("vector", OF_V1, ids=[vector.name for vector in OF_V1])


class Keys:
    """The platform's keys, as a worker has them."""

    def signing(self, scheme: Any, at: datetime) -> tuple[bytes, ...]:
        return (private_key(scheme.name),)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_openssl_signed_of_a_get_is_what_is_sent(scheme: str) -> None:
    (vector,) = [one for one in DELIVERIES if (one.scheme, one.name) == (scheme, "a GET")]
    given = httpx.URL("https://shop.example.com" + vector.target)
    url, _, _ = str(given).partition("id=evt")
    event = StoredEvent(
        parse_id("evt", VECTORS["id"]), "payment.completed", "live", b"{}", AT, given.params["object_id"]
    )
    place = uuid7()
    sealed = walk.KEYS.seal(parse_secret(SECRET), tenant=DEFAULT_TENANT, endpoint=place, purpose=SECRET_PURPOSE)
    endpoint = Endpoint(
        id=place,
        tenant_id=DEFAULT_TENANT,
        url=url,
        schedule="two",
        secrets=(SealedSecret(sealed),),
        method="GET",
        signature=(scheme,),
    )
    requests = walk.deliver(httpx.MockTransport(lambda _: httpx.Response(200)), {}, platform_keys=Keys).requests
    prepared = requests.prepare(event, requests.route(endpoint), AT)
    assert isinstance(prepared, Prepared)
    assert prepared.request.url.raw_path == vector.target.encode() == prepared.content
    sent = {name.decode(): value.decode() for name, value in prepared.headers}
    assert {name: sent[name] for name in vector.headers} == vector.headers
    assert (prepared.request.content, "content-type" in prepared.request.headers) == (b"", False)


@pytest.mark.parametrize("vector", DELIVERIES, ids=[f"{one.scheme}: {one.name}" for one in DELIVERIES])
def test_ours_says_of_each_vector_what_it_says_of_itself(vector: Delivery) -> None:
    scheme = SCHEMES[vector.scheme]
    try:
        scheme.verify(
            headers=vector.headers,
            body=vector.content.encode(),
            keys=[public_key(vector.scheme)],
            now=TIMESTAMP,
        )
        verified = True
    except Exception:
        verified = False
    assert verified == vector.is_signed


class At(datetime):
    """The instant at which the vectors were signed, to libraries that ask for the time themselves."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(TIMESTAMP, tz)


@each_v1
def test_two_libraries_for_python_verify_post_and_get(vector: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", At)

    def by_standardwebhooks() -> None:
        standardwebhooks.Webhook(SECRET).verify(vector.content, vector.headers, json_parse=False)

    def by_svix() -> None:
        svix.Webhook(SECRET).verify(vector.content, vector.headers)

    for verify in (by_standardwebhooks, by_svix):
        try:
            verify()
            verified = True
        except Exception:
            verified = False
        assert verified == vector.is_signed, verify.__name__


def test_a_library_that_gets_the_empty_body_of_a_get_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", At)
    vector = next(one for one in OF_V1 if one.name == "a GET")
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        standardwebhooks.Webhook(SECRET).verify("", vector.headers, json_parse=False)


RUN = """
import { throws } from "node:assert";
import { readFileSync } from "node:fs";
import { Webhook } from "svix";
import { verify } from "./verify.mjs";
const { secret, timestamp, deliveries } = JSON.parse(readFileSync(0));
Date.now = () => timestamp * 1000;
const verdicts = deliveries.map(({ method, target, headers, body }) => {
  try {
    verify(secret, { method, url: target, headers }, Buffer.from(body));
    if (method === "GET") throws(() => new Webhook(secret).verify(target, headers), SyntaxError);
    else new Webhook(secret).verify(body, headers);
    return true;
  } catch (error) {
    if (error.name === "WebhookVerificationError") return false;
    if (error.name === "SyntaxError" && body.startsWith("/")) return true; // svix, which parses what it verified
    throw error;
  }
});
console.log(JSON.stringify(verdicts));
"""


@pytest.mark.skipif(not (JUDGES / "stamp").exists(), reason=f"no {JUDGES.name}: run scripts/judges.sh, which needs npm")
def test_the_libraries_for_node_verify_post_and_get_as_the_document_shows(tmp_path: Path) -> None:
    text = (ROOT / "docs/signatures.md").read_text()
    shown = text.partition("```javascript\n")[2].partition("```")[0]
    (tmp_path / "verify.mjs").write_text(shown)
    (tmp_path / "run.mjs").write_text(RUN)
    (tmp_path / "node_modules").symlink_to(JUDGES / "node/node_modules")
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node on this machine")
    done = subprocess.run(
        [program, "run.mjs"],
        cwd=tmp_path,
        input=json.dumps(VECTORS | {"deliveries": [asdict(vector) for vector in OF_V1]}).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [vector.is_signed for vector in OF_V1]
