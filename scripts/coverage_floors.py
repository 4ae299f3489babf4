"""Compares a run's branch coverage with the floors in coverage_floors.toml, and says which module fell below.

python scripts/coverage_floors.py coverage.json           exit code 1 if a part is below its floor
python scripts/coverage_floors.py coverage.json --raise   writes the floors anew; none ever falls
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FLOORS: Final = Path(__file__).with_name("coverage_floors.toml")

MARGIN: Final = 1.0
"""By how much a raised floor stays below what was measured: what runs depends a little on how fast the machine is."""


@dataclass
class Part:
    """Statements and branches of some modules, together and of each that is not whole."""

    covered: int = 0
    total: int = 0
    incomplete: list[tuple[float, str]] = field(default_factory=list)

    def add(self, module: str, covered: int, total: int) -> None:
        """Counts one module in."""
        self.covered += covered
        self.total += total
        if covered < total:
            self.incomplete.append((100 * covered / total, module))

    @property
    def percent(self) -> float:
        """Of its statements and branches."""
        return 100 * self.covered / self.total if self.total else 100.0


def measure(report: Path, floors: dict[str, float]) -> dict[str, Part]:
    """Each floor's part: the modules below that name which no longer name of a floor claims."""
    parts: dict[str, Part] = defaultdict(Part)
    for path, measured in json.loads(report.read_text())["files"].items():
        module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        if module.partition(".")[0] == "workers":  # the folder that dispatcher.workers is a link to
            module = f"dispatcher.{module}"
        names = [name for name in floors if module == name or module.startswith(f"{name}.")]
        if not names:
            raise SystemExit(f"coverage: no floor for {module}; add its package to {FLOORS.name}")
        summary = measured["summary"]
        parts[max(names, key=len)].add(
            module,
            summary["covered_lines"] + summary["covered_branches"],
            summary["num_statements"] + summary["num_branches"],
        )
    return parts


def main(report: Path, *, rise: bool = False) -> int:
    """Prints a line for each part; returns the exit code."""
    text = FLOORS.read_text()
    floors: dict[str, float] = tomllib.loads(text)["floors"]
    parts = measure(report, floors)
    code = 0
    for name, floor in floors.items():
        if name not in parts:
            print(f"coverage: nothing of {name} was measured; its floor is {floor:g} %")  # noqa: T201
            code = 1
            continue
        part = parts[name]
        is_below = part.percent < floor
        code |= is_below
        print(f"coverage: {name:24} {part.percent:6.2f} %, floor {floor:g} %{', BELOW' if is_below else ''}")  # noqa: T201
        if is_below:
            for percent, module in sorted(part.incomplete):
                print(f"coverage:     {module} {percent:.2f} %")  # noqa: T201
        risen = math.floor(10 * (part.percent - MARGIN)) / 10
        if rise and risen > floor:
            text = text.replace(f'"{name}" = {floor:g}\n', f'"{name}" = {risen:g}\n')
    if rise:
        FLOORS.write_text(text)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), rise="--raise" in sys.argv[2:]))
