"""Read ahead: run an iteration in a thread, so that reading and encoding overlap with the socket."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")

# What waits for the socket, in items and in bytes. Measured on lineitem: 4 keep the socket busy; more only holds
# memory, and so do large ones. A second thread, for encoding alone, made loads slower on two cores: the server needs
# one of them whole.
QUEUE_LENGTH = 4
QUEUE_BYTES = 6 * 1024 * 1024

# How long the thread is given to end.
END_SECONDS = 0.5


class _Queue(Generic[Item]):
    """What has been made and not yet taken; an entry is (item, None), (None, error) or the end, (None, None)."""

    def __init__(self, size: Callable[[Item], int]) -> None:
        self._size = size
        self._entries: deque[tuple[Item | None, BaseException | None]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._unwanted = False

    def put(self, item: Item | None, error: BaseException | None = None) -> bool:
        """Wait until there is room, and whether anybody wants more."""
        size = self._size(item) if item is not None else 0
        with self._changed:
            self._changed.wait_for(lambda: self._unwanted or self._has_room(size))
            self._entries.append((item, error))
            self._bytes += size
            self._changed.notify_all()
            return not self._unwanted

    def _has_room(self, size: int) -> bool:
        waiting = len(self._entries)
        return not waiting or (waiting < QUEUE_LENGTH and self._bytes + size <= QUEUE_BYTES)

    def taken(self) -> Iterator[Item]:
        """The items, as they come."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._entries)
                item, error = self._entries.popleft()
                self._bytes -= self._size(item) if item is not None else 0
                self._changed.notify_all()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def give_up(self) -> None:
        """Nobody wants more."""
        with self._changed:
            self._unwanted = True
            self._changed.notify_all()


@contextmanager
def read_ahead(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[Iterator[Item]]:
    """The same items in the same order, made by a thread up to `QUEUE_LENGTH` and `QUEUE_BYTES` ahead; `size` is in
    bytes.

    What the iteration raises is raised here, in its place. Leaving the block ends the thread; one that is stuck in a
    read is left behind and dies with the process.
    """
    waiting = _Queue(size)

    def produce() -> None:
        try:
            for item in items:
                if not waiting.put(item):
                    return
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, who raises it
            waiting.put(None, error)

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield waiting.taken()
    finally:
        waiting.give_up()
        thread.join(timeout=END_SECONDS)
