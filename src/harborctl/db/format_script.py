"""Formats a migration that Alembic has just written, by the ruff of this Python; without one it stays as it is."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec


def main(script: str) -> None:
    """Format and mend `script`; what ruff complains of it says itself."""
    if find_spec("ruff"):
        for command in ("format", "check --fix"):
            subprocess.run([sys.executable, "-m", "ruff", *command.split(), "--quiet", script], check=False)


if __name__ == "__main__":
    main(sys.argv[1])
