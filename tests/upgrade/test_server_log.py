from __future__ import annotations

from pathlib import Path

from tests.upgrade.server_log import ServerLog

LOG = """\
2026-03-02 09:00:00.000 UTC [7] migrate | LOG:  duration: 0.1 ms  statement: BEGIN
2026-03-02 09:00:00.100 UTC [7] migrate | LOG:  duration: 0.2 ms  statement: LOCK TABLE tenants IN SHARE MODE
2026-03-02 09:00:01.100 UTC [8] worker | LOG:  process 8 still waiting for ShareLock on relation 1 after 1000.1 ms
2026-03-02 09:00:01.100 UTC [8] worker | DETAIL:  Process holding the lock: 7. Wait queue: 8.
2026-03-02 09:00:01.200 UTC [9] worker | LOG:  process 9 still waiting for ShareLock on transaction 5 after 1000.2 ms
2026-03-02 09:00:01.200 UTC [9] worker | DETAIL:  Process holding the lock: 10. Wait queue: 9.
2026-03-02 09:00:01.300 UTC [7] migrate | LOG:  duration: 0.1 ms  statement: COMMIT
2026-03-02 09:00:02.000 UTC [7] migrate | LOG:  duration: 9.1 ms  statement: CREATE INDEX CONCURRENTLY i ON t (c)
2026-03-02 09:00:02.300 UTC [7] migrate | LOG:  process 7 still waiting for ShareLock on relation 2 after 250.5 ms
2026-03-02 09:00:02.300 UTC [7] migrate | DETAIL:  Process holding the lock: 9. Wait queue: 7.
2026-03-02 09:00:02.500 UTC [7] migrate | ERROR:  canceling statement due to lock timeout
2026-03-02 09:00:09.000 UTC [9] worker | ERROR:  deadlock detected
"""


def test_the_log_tells_who_waited_for_whom_and_how_long_locks_were_held(tmp_path: Path) -> None:
    path = tmp_path / "postgres.log"
    path.write_text("2026-03-02 08:00:00.000 UTC [6] worker | ERROR:  deadlock detected\n" + LOG)
    log = ServerLog.read(path, path.read_text().index("2026-03-02 09"), "migrate")
    assert [ms for ms, _ in log.lock_waits] == [1000.1, 250.5]
    assert [ms for ms, _ in log.held] == [1200.0]
    assert log.deadlocks == ["deadlock detected"]
    assert log.lock_timeouts == 1
