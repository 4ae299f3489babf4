"""The three commands of docs/systems.md for each system: the last two are run beside what the first one starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest

from dispatcher import config, wiring
from tests.support import walk
from tests.support.api_server import ApiServer, note_running
from tests.support.command import Command
from tests.test_systems_document import SYSTEMS, commands


@pytest.fixture(params=SYSTEMS)
def system(
    request: pytest.FixtureRequest,
    bare: Path,
    api_server: ApiServer,
    migrated_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The system whose profile the first command names; what its API pings answers 200."""
    name, _, value = commands(request.param)[0][0].partition("=")
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", migrated_database_url)
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    monkeypatch.setattr(wiring, "transport", lambda _: httpx.MockTransport(lambda _: httpx.Response(200)))
    with api_server.on(config.load) as url:
        note_running(bare, url, database_url=config.database_url(migrated_database_url))
        yield request.param


def test_the_commands_register_a_url_under_the_profile_and_send_it_an_event(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Command(monkeypatch, capsys)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "correct horse")
    _, register, send = commands(system)
    registered = run(*register[1:], "--output", "json")
    assert registered.code == 0, registered.err
    endpoint = registered.json
    assert (endpoint["profile"], endpoint["url"]) == (system, register[3])
    sent = run(*send[1:])
    assert sent.code == 0, sent.err
    (delivery,) = run("deliveries", "list", "--output", "json").data
    assert (delivery["endpoint_id"], delivery["event_type"], delivery["mode"]) == (endpoint["id"], send[2], "test")
