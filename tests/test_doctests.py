"""The examples in docstrings hold."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join((*package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
    for package, folder in ((["dispatcher"], ROOT / "dispatcher"), (["dispatcher", "workers"], ROOT / "workers"))
    for path in folder.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_hold(module: str) -> None:
    tried = doctest.testmod(importlib.import_module(module))
    assert tried.attempted
    assert not tried.failed
