"""The command line: argv → options → one call → print. The only place that exits and prints."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from typing import NoReturn

from harborctl.cli.process_title import hide_secrets

# A command's imports make a hundred thousand objects, and none of them is garbage: with Python's own threshold of 700
# the collector goes through them again and again, for a tenth of a second.
OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> NoReturn:
    """The `harborctl` program."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    hide_secrets(sys.argv[1:])
    # Ctrl-C in the middle of these imports would end in a traceback; it waits until there is somebody to say it.
    early: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, _: early.append(number))
    from harborctl.cli.app import run

    signal.signal(signal.SIGINT, before)
    code = run(sys.argv[1:], stopped=bool(early))
    if sys.stderr is not None:  # as it is where it was closed before we began
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    # All is closed and flushed. Taking every object apart, as Python does at its end, takes a quarter of a second.
    os._exit(code)
