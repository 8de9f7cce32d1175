"""Shows what goes to a terminal in a pager, as git does: less, unless it fits the screen or the user wants another."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Quit if it fits, show colours, leave the screen as it was. As git: https://git-scm.com/docs/git-config#core.pager
LESS = "FRX"


def pager_command() -> list[str] | None:
    """HARBORCTL_PAGER, else PAGER, else less; None for none, as `cat` and the empty text are."""
    for name in ("HARBORCTL_PAGER", "PAGER"):
        if name in os.environ:
            words = shlex.split(os.environ[name])
            return None if words in ([], ["cat"]) or shutil.which(words[0]) is None else words
    return ["less"] if shutil.which("less") else None


@contextmanager
def paged(command: list[str], *, wide: bool) -> Iterator[IO[bytes]]:
    """A stream that ends in the pager. `wide` lines are cut off at the edge, and can be scrolled to. Ends when the user
    has quit; a user who quits early ends the block, and all is well."""
    environment = {**os.environ}
    environment.setdefault("LESS", LESS + "S" if wide else LESS)
    environment.setdefault("LESSCHARSET", "utf-8")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None  # noqa: S101  # it was asked for
    try:
        with suppress(BrokenPipeError):
            yield process.stdin
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        # Ctrl-C is for the pager from here on.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
