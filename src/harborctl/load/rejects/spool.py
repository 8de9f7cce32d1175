"""Bad rows, put aside: which they are and why, on disk as soon as they are many. Nothing here knows a file format.

They come in any order and from two threads. What they are in their source is read again at the end, when all of them
are known: then the source is passed over once, and a load without bad rows has kept nothing.
"""

from __future__ import annotations

import pickle
import tempfile
import threading
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.errors import HarborctlError
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.row_numbers import SOURCE_FACTOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.load.write.bad_row import Note
    from harborctl.sources.batch import Malformed, Original, Source

KEPT_IN_MEMORY = 8 * 1024 * 1024

# A column's name, and how many of that name stand before it.
ColumnKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Malformation:
    """A record that is not of its format; see `Malformed` for the fields."""

    line: int
    text: bytes
    splits: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected row, as it stands in its source."""

    source: int
    line: int
    reason: Reason
    original: Malformation | Original


class EnoughRejects(HarborctlError):
    """There are as many bad rows as anybody wants to know of."""


class Rejects:
    """All bad rows of a load.

    Attributes:
        most: with so many the load ends.
        malformed: by the position of a source, how many of its records it could not hand on, and has not counted.
        has_raw: there are records that could not be told into fields.
    """

    def __init__(self, most: int | None = None) -> None:
        # Per row twice its number, and 1 where it is no record without form that stands before the row.
        self._keys = array("q")
        self._places = array("q")
        self._entries = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)  # noqa: SIM115  # closed by close()
        self._lock = threading.Lock()
        self.malformed: dict[int, int] = {}
        self.has_raw = False
        self.most = most

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, number: int, reason: Reason) -> None:
        """Put aside the row with this number."""
        self._write(2 * number + 1, (reason, None))

    def noter(self, source: int) -> Note:
        """Whoever takes bad rows of the source at this position."""
        return lambda batch, row, reason: self.add(source * SOURCE_FACTOR + batch.row_of(row), reason)

    def taker(self, source: int) -> Malformed:
        """Whoever takes what is malformed in the source at this position."""

        def take(error: HarborctlError, before: int, record: bytes, *, splits: bool) -> None:
            self.malformed[source] = self.malformed.get(source, 0) + 1
            self.has_raw |= not splits
            line = error.location.line if error.location else 0
            self._write(2 * (source * SOURCE_FACTOR + before), (Reason.of(error), Malformation(line, record, splits)))

        return take

    def read(self, sources: Sequence[Source]) -> Iterator[Rejected]:
        """All of them, in load order, as they stand in their sources."""
        order = pc.sort_indices(pa.array(self._keys, pa.int64()))  # stable
        originals: Iterator[Original] = iter(())
        reading = -1
        for index in _numbers(order):
            key = self._keys[index]
            source, _ = divmod(key // 2, SOURCE_FACTOR)
            if source != reading:
                reading = source
                originals = sources[source].originals(self._rows_of(source, order))
            self._entries.seek(self._places[index])
            reason, malformation = pickle.load(self._entries)  # noqa: S301  # our own, in a file without a name
            original = malformation or next(originals)
            yield Rejected(source, original.line, reason, original)

    def close(self) -> None:
        """Forget them."""
        self._entries.close()

    def _rows_of(self, source: int, order: pa.Array) -> Iterator[int]:
        for index in _numbers(order):
            key = self._keys[index]
            of, row = divmod(key // 2, SOURCE_FACTOR)
            if key % 2 and of == source:
                yield row

    def _write(self, key: int, entry: tuple[Reason, Malformation | None]) -> None:
        with self._lock:
            self._keys.append(key)
            self._places.append(self._entries.tell())
            pickle.dump(entry, self._entries)
            if self.most is not None and len(self._keys) >= self.most:
                raise EnoughRejects("there are more bad rows than are to be found")


def told_apart(names: Iterable[str]) -> list[ColumnKey]:
    """A key for each column; names may repeat."""
    seen: dict[str, int] = {}
    keys = []
    for name in names:
        keys.append((name, seen.get(name, 0)))
        seen[name] = keys[-1][1] + 1
    return keys


def _numbers(order: pa.Array) -> Iterator[int]:
    for start in range(0, len(order), 8192):
        yield from order.slice(start, 8192).to_pylist()
