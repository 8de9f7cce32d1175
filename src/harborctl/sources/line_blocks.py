"""A stream of text in blocks of whole lines, for formats in which a record is a line."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harborctl.sources.read_again import PushedBack

if TYPE_CHECKING:
    from harborctl.sources.files import ByteStream

BLOCK_BYTES = 512 * 1024

# What is kept of a line that is larger than the limit.
KEPT_OF_TOO_LONG = 64 * 1024


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines: their text, its place in the file, and the number of the first of them; or the start of one line
    that is too long."""

    text: bytes
    offset: int
    line: int
    too_long: bool = False


class LineBlocks:
    """A stream of text in stretches of whole lines.

    Attributes:
        line, offset: of what comes next.
    """

    def __init__(self, stream: ByteStream, limit: int, line: int = 1, offset: int = 0) -> None:
        self._stream = stream
        self._limit = limit
        self._pending: list[bytes] = []
        self.line = line
        self.offset = offset

    def take_pending(self) -> bytes:
        """What was read and not handed on."""
        pending, self._pending = b"".join(self._pending), []
        return pending

    def next(self) -> LineBlock | None:
        """The next one; None at the end."""
        size = sum(map(len, self._pending))
        while data := self._stream.read(BLOCK_BYTES):
            cut = data.rfind(b"\n") + 1
            if cut:
                text = b"".join([*self._pending, data[:cut]])
                self._pending = [data[cut:]]
                return self._handed_on(text)
            self._pending.append(data)
            size += len(data)
            if size > self._limit:
                return self._too_long(size)
        text = self.take_pending()
        return self._handed_on(text) if text else None

    def _handed_on(self, text: bytes) -> LineBlock:
        if not self.offset and text.startswith(codecs.BOM_UTF8):
            self.offset = len(codecs.BOM_UTF8)
            text = text.removeprefix(codecs.BOM_UTF8)
        stretch = LineBlock(text, self.offset, self.line)
        self.offset += len(text)
        self.line += text.count(b"\n")
        return stretch

    def _too_long(self, size: int) -> LineBlock:
        """Pass over the rest of a line, without keeping it."""
        text = b"".join(self._pending[:2])[:KEPT_OF_TOO_LONG]
        self._pending = []
        stretch = LineBlock(text, self.offset, self.line, too_long=True)
        while (data := self._stream.read(BLOCK_BYTES)) and b"\n" not in data:
            size += len(data)
        cut = data.find(b"\n") + 1
        self._stream = PushedBack(data[cut:], self._stream)
        self.offset += size + cut
        self.line += 1
        return stretch
