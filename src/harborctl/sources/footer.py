"""The lines at the end of a text file that are none of its records: totals, signatures, notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harborctl.sources.files import open_bytes

if TYPE_CHECKING:
    from harborctl.sources.files import ByteStream, SourceFile

SCAN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Footer:
    """The last lines of a file, whatever quotes stand in them.

    Attributes:
        lines: how many.
        blank: what a line that does not count is made of; None if all count.
    """

    lines: int
    blank: bytes | None = None

    def start(self, text: bytes) -> int:
        """Where it starts in the end of a file; 0 if there is too little of that."""
        left, start = self.lines, len(text)
        while left and start:
            end = start - 1 if text.endswith((b"\n", b"\r"), start - 1, start) else start
            end -= text.endswith(b"\r\n", 0, start)
            start = text.rfind(b"\n", 0, end) + 1
            start = max(start, text.rfind(b"\r", start, end) + 1)
            left -= self.blank is None or text[start:end].strip(self.blank) != b""
        return start

    def place_in(self, file: SourceFile, size: int) -> int:
        """Where it starts in a file that is not compressed, read from the end."""
        window = SCAN_BYTES
        with open_bytes(file) as raw:
            while True:
                begin = max(size - window, 0)
                raw.seek(begin)
                text = b""
                while len(text) < size - begin and (data := raw.read(size - begin - len(text))):
                    text += data
                start = self.start(text)
                # A CR before the window may belong to an LF that begins it.
                if start > 1 or not begin:
                    return begin + start
                window *= 4


class WithoutFooter:
    """A stream without the footer. Keeps back as many lines as that has, and no more."""

    def __init__(self, text: ByteStream, footer: Footer) -> None:
        self._text = text
        self._footer = footer
        self._kept = b""

    def read(self, size: int, /) -> bytes:
        """About `size` bytes; none at the end only."""
        while data := self._text.read(size):
            # What is kept back begins with a line, and the end of it may be half of a CRLF.
            self._kept += data
            if start := self._footer.start(self._kept):
                ready, self._kept = self._kept[:start], self._kept[start:]
                return ready
        return b""
