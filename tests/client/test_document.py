"""What docs/client.md shows is true: its examples are run against an API that answers as ours does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher import client
from dispatcher.client.client import Api, Options
from dispatcher.client.resource import operation

TEXT = (Path(__file__).parents[2] / "docs/client.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)

DELIVERY = {"id": "dlv_1", "status": "waiting", "attempt_count": 0}
FAULT = {"pointer": "/url", "detail": "found 'no url'; allowed: https"}
REFUSED = {"status": 422, "code": "INVALID_INPUT", "detail": "no", "errors": [FAULT], "request_id": "req_1"}


def answer(request: httpx.Request) -> httpx.Response:
    match request.method, request.url.path:
        case "POST", "/v1/endpoints" if b"no url" in request.content:
            return httpx.Response(422, json=REFUSED)
        case "POST", "/v1/endpoints":
            return httpx.Response(201, json={"id": "ep_1", "secret": "whsec_"})
        case "POST", "/v1/events":
            return httpx.Response(202, json={"id": "evt_1"})
        case "GET", "/v1/deliveries":
            return httpx.Response(200, json={"data": [DELIVERY], "has_more": False, "next_cursor": None})
    return httpx.Response(404, json={"code": "NOT_FOUND", "detail": "there is no such event"})


@pytest.mark.parametrize(
    ("n", "printed"),
    [
        (0, "dlv_1 waiting 0\n"),
        (1, "dlv_1 waiting\n"),
        (2, "/url found 'no url'; allowed: https\nthere is no such event\n"),
        (3, ""),
    ],
)
def test_an_example_runs(
    n: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (client.Client, client.AsyncClient):
        made = kind.__init__

        def init(self: Any, url: str, made: Any = made, **options: Any) -> None:
            made(self, url, transport=httpx.MockTransport(answer), **options)

        monkeypatch.setattr(kind, "__init__", init)
    exec(compile(EXAMPLES[n], "docs/client.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == 4


def test_every_operation_option_and_error_is_named() -> None:
    with client.Client("https://api.example") as api:
        resources = {name for name in vars(api) if not name.startswith("_")}
    on_the_client = {name for name, one in vars(Api).items() if isinstance(one, operation)}
    spans = set(re.findall(r"`(\w+)", TEXT)) | set(re.findall(r"\b(\w+)=", TEXT))
    assert resources | on_the_client <= spans
    assert set(Options.__annotations__) - {"verify", "clock"} <= spans
    assert set(client.__all__) - {"Options", "BearerAuth"} <= spans | {"HmacAuth"}
