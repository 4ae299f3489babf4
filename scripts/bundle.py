"""Bundles files of npm packages into the package `dispatcher`, so that its web pages load nothing from another host.

`scripts/bundle.json` names each package with its version, the sha512 of its archive, the folder that its files go to,
and each file with its sha512. A script or style sheet is stored compressed, as `<name>.gz`; its sha512 is that of its
text.

    python scripts/bundle.py            gets what is locked, compares every hash, and writes the folders
    python scripts/bundle.py --check    compares the folders with the hashes, without a network
    python scripts/bundle.py --lock     gets the versions that bundle.json names, and writes hashes and folders

`npm` gets the archives from the registry that it is set up with. Standard library only.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "scripts/bundle.json"

COMPRESSED = (".css", ".js")
"""What is stored compressed. A browser gets it as it is stored."""

LIST = "LICENSES.md"
"""The file in each folder that lists the licences of what lies there."""


class BundleError(Exception):
    """What was got or lies there is not what is locked."""


def sha512(content: bytes) -> str:
    """A hash as npm writes it."""
    return f"sha512-{b64encode(hashlib.sha512(content).digest()).decode()}"


def stored_name(name: str) -> str:
    """What a file of an archive is called in its folder.

    >>> stored_name("dist/page.css"), stored_name("LICENSE")
    ('page.css.gz', 'LICENSE')
    """
    name = name.rpartition("/")[2]
    return f"{name}.gz" if name.endswith(COMPRESSED) else name


def stored(name: str, content: bytes) -> bytes:
    """A file's content as it is stored. No time is noted in it: the same content gives the same bytes."""
    return gzip.compress(content, 9, mtime=0) if name.endswith(COMPRESSED) else content


def licences(packages: list[dict[str, Any]]) -> str:
    """The list of licences for the packages of one folder."""
    lines = [
        "# Licences",
        "",
        "Files of these npm packages are bundled here, unchanged; scripts and style sheets are compressed.",
        "`scripts/bundle.py` in the repository got them, and compares them with their hashes.",
        "",
        "| package | version | licence | its text and notices | files |",
        "|---|---|---|---|---|",
    ]
    for package in packages:
        texts = [f"`{name}`" for name in package["files"] if name in package["licence_files"]]
        files = [f"`{stored_name(name)}`" for name in package["files"] if name not in package["licence_files"]]
        cells = [package["name"], package["version"], package["licence"], ", ".join(texts), ", ".join(files)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def by_folder(packages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The packages of each folder."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for package in packages:
        folders.setdefault(package["folder"], []).append(package)
    return folders


def archive(package: dict[str, Any]) -> bytes:
    """The package's archive, as npm gets it."""
    with tempfile.TemporaryDirectory() as folder:
        specification = f"{package['name']}@{package['version']}"
        done = subprocess.run(
            ["npm", "pack", specification, "--ignore-scripts", "--silent", "--pack-destination", folder],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            raise BundleError(f"npm did not get {specification}: {done.stderr.strip() or done.stdout.strip()}")
        return archives[0].read_bytes()


def compare(what: str, content: bytes, locked: str) -> None:
    """Raises BundleError where the content has another hash."""
    if (found := sha512(content)) != locked:
        raise BundleError(f"{what}: found {found}; allowed: {locked}")


def get(package: dict[str, Any], *, lock: bool) -> dict[str, bytes]:
    """The package's files by name. With `lock`, notes the hashes that are found; otherwise compares them."""
    packed = archive(package)
    if lock:
        package["integrity"] = sha512(packed)
    compare(f"{package['name']}@{package['version']}", packed, package["integrity"])
    contents = {}
    with tempfile.TemporaryFile() as file:
        file.write(packed)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as members:
            for name in package["files"]:
                try:
                    member = members.extractfile(f"package/{name}")
                except KeyError:
                    member = None
                if member is None:
                    raise BundleError(f"{package['name']}@{package['version']} has no file {name}")
                contents[name] = member.read()
                if lock:
                    package["files"][name] = sha512(contents[name])
                compare(f"{package['name']}: {name}", contents[name], package["files"][name])
    return contents


def write(packages: list[dict[str, Any]], *, lock: bool) -> None:
    """Gets every package, and once all are as locked, writes the folders."""
    contents = {package["name"]: get(package, lock=lock) for package in packages}
    if lock:
        LOCK.write_text(json.dumps({"packages": packages}, indent=2) + "\n")
    for name, there in by_folder(packages).items():
        folder = ROOT / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for package in there:
            for file, content in contents[package["name"]].items():
                (folder / stored_name(file)).write_bytes(stored(file, content))
        (folder / LIST).write_text(licences(there))


def faults(packages: list[dict[str, Any]], root: Path = ROOT) -> list[str]:
    """What is wrong with the folders below `root`."""
    found = []
    for name, there in by_folder(packages).items():
        folder = root / name
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        allowed = {LIST}
        for package in there:
            for file, locked in package["files"].items():
                allowed.add(stored_name(file))
                if stored_name(file) not in present:
                    continue
                content = (folder / stored_name(file)).read_bytes()
                try:
                    compare(
                        f"{name}/{file}", gzip.decompress(content) if file.endswith(COMPRESSED) else content, locked
                    )
                except (BundleError, OSError, EOFError) as error:
                    found.append(str(error) if isinstance(error, BundleError) else f"{name}/{file}: {error}")
        found += [f"{name}/{file}: missing" for file in sorted(allowed - present)]
        found += [f"{name}/{file}: not in {LOCK.name}" for file in sorted(present - allowed)]
        if LIST in present and (folder / LIST).read_text() != licences(there):
            found.append(f"{name}/{LIST}: does not list what is locked")
    return found


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Bundle files of npm packages, as scripts/bundle.json locks them.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only compare the folders with the hashes, offline")
    mode.add_argument("--lock", action="store_true", help="take the hashes of the versions that bundle.json names")
    options = parser.parse_args(arguments)
    packages: list[dict[str, Any]] = json.loads(LOCK.read_text())["packages"]
    if not options.check:
        try:
            write(packages, lock=options.lock)
        except BundleError as error:
            print(error, file=sys.stderr)  # noqa: T201 - a command
            return 1
    problems = faults(packages)
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201 - a command
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
