"""scripts/bundle.py: what is bundled from npm is what `bundle.json` locks."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import bundle

PACKAGES: list[dict[str, Any]] = json.loads(bundle.LOCK.read_text())["packages"]
FOLDER = "dispatcher/api/pages/swagger_ui"


def test_what_is_bundled_is_what_is_locked() -> None:
    assert bundle.main(["--check"]) == 0


def change_a_script(folder: Path) -> None:
    path = folder / "swagger-ui-bundle.js.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"alert(1)"))


def damage_a_script(folder: Path) -> None:
    path = folder / "swagger-ui-bundle.js.gz"
    path.write_bytes(path.read_bytes()[:-100])


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (change_a_script, "swagger-ui-bundle.js: found sha512-"),
    (damage_a_script, "swagger-ui-bundle.js: Compressed file ended before"),
    (lambda folder: (folder / "NOTICE").write_text("ours"), "NOTICE: found sha512-"),
    (lambda folder: (folder / "LICENSE").unlink(), "LICENSE: missing"),
    (lambda folder: (folder / "more.js.gz").write_bytes(b""), "more.js.gz: not in bundle.json"),
    (lambda folder: (folder / "LICENSES.md").write_text("# Licences\n"), "LICENSES.md: does not list what is locked"),
    (shutil.rmtree, "swagger-ui.css.gz: missing"),
]


@pytest.mark.parametrize(("change", "fault"), CHANGES)
def test_a_change_is_found(change: Callable[[Path], object], fault: str, tmp_path: Path) -> None:
    shutil.copytree(bundle.ROOT / FOLDER, tmp_path / FOLDER)
    assert bundle.faults(PACKAGES, tmp_path) == []
    change(tmp_path / FOLDER)
    assert any(f"{FOLDER}/{fault}" in found for found in bundle.faults(PACKAGES, tmp_path))


def test_what_npm_gets_has_to_be_what_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "archive", lambda package: b"another archive")
    with pytest.raises(bundle.BundleError, match=r"swagger-ui-dist@[0-9.]+: found sha512-\S+; allowed: sha512-"):
        bundle.write(PACKAGES, lock=False)
    assert bundle.main(["--check"]) == 0


def test_every_bundled_package_comes_with_its_licence() -> None:
    for package in PACKAGES:
        assert package["licence"]
        assert package["licence_files"]
        assert set(package["licence_files"]) <= package["files"].keys()
        assert (
            f"| {package['name']} | {package['version']} |"
            in (bundle.ROOT / package["folder"] / bundle.LIST).read_text()
        )
