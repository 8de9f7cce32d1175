"""Signals that ask a command to end where it is between two transactions, instead of in the middle of one."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP


class Stop:
    """Whether somebody has asked the command to end. Whoever asks twice does not want to wait."""

    def __init__(self) -> None:
        self.requested = False
        # A signal ends a sleep only by what can be waited for. A lock cannot: the handler may run inside of it.
        self._waiting, self._asking = socket.socketpair()

    def wait(self, seconds: float) -> None:
        """Sleep, but not after somebody has asked to end."""
        select.select([self._waiting], [], [], seconds)

    def close(self) -> None:
        """Give the sockets back."""
        self._waiting.close()
        self._asking.close()

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler of the signals."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._asking.send(b"!")


@contextmanager
def stopping() -> Iterator[Stop]:
    """Inside this block signals only ask to end. One that is ignored, as nohup has it, stays so."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop.ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
