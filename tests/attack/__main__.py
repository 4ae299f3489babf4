"""`python -m tests.attack [NAME …]`: every attack on one API process, healthy callers beside it, a verdict.

ATTACK_SECONDS (default 20) is how long each lasts. Exits with 1 where a healthy caller was not served, /healthz took
longer than a second, or the process's memory grew beyond its bounds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dispatcher.config import Settings
from dispatcher.local.accounts import server_account
from dispatcher.local.paths import remove_data_dir
from dispatcher.wiring import prepare_database
from tests.attack.attacks import ATTACKS
from tests.attack.campaign import COLUMNS, MEMORY_MB, Api, Seen, campaign
from tests.support.servers import fresh_database, start_postgres

PROBE_S = 1.0


def main() -> int:
    names = sys.argv[1:] or list(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        print(f"found {', '.join(unknown)}; allowed: {', '.join(ATTACKS)}", file=sys.stderr)
        return 2
    seconds = float(os.environ.get("ATTACK_SECONDS", "20"))
    data_dir = Path(tempfile.mkdtemp(prefix="dispatcher-attack-"))
    server = start_postgres(data_dir)
    try:
        url = fresh_database(server)
        prepare_database(Settings(database_url=url))
        with Console(stderr=True).status("") as status:
            found = campaign(Api(url), names, seconds, lambda seen: status.update(f"{seen.attack} is over"))
    finally:
        server.stop("immediate")
        remove_data_dir(data_dir, server_account())
    table = Table(*COLUMNS, box=None)
    for seen in found:
        table.add_row(*seen.row())
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    faults = [f"{seen.attack}: {fault}" for seen in found for fault in verdict(seen, found[0])]
    for fault in faults:
        print(fault)
    print("FAILED" if faults else "every healthy caller was served")
    return 1 if faults else 0


def verdict(seen: Seen, first: Seen) -> list[str]:
    """What is wrong, times included: a campaign is run on a machine that does nothing else."""
    faults = seen.faults
    if max(seen.probe_s, default=0.0) > PROBE_S:
        faults.append(f"/healthz took {max(seen.probe_s):.1f} s")
    if seen.memory_mb > first.memory_mb + MEMORY_MB:
        faults.append(f"the process held {seen.memory_mb:.0f} MB, {first.memory_mb:.0f} before")
    return faults


if __name__ == "__main__":
    sys.exit(main())
