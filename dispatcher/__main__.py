"""The command line's first step: `dispatcher`, or `python -m dispatcher`."""

from __future__ import annotations

import sys

from dispatcher.extras import missing_extra


def main() -> None:
    """Runs the command line. Where a package of an extra is missing, says which extra installs it; exit code 1."""
    try:
        from dispatcher.cli import main as run  # noqa: PLC0415 - this import may be the one that fails

        run()
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        sys.exit(f"dispatcher: {missing}")


if __name__ == "__main__":
    main()
