"""A regular file mapped into memory: what lies there is not read into buffers, and given back as it is done with.

Of a file that is cut off meanwhile the system says so by a signal, so ask `check_unchanged` before looking.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.sources.files import check_unchanged, open_bytes

if TYPE_CHECKING:
    from harborctl.sources.files import SourceFile

# So much has been read when the pages are given back. They count as memory of the process, though they cost nobody.
RESIDENT_BYTES = 8 * 1024 * 1024


class Mapped:
    """The bytes of a file. They stay mapped as long as an array lies in them."""

    def __init__(self, file: SourceFile) -> None:
        """Raises ValueError if it is empty."""
        self._file = file
        with open_bytes(file) as raw:
            self._map = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
        self._resident = 0

    def reader(self) -> pa.BufferReader:
        """All of them, for Arrow."""
        return pa.BufferReader(pa.py_buffer(self._map))

    def check(self) -> None:
        """Raises SourceChanged if it is another file by now."""
        check_unchanged([self._file])

    def done_with(self, count: int) -> None:
        """So many bytes have been read, and are not needed any more. Who looks again gets them again."""
        self._resident += count
        if self._resident > RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._resident = 0
