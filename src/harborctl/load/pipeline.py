"""Read ahead: run an iteration in a thread, so that reading and encoding overlap with the socket."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Item = TypeVar("Item")

# Blocks in flight. Measured on lineitem: 4 keeps the socket busy; more only holds memory. A second thread, for encoding
# alone, made loads slower on two cores: the server needs one of them whole.
QUEUE_LENGTH = 4

# How often the thread looks whether anybody wants more, and how long it is given to end.
STOP_INTERVAL_SECONDS = 0.1
END_SECONDS = 0.5


@contextmanager
def read_ahead(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """The same items in the same order, made by a thread up to `QUEUE_LENGTH` ahead.

    What the iteration raises is raised here, in its place. Leaving the block ends the thread; one that is stuck in a
    read is left behind and dies with the process.
    """
    # Each entry is (item, None), (None, error) or the end, (None, None).
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(QUEUE_LENGTH)
    unwanted = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not unwanted.is_set():
            try:
                waiting.put(entry, timeout=STOP_INTERVAL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, None))
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, who raises it
            put((None, error))

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield _consumed(waiting)
    finally:
        unwanted.set()
        thread.join(timeout=END_SECONDS)


def _consumed(waiting: queue.Queue[tuple[Item | None, BaseException | None]]) -> Iterator[Item]:
    while True:
        item, error = waiting.get()
        if error is not None:
            raise error
        if item is None:
            return
        yield item
