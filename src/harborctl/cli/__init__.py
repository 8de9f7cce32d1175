"""The command line: argv → options → one call → print. The only place that exits and prints."""

from __future__ import annotations

import sys


def main() -> None:
    """The `harborctl` program."""
    from harborctl.cli.app import run

    sys.exit(run(sys.argv[1:]))
