"""An address with several hosts leads to the one that can be written to, for every engine of ours."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from dispatcher import config, wiring
from dispatcher.cli.doctor import Patient
from dispatcher.cli.machine import Place
from dispatcher.config import Settings
from dispatcher.errors import ConfigurationError, Unavailable
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.local.postgres import PORT, EmbeddedPostgres
from dispatcher.store import addresses
from tests.support.servers import FAST_SETTINGS, drop_database, fresh_database


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h1:5433,h2:5434/db",
        "postgresql://u:p@h1,h2:5434/db?sslmode=require",
        "postgres://u:a%2Fb%40c@h1:5433,h2/db?application_name=x%20y",
        "postgresql://u@[::1]:5433,[fe80::2],h3/db?target_session_attrs=any",
        "postgresql://h1,h2",
        "postgresql://u:p@/db?host=h1,h2&port=5433,5434&connect_timeout=7",
        "postgresql://u:p@/db?host=h1,h2&port=5433",
        "postgresql://u:p@/db?host=/run/one,/run/two",
    ],
)
def test_a_url_with_several_hosts_means_what_libpq_takes_it_for(url: str) -> None:
    ours = arguments(config.database_url(url))
    theirs = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    ports = theirs.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(theirs["host"].split(","))
    assert [port or "5432" for port in ours.pop("port").split(",")] == [port or "5432" for port in ports]
    theirs.pop("port", None)
    assert ours == {"target_session_attrs": "read-write", **theirs}


def arguments(url: str) -> dict[str, str]:
    made: Any = make_url(url).get_dialect()().create_connect_args(make_url(url))[1]
    return {name: str(value) for name, value in made.items()}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@h1:x,h2:5433/db",
        "postgresql://u:secret@h1,/db",
        "postgresql://u:secret@h1:1,h2:2/db?host=h3",
        "postgresql://u:secret@/db?host=h1,h2&port=1,2,3",
    ],
)
def test_a_wrong_url_is_refused_with_the_form_that_works(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        config.load({"DISPATCHER_DATABASE_URL": url})
    assert "host1:5432,host2:5432" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_url_with_one_host_is_left_alone() -> None:
    assert config.database_url("postgresql://u:p@h:1/db") == "postgresql+psycopg://u:p@h:1/db"


def test_each_of_several_hosts_has_less_time_to_connect_than_one_alone() -> None:
    one = addresses.connect_timeout(config.database_url("postgresql://h/db"))["connect_timeout"]
    assert addresses.connect_timeout(config.database_url("postgresql://h,i/db"))["connect_timeout"] < one
    assert addresses.connect_timeout(config.database_url("postgresql://h,i/db?connect_timeout=7")) == {}


def test_a_place_with_several_hosts_is_named_whole() -> None:
    place = Place.of(config.database_url("postgresql://u:p@h1:1,h2:2/db"))
    assert str(place) == "the database db on h1,h2, port 1,2"


@pytest.fixture(scope="module")
def hosts(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[dict[str, str]]:
    """Three hosts: one that is gone, a real hot standby, which never gets anything, and the server that can be written.

    The two servers know the role `everywhere` and a database of one name, of which the standby's is empty.
    """
    primary_url = fresh_database(postgres, migrated_template)
    name = make_url(primary_url).database
    assert name is not None
    top = Path(tempfile.mkdtemp(prefix="dispatcher-standby-"))
    top.chmod(0o711)  # the server's account passes through
    server = EmbeddedPostgres(
        top / "data", settings={**FAST_SETTINGS, "wal_level": "replica", "shared_buffers": "16MB"}
    )
    server.start()
    try:
        for one in (postgres, server):
            with one.connect("postgres") as connection:
                connection.execute("CREATE ROLE everywhere SUPERUSER LOGIN PASSWORD 'p'")
        with server.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        standby_url = server.url_of(name)
        server.stop()
        cluster = next(path for path in top.rglob("postgresql.auto.conf")).parent
        (cluster / "standby.signal").touch()
        server.start()
        with server.connect("postgres") as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        yield {
            "name": name,
            "gone": str(top / "gone"),
            "standby": str(make_url(standby_url).query["host"]),
            "primary": str(make_url(primary_url).query["host"]),
        }
    finally:
        server.stop("immediate")
        remove_data_dir(top, server_account())
        drop_database(postgres, primary_url)
        with postgres.connect("postgres") as connection:
            connection.execute("DROP ROLE everywhere")


async def writes(engine: AsyncEngine) -> None:
    try:
        async with engine.begin() as connection:
            await connection.execute(WRITE)
    finally:
        await engine.dispose()


WRITE = text("UPDATE dispatcher.tenants SET name = name")


@pytest.mark.parametrize("first", ["gone", "standby"])
def test_every_engine_reaches_the_host_that_can_be_written_to(first: str, hosts: dict[str, str]) -> None:
    url = config.database_url(
        f"postgresql://everywhere:p@/{hosts['name']}?host={hosts[first]},{hosts['primary']}&port={PORT},{PORT}"
    )
    settings = Settings(database_url=url)
    wiring.check_database(settings)
    wiring.prepare_database(settings)
    engine = wiring.engine(settings)
    with engine.begin() as connection:
        connection.execute(WRITE)
    engine.dispose()
    asyncio.run(writes(wiring.api_engine(settings, connections=1)))
    asyncio.run(writes(wiring.hot_engine(settings, connections=1)))
    with Patient(lambda: settings).connect() as connection:
        assert connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one() is False


def test_where_no_host_can_be_written_to_the_error_says_so(hosts: dict[str, str]) -> None:
    url = config.database_url(
        f"postgresql://everywhere:p@/{hosts['name']}?host={hosts['gone']},{hosts['standby']}&port={PORT},{PORT}"
    )
    with pytest.raises(Unavailable, match="read-only"):
        wiring.check_database(Settings(database_url=url))


def test_a_read_only_host_will_do_where_the_url_says_so(hosts: dict[str, str]) -> None:
    url = config.database_url(
        f"postgresql://everywhere:p@/{hosts['name']}?host={hosts['gone']},{hosts['standby']}&target_session_attrs=any"
    )
    with Patient(lambda: Settings(database_url=url)).connect() as connection:
        assert connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one() is True
