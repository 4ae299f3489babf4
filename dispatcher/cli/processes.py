"""`dispatcher up` and `dispatcher migrate`: the whole system on this machine, and its database's schema."""

from __future__ import annotations

import click
from sqlalchemy import text

from dispatcher import config, telemetry, wiring
from dispatcher.cli import machine, preflight
from dispatcher.errors import Unavailable
from dispatcher.local.bootstrap import bootstrap_key
from dispatcher.local.notify import Notifier
from dispatcher.local.stack import Stack
from dispatcher.store import grants
from dispatcher.store import migrate as store_migrate


@click.command()
@click.option("--workers", type=click.IntRange(1, 256), help="Celery worker processes; DISPATCHER_WORKERS by default.")
@click.option("--port", type=click.IntRange(0, 65535), help="DISPATCHER_PORT by default; 0 takes a free one.")
def up(workers: int | None, port: int | None) -> None:
    """Run the whole system on this machine.

    It runs until Ctrl-C. PostgreSQL and Redis are embedded unless DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL
    name others. All that is wrong is reported at once, as by `config check`, before anything starts. A start that shows
    no progress for DISPATCHER_START_TIMEOUT_S is given up.
    """
    systemd = Notifier()
    settings = preflight.settings(port=port)
    telemetry.set_up(log_format=settings.log_format, log_level=settings.log_level)
    stack = Stack(
        migrate=lambda url: wiring.prepare_database(config.with_database(settings, url)),
        data_dir=settings.data_dir,
        database_url=settings.database_url,
        direct_database_url=settings.direct_database_url,
        broker_url=settings.broker_url,
        host=settings.host,
        port=settings.port,
        workers=workers or settings.workers,
        grace_s=settings.shutdown_grace_s + 3,
        start_timeout_s=settings.start_timeout_s,
        hang_timeout_s=settings.hang_timeout_s,
        env={} if settings.bootstrap_key else {"DISPATCHER_BOOTSTRAP_KEY": bootstrap_key(settings.data_dir)},
    )

    def ready() -> None:
        click.echo(f"ready {stack.url}")
        systemd.ready()
        click.echo(f"api docs  {stack.url}/docs", err=True)
        if settings.bootstrap_key is None:
            click.echo(f"api key   {bootstrap_key(settings.data_dir)}", err=True)

    stack.run(ready)


@click.command()
@click.option("--grant-producer", metavar="ROLE", help="Also grant this SQL role what emit() needs, and no more.")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if the database lacks migrations.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print each missing step and what it locks.")
def migrate(grant_producer: str | None, *, check: bool, dry_run: bool) -> None:
    """Migrate the database's schema.

    This brings the schema up to date and publishes the schedules. It may run beside live processes of the version
    before: it works in short steps, none of which waits longer than a second for a lock or holds one for longer that
    blocks others. If it is interrupted, run it again: it continues with the first step that is missing.
    """
    if check + dry_run + (grant_producer is not None) > 1:
        raise click.UsageError("--check, --dry-run and --grant-producer exclude each other")
    if check or dry_run:
        _show_pending(check=check)
        return
    wiring.prepare_database(machine.settings())
    with machine.database() as (_, connection):
        if grant_producer is not None:
            grants.grant_producer(connection, grant_producer)
        version = connection.execute(text("SHOW server_version")).scalar_one()
        revision = store_migrate.current(connection)
    click.echo(f"schema {store_migrate.SCHEMA} is at {revision} on PostgreSQL {version}")
    if grant_producer is not None:
        click.echo(f"{grant_producer} may emit events, and nothing else")


def _show_pending(*, check: bool) -> None:
    revision, pending = wiring.pending_migrations(machine.settings())
    if check:
        if not store_migrate.serves(revision):
            raise Unavailable(
                f"the database's schema is at {revision or 'nothing'}, and migrations up to {store_migrate.head()} are "
                "missing: run `dispatcher migrate`"
            )
        click.echo(f"schema {store_migrate.SCHEMA} is at {revision}; no migration is missing")
        return
    for step in pending:
        locks = ", ".join(f"{mode} on {table}" for table, mode in step.locks.items())
        click.echo(f"{step.revision or '-':<4}  {step.name}: {locks or 'locks no existing table'}")
    click.echo(f"{len(pending)} steps are missing; nothing was changed")
