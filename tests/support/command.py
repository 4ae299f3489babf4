"""Runs a command of ours in this process: what it printed, and how it exited."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from dispatcher.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def data(self) -> Any:
        """The objects of a list."""
        return self.json["data"]


@dataclass(frozen=True, slots=True)
class Command:
    """Called with the words after `dispatcher`, or after those that `words` has."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    words: tuple[str, ...] = ()

    def __call__(self, *arguments: object, stdin: bytes | str = b"") -> Ran:
        reader = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        reader.name = "<stdin>"
        self.monkeypatch.setattr(sys, "argv", ["dispatcher", *self.words, *map(str, arguments)])
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(reader))
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = self.capsys.readouterr()
        return Ran(code, captured.out, captured.err)
