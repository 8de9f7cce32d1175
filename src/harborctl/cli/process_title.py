"""What `ps` shows of us to everybody on this machine: the command line, and no password in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def hide_secrets(arguments: Sequence[str]) -> None:
    """Replace the title of this process by its command line with the passwords masked, if there are any.

    It can be read until then, which is why `--help` names other places for it.
    """
    from harborctl.plain_text import masked

    hidden = [masked(argument) for argument in arguments]
    if hidden != list(arguments):
        from setproctitle import setproctitle  # only few command lines need it

        setproctitle(" ".join(["harborctl", *hidden]))
