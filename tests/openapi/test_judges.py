"""The OpenAPI document before two judges of others: a generator of clients, and Redocly's lint."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dispatcher.api.app import make_app
from dispatcher.config import Settings
from tests.api.conftest import OPERATOR
from tests.api.operations import DOCUMENT, OPERATIONS
from tests.support import walk
from tests.support.patience import PATIENCE_S
from tests.support.served import Served, served

JUDGES = Path(__file__).parents[2] / ".venv-judges"

pytestmark = pytest.mark.skipif(
    not (JUDGES / "stamp").exists(), reason=f"no {JUDGES.name}: run scripts/judges.sh, which needs npm"
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(JUDGES / "bin"), os.environ["PATH"]])
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_redocly_finds_nothing_to_say(document: Path) -> None:
    redocly = JUDGES / "node/node_modules/.bin/redocly"
    done = run(
        redocly, "lint", document, "--extends=recommended-strict", "--format=json",
        cwd=document.parent, REDOCLY_TELEMETRY="off", REDOCLY_SUPPRESS_UPDATE_NOTICE="true",
    )  # fmt: skip
    problems = json.loads(done.stdout)["problems"]
    found = [f"{one['ruleId']}: {one['message']} {one['location'][0].get('pointer')}" for one in problems]
    assert not found, "\n".join(found)
    assert done.returncode == 0, done.stderr


# A generated client


@pytest.fixture(scope="module")
def generated(document: Path) -> Path:
    """The folder with the package `generated`, which openapi-python-client made without a warning."""
    folder = document.parent
    done = run(
        "openapi-python-client", "generate", "--path", document, "--meta", "none", "--output-path",
        folder / "generated", "--fail-on-warning",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower(), done.stdout
    return folder


USE = """
import importlib, json, pkgutil, sys
import generated
from generated import AuthenticatedClient
from generated.models import CreatedEndpoint, Endpoint, EndpointPage, NewEndpoint

modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(generated.__path__, "generated.")]
operations = [module.__name__.rpartition(".")[2] for module in modules if hasattr(module, "sync_detailed")]

from generated.api.endpoints import create_endpoint, delete_endpoint, get_endpoint, list_endpoints

url, key = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True) as client:
    created = create_endpoint.sync(client=client, body=NewEndpoint(url="https://shop.example.com/webhooks"))
    assert isinstance(created, CreatedEndpoint), created
    got = get_endpoint.sync(created.id, client=client)
    assert isinstance(got, Endpoint), got
    page = list_endpoints.sync(client=client)
    assert isinstance(page, EndpointPage), page
    deleted = delete_endpoint.sync_detailed(created.id, client=client)
    after = list_endpoints.sync(client=client)
print(json.dumps({
    "operations": operations,
    "ids": [created.id, got.id, *(endpoint.id for endpoint in page.data)],
    "url": got.url,
    "deleted": deleted.status_code,
    "after": [endpoint.id for endpoint in after.data],
}))
"""


@pytest.fixture
def server(migrated_database_url: str) -> Iterator[Served]:
    settings = Settings(database_url=migrated_database_url, secret_keys=walk.KEYS.reveal(), bootstrap_key=OPERATOR)
    with served(make_app(settings)) as found:
        yield found


def test_a_generated_client_has_every_operation_and_works(generated: Path, server: Served) -> None:
    done = run(JUDGES / "bin/python", "-c", USE, server.url, OPERATOR, cwd=generated)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    named = {name.replace("_", "").lower() for name in found["operations"]}
    assert named == {operation.described["operationId"].lower() for operation in OPERATIONS}
    assert len(set(found["ids"])) == 1
    assert found["url"] == "https://shop.example.com/webhooks"
    assert found["deleted"] == 200
    assert found["after"] == []
    headers = {"authorization": OPERATOR}
    assert httpx.get(f"{server.url}/v1/endpoints/{found['ids'][0]}", headers=headers).status_code == 404
