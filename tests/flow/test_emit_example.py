"""The example of a producer runs as it stands, and its last wake-up outlives it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import redis
from sqlalchemy import Engine, text

from dispatcher.local.redis import EmbeddedRedis
from dispatcher.wakeup import CHANNEL
from tests.support import walk
from tests.support.patience import PATIENCE_S
from tests.support.producers import count, hears

ROOT = Path(__file__).parents[2]


def test_the_producer_commits_an_order_with_its_event_and_wakes_the_scheduler(
    engine: Engine, redis_server: EmbeddedRedis
) -> None:
    with engine.begin() as connection:
        walk.add_endpoint(connection, event_types=("payment.*",))
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscription:
        subscription.subscribe(CHANNEL)
        assert subscription.get_message(timeout=PATIENCE_S) is not None  # subscribed
        url = engine.url.render_as_string(hide_password=False)
        ended = subprocess.run(
            [sys.executable, "-W", "error", "examples/producer.py"],
            cwd=ROOT,
            env=os.environ
            | {"DISPATCHER_DATABASE_URL": url, "DISPATCHER_BROKER_URL": redis_server.url, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert re.fullmatch(r"evt_[0-9a-f-]{36} goes to 1 endpoints\n", ended.stdout)
        assert hears(subscription)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM orders")).scalar_one() == 1
        assert count(connection, "events") == count(connection, "deliveries") == 1
