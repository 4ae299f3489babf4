"""Which system a command works on: every command of the tree, against a remote that records what it is asked."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import Engine, Pool, event, text

from dispatcher import config
from dispatcher.api.command_line import ACTOR_HEADER
from dispatcher.cli import cli, machine, verbs
from dispatcher.cli.arguments import AnyId, Id
from dispatcher.cli.commands import VERBS, Reach
from dispatcher.cli.verbs import leaves
from dispatcher.client.exchange import Exchange
from dispatcher.ids import format_id, uuid7
from dispatcher.model.access import Scope
from dispatcher.retry import shipped_schedules_dir
from dispatcher.store import tenants
from tests.support import walk
from tests.support.api_server import KEY, note_running
from tests.support.command import Command, Ran
from tests.support.servers import drop_database, fresh_database
from tests.support.typed import DLV, EP, EVT, IDS, KEY_ID, LINE, SCHEDULE, TEN, TYPED

TREE = dict(leaves(cli))
DOCUMENT = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def of(*reaches: Reach) -> list[str]:
    return [words for words, verb in VERBS.items() if verb.reach in reaches]


def test_every_command_says_which_system_it_works_on() -> None:
    assert set(VERBS) == set(TREE), "a new command needs an entry in VERBS, and one of TYPED here"
    assert set(TYPED) == set(TREE)
    assert all(bool(TYPED[words].asks) == (verb.reach in {Reach.API, Reach.DIRECT}) for words, verb in VERBS.items())


def test_a_command_that_is_missing_from_the_table_is_not_loaded() -> None:
    with pytest.raises(LookupError, match="`new`"):
        verbs.install("new", click.Command("new", callback=lambda: None))


def test_direct_is_an_option_of_these_commands_and_no_others() -> None:
    have = {verb for verb, command in TREE.items() if any("--direct" in option.opts for option in command.params)}
    assert have == set(of(Reach.DIRECT))
    changing = {"deliveries retry", "deliveries cancel", "pause", "unpause", "endpoints enable", "endpoints disable"}
    changing |= {"keys create", "keys revoke"}
    assert changing <= have
    reading = ("list", "show", "explain", "stats", "status", "find", "tail", "export", "preview", "simulate")
    assert {verb.split()[-1] for verb in have - changing - {"signing-keys export-jwks"}} <= set(reading)


def test_the_help_and_the_document_name_the_commands_of_a_machine() -> None:
    help_ = " ".join(str(cli.help).split())
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith("| what belongs to a machine")]
    for verb in of(Reach.MACHINE):
        group, _, last = verb.rpartition(" ")
        for text_ in (help_, row):
            assert group in text_
            assert re.search(rf"\b{last}\b", text_), verb


# A remote that records


@dataclass
class Remote:
    """Answers what a command looks at first, and refuses with 409 what it came for."""

    url: str = ""
    refused: str = ""
    asked: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    actors: set[str | None] = field(default_factory=set)


@pytest.fixture(scope="module")
def recording() -> Iterator[Remote]:
    remote = Remote()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked = f"{self.command} {self.path.partition('?')[0]}"
            remote.asked.append(asked)
            remote.keys.add(self.headers.get("authorization", ""))
            remote.actors.add(self.headers.get(ACTOR_HEADER))
            if asked == remote.refused:
                status, body = 409, {"code": "RECORDED", "detail": "this remote only records"}
            elif asked.startswith("GET /v1/ids/"):
                begun = asked.rpartition("/")[2]
                ids = [id_ for id_ in IDS if id_.startswith(begun)]
                status, body = (200, {"ids": ids, "has_more": False}) if ids else (404, {"detail": "no such id"})
            else:
                page = {"data": [], "has_more": False, "next_cursor": None}
                preview = {"count": 1, "preview_token": "t", "expires_at": "2026-03-02T09:00:00Z"}
                status, body = 200, page | preview
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    remote.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield remote
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def remote(recording: Remote) -> Remote:
    recording.refused = ""
    recording.asked.clear()
    recording.keys.clear()
    recording.actors.clear()
    return recording


@pytest.fixture
def connected() -> Iterator[list[object]]:
    """The connections that anything in this process makes to a database meanwhile."""
    made: list[object] = []

    def note(connection: object, _: object) -> None:
        made.append(connection)

    event.listen(Pool, "connect", note)
    yield made
    event.remove(Pool, "connect", note)


@pytest.fixture
def run(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("DISPATCHER_API_KEY", "dsk_of-the-remote")
    monkeypatch.setattr("time.sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))  # what follows ends at once
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def local_url(postgres: Any, migrated_template: str) -> Iterator[str]:
    """A database for all commands of this module: none may come near it."""
    url = fresh_database(postgres, migrated_template)
    yield url
    drop_database(postgres, url)


@pytest.fixture
def both(
    run: Command, bare: Path, remote: Remote, local_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """A command where the environment names a remote, while a local system runs and its database is named too."""
    monkeypatch.setenv("DISPATCHER_API_URL", remote.url)
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", local_url)
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    note_running(bare, "http://127.0.0.1:1", database_url=config.database_url(local_url))
    before = {path: path.read_bytes() for path in bare.rglob("*") if path.is_file()}
    yield run
    assert {path: path.read_bytes() for path in bare.rglob("*") if path.is_file()} == before


def typed(run: Command, verb: str, *more: str) -> Ran:
    one = TYPED[verb]
    return run(*verb.split(), *one.words.split(), *more, stdin=one.stdin)


@pytest.mark.parametrize("verb", of(Reach.API, Reach.DIRECT))
def test_a_command_that_the_api_has_goes_to_the_named_system_and_nowhere_else(
    both: Command, remote: Remote, connected: list[object], verb: str
) -> None:
    remote.refused = TYPED[verb].asks
    ran = typed(both, verb)
    assert "RECORDED" in ran.err, ran
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert remote.asked[-1] == TYPED[verb].asks
    assert remote.keys == {"Bearer dsk_of-the-remote"}, "the local system's key stays here"
    assert remote.actors == {None}
    assert connected == []


# Shortened ids

SHORT = 12


def ids_typed(verb: str) -> list[str]:
    return re.findall(r"[a-z]{2,3}_[0-9a-f-]{36}", TYPED[verb].words)


def takes_ids(command: click.Command) -> list[click.Parameter]:
    return [param for param in command.params if isinstance(param.type, Id | AnyId)]


def test_every_command_that_takes_an_id_as_an_argument_is_typed_with_one() -> None:
    arguments = {
        verb for verb, command in TREE.items() if any(isinstance(one, click.Argument) for one in takes_ids(command))
    }
    assert {verb for verb in TYPED if ids_typed(verb)} >= arguments - {"deliveries retry"}  # typed with a condition


@pytest.mark.parametrize("verb", [verb for verb in of(Reach.API, Reach.DIRECT) if ids_typed(verb)])
def test_a_command_takes_the_first_characters_of_an_id(both: Command, remote: Remote, verb: str) -> None:
    words = TYPED[verb].words
    for id_ in ids_typed(verb):
        words = words.replace(id_, id_[:SHORT])
    remote.refused = TYPED[verb].asks
    whole = both(*verb.split(), *TYPED[verb].words.split())
    asked = list(remote.asked)
    assert not any("/v1/ids/" in one for one in asked), "a whole id takes no other request"
    remote.asked.clear()
    short = both(*verb.split(), *words.split())
    assert short == whole
    assert "RECORDED" in short.err
    assert remote.asked == [*(f"GET /v1/ids/{id_[:SHORT]}" for id_ in ids_typed(verb)), *asked]


OPTIONS = [
    (verb, param.opts[0], param.type.prefix)
    for verb, command in TREE.items()
    for param in takes_ids(command)
    if isinstance(param, click.Option) and isinstance(param.type, Id)
]


@pytest.mark.parametrize(("verb", "option", "prefix"), OPTIONS)
def test_an_option_takes_the_first_characters_of_an_id(
    both: Command, remote: Remote, verb: str, option: str, prefix: str
) -> None:
    (id_,) = (one for one in IDS if one.startswith(f"{prefix}_"))
    remote.refused = f"GET /v1/ids/{id_[:SHORT]}"
    assert "RECORDED" in typed(both, verb, option, id_[:SHORT]).err
    assert remote.asked == [remote.refused]


@pytest.mark.parametrize("verb", of(Reach.MACHINE))
def test_a_command_of_this_machine_refuses_where_another_system_is_named(
    both: Command, remote: Remote, connected: list[object], verb: str
) -> None:
    ran = typed(both, verb)
    assert ran.code == 2, ran
    assert ran.out == ""
    (sentence,) = ran.err.splitlines()
    assert f"`dispatcher {verb}`" in sentence
    assert "DISPATCHER_API_URL" in sentence
    assert "run it on" in sentence
    assert (remote.asked, connected) == ([], [])


@pytest.mark.parametrize("verb", of(Reach.TOOL))
def test_a_command_that_touches_no_system_works_wherever_it_is_typed(
    both: Command, remote: Remote, connected: list[object], verb: str
) -> None:
    ran = typed(both, verb)
    assert ran.code == (1 if verb == "verify" else 0), ran
    assert ran.out
    assert (remote.asked, connected) == ([], [])


@pytest.mark.parametrize(
    "words",
    [
        ("schedules", "show", SCHEDULE),
        ("schedules", "preview", SCHEDULE),
        ("schedules", "simulate", SCHEDULE),
        ("profiles", "show", str(shipped_schedules_dir().parent / "profiles/default.toml")),
        ("events", "send", "--dry-run"),
        *((*verb.split(), "--help") for verb in VERBS),
        ("--help",),
        ("--version",),
    ],
    ids=lambda words: " ".join(words)[-40:],
)
def test_files_and_help_ask_no_system(
    both: Command, remote: Remote, connected: list[object], words: tuple[str, ...]
) -> None:
    assert both(*words, stdin=LINE).code == 0
    assert (remote.asked, connected) == ([], [])


@pytest.mark.parametrize("verb", of(Reach.DIRECT))
def test_direct_and_a_named_api_are_two_systems(
    both: Command, remote: Remote, connected: list[object], verb: str
) -> None:
    ran = typed(both, verb, "--direct")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "--direct" in ran.err
    assert "DISPATCHER_API_URL" in ran.err
    assert (remote.asked, connected) == ([], [])


# Without a remote


@pytest.mark.parametrize("names_a_database", [False, True], ids=["nothing named", "a database named"])
@pytest.mark.parametrize("verb", of(Reach.API, Reach.DIRECT))
def test_without_any_system_a_command_names_what_there_could_be(
    run: Command,
    local_url: str,
    monkeypatch: pytest.MonkeyPatch,
    connected: list[object],
    verb: str,
    names_a_database: bool,
) -> None:
    if names_a_database:
        monkeypatch.setenv("DISPATCHER_DATABASE_URL", local_url)
        monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    ran = typed(run, verb)
    assert (ran.code, ran.out) == (2, "")
    (sentence,) = ran.err.splitlines()
    for named in ("`dispatcher up`", "DISPATCHER_API_URL", "--direct"):
        assert named in sentence
    assert connected == []


def test_a_command_goes_to_the_up_that_runs_here_in_the_name_of_who_types(
    run: Command, bare: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_running(bare, remote.url, database_url="postgresql+psycopg://here/x")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody's: the key stays on this machine
    monkeypatch.setattr("getpass.getuser", lambda: "josé m.")
    monkeypatch.delenv("DISPATCHER_API_KEY")
    assert run("endpoints", "list").code == 0
    assert (remote.asked, remote.keys) == (["GET /v1/endpoints"], {f"Bearer {KEY}"})
    assert remote.actors == {"cli:jos%C3%A9%20m."}
    monkeypatch.setenv("DISPATCHER_API_KEY", "dsk_mine")
    assert run("endpoints", "list").code == 0
    assert "Bearer dsk_mine" in remote.keys


@pytest.mark.parametrize("verb", of(Reach.API, Reach.DIRECT))
def test_a_misspelt_variable_sends_no_command_to_the_system_of_this_machine(
    run: Command, bare: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    note_running(bare, remote.url, database_url="postgresql+psycopg://here/x")
    monkeypatch.setenv("DISPATCHER_API_ULR", "https://dispatcher.example.com")
    remote.asked.clear()
    ran = typed(run, verb)
    assert ran.code == 2, ran
    assert "DISPATCHER_API_ULR" in ran.err
    assert "did you mean DISPATCHER_API_URL?" in ran.err
    assert remote.asked == []


def test_an_up_that_has_another_database_than_the_one_named_is_not_asked(
    run: Command, bare: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = "postgresql+psycopg://a:secret1@db.example.com:5432/x"
    note_running(bare, remote.url, database_url=here)
    for url, code in (
        ("postgres://b:secret2@db.example.com/x", 0),
        ("postgres://a:secret2@other.example.com/x", 2),
        ("postgres://a:secret2@db.example.com/y", 2),
        ("postgres://a:secret2@db.example.com:6432/x", 2),
    ):
        monkeypatch.setenv("DISPATCHER_DATABASE_URL", url)
        remote.asked.clear()
        ran = run("endpoints", "list")
        assert ran.code == code, url
        assert bool(remote.asked) == (code == 0)
        if code:
            assert ran.err.count("\n") == 1
            assert "example.com" in ran.err
            assert "secret" not in ran.err
            assert "DISPATCHER_API_URL" in ran.err


def test_what_does_not_answer_is_named_in_one_sentence(
    run: Command, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(Exchange, "_backoff", lambda *_: 0.0)
    monkeypatch.setenv("DISPATCHER_API_URL", "http://127.0.0.1:1/base")
    ran = run("endpoints", "list")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "http://127.0.0.1:1/" in ran.err
    assert "--direct" not in ran.err
    monkeypatch.delenv("DISPATCHER_API_URL")
    note_running(bare, "http://127.0.0.1:1", database_url="postgresql+psycopg://here/x")
    for verb, told in (("endpoints list", True), ("tenants create", False)):
        ran = typed(run, verb)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "http://127.0.0.1:1/" in ran.err
        assert ("--direct" in ran.err) == told


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "https://user:secret1@host"])
def test_a_url_that_cannot_be_is_a_configuration_error(run: Command, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DISPATCHER_API_URL", url)
    ran = run("endpoints", "list")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "DISPATCHER_API_URL" in ran.err
    assert "secret1" not in ran.err


def test_a_refused_key_says_which_variable_to_set(
    local_system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bare: Path
) -> None:
    run = Command(monkeypatch, capsys)
    assert run("endpoints", "list").code == 0
    note_running(bare, local_system, database_url=os.environ["DISPATCHER_DATABASE_URL"], key="")
    unknown = run("endpoints", "list")
    assert (unknown.code, unknown.err.count("\n")) == (1, 1)
    assert "DISPATCHER_API_KEY is not set" in unknown.err
    for url in (local_system, ""):
        monkeypatch.setenv("DISPATCHER_API_URL", url)
        monkeypatch.setenv("DISPATCHER_API_KEY", "dsk_of-another-system")
        refused = run("endpoints", "list")
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "DISPATCHER_API_KEY is refused" in refused.err
        assert "dsk_of-another-system" not in refused.err


# Past the API


@pytest.fixture
def database_alone(run: Command, migrated_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command where nothing runs and a database is named, and nothing else."""
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", migrated_database_url)
    monkeypatch.delenv("DISPATCHER_API_KEY")
    return run


def place(url: str) -> str:
    return f"on {machine.Place.of(config.database_url(url))}, past the API"


@pytest.mark.parametrize("verb", of(Reach.DIRECT))
def test_direct_needs_a_database_alone_and_says_which_it_uses(
    database_alone: Command, engine: Engine, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    names: dict[str, str] = {}
    with engine.begin() as connection:
        names[EP] = format_id("ep", walk.add_endpoint(connection).id)
        (accepted,) = walk.emit(connection, 1, now=None, object_id="pay_9")
        names[EVT] = str(accepted)
        (live,) = walk.live(connection)
        names[DLV] = format_id("dlv", live.id)
        tenants.add_key(connection, (key_id := uuid7()), "dsk_old", name="old", tenant_id=None, scopes=[Scope.ADMIN])
        names[KEY_ID] = format_id("key", key_id)
        names[TEN] = format_id("ten", connection.execute(text("SELECT id FROM dispatcher.tenants")).scalars().one())
    if verb == "keys create":
        refused = typed(database_alone, verb, "--direct")
        assert (refused.code, "DISPATCHER_SECRET_KEYS" in refused.err) == (2, True), "a secret that is kept is sealed"
        monkeypatch.setenv("DISPATCHER_SECRET_KEYS", walk.KEYS.reveal())
    if verb == "unpause":
        assert typed(database_alone, "pause", "--direct").code == 0
    words = TYPED[verb].words
    for name, real in names.items():
        words = words.replace(name, real)
    ran = database_alone(*verb.split(), *words.split(), "--direct", stdin=TYPED[verb].stdin)
    missing = verb in {"replay status", "erasures show"}
    assert ran.code == (1 if missing else 0), ran
    said, *rest = ran.err.splitlines()
    assert said == f"dispatcher: --direct: {place(os.environ['DISPATCHER_DATABASE_URL'])}"
    assert bool(rest) == (missing or verb == "keys create"), "a key is shown once, which stderr says"
    assert ran.out or missing or verb == "deliveries export"


def test_direct_does_what_it_says_in_the_name_of_who_types(
    database_alone: Command, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    with engine.begin() as connection:
        endpoint = format_id("ep", walk.add_endpoint(connection).id)
    assert database_alone("endpoints", "disable", endpoint, "--direct").code == 0
    with engine.connect() as connection:
        actors = walk.rows(connection, "SELECT actor FROM dispatcher.audit_log WHERE action = 'endpoint.disabled'")
    assert [actor for (actor,) in actors] == ["cli:alice"]


def test_direct_makes_nothing_by_the_way(database_alone: Command, engine: Engine) -> None:
    """The API makes missing platform keys when it starts; a look past it must not, by a keyring that nobody has."""
    walk.forget_signing_keys(engine)
    assert database_alone("endpoints", "list", "--direct").code == 0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM dispatcher.signing_keys")).scalar_one() == 0


def test_direct_takes_the_database_of_the_up_that_runs_here(
    run: Command, bare: Path, migrated_database_url: str
) -> None:
    url = config.database_url(migrated_database_url)
    note_running(bare, "http://127.0.0.1:1", database_url=url)
    ran = run("endpoints", "list", "--direct")
    assert ran.code == 0, ran.err
    assert place(url) in ran.err


def test_direct_without_a_database_names_what_there_could_be(run: Command) -> None:
    ran = run("endpoints", "list", "--direct")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "DISPATCHER_DATABASE_URL" in ran.err
    assert "`dispatcher up`" in ran.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://ops:pa55@db.example.com:6432/shop", "the database shop on db.example.com, port 6432"),
        ("postgresql+psycopg://ops:pa55@db.example.com/shop", "the database shop on db.example.com, port 5432"),
        ("postgresql+psycopg://ops:pa55@[2001:db8::1]/shop", "the database shop on 2001:db8::1, port 5432"),
        ("postgresql+psycopg://ops:pa55@/shop?host=/run/pg&port=7", "the database shop on /run/pg, port 7"),
        ("postgresql+psycopg://ops:pa55@/shop?host=a,b&port=1,2", "the database shop on a,b, port 1,2"),
        ("postgresql+psycopg://ops:pa55@a/?password=pa55", "the database ops on a, port 5432"),
    ],
)
def test_a_database_is_named_without_who_opens_it(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    assert str(machine.Place.of(url)) == said
    monkeypatch.setenv("PGPORT", "99")
    assert ", port 99" in str(machine.Place.of("postgresql+psycopg://a/x"))
