"""The text of a CSV source as blocks of whole records: what is read ahead, where it stands, where it may be cut."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harborctl.errors import SourceError
from harborctl.sources.csv.records import LineEnd, RecordEnds, is_divided, line_ends, records, without_line_end
from harborctl.sources.footer import WithoutFooter
from harborctl.sources.read_again import PushedBack

if TYPE_CHECKING:
    from harborctl.sources.csv.records import ByteDialect
    from harborctl.sources.files import ByteStream
    from harborctl.sources.footer import Footer

# Measured on lineitem: blocks of 0.25 MiB cost 15 % more client time; larger ones only hold memory.
BLOCK_BYTES = 512 * 1024

# A record that does not end is read on in pieces as large as what there is of it, but for the memory not larger.
MOST_BLOCKS = 64

# What is kept of a line that is larger than the limit.
KEPT_OF_TOO_LARGE = 64 * 1024


class Splitter:
    """Cuts text into blocks of whole records. Whoever takes a block counts its lines.

    Attributes:
        pending: what has been read and not taken.
        offset: where that stands in the text.
        line: the physical line at which it starts.
        line_end: what the first record ends in; None if nothing comes behind that.
    """

    line_end: LineEnd | None = None

    def __init__(self, text: ByteStream, name: str, dialect: ByteDialect, block_bytes: int | None) -> None:
        self._text = text
        self._name = name
        self._dialect = dialect
        self._block_bytes = block_bytes or BLOCK_BYTES
        self._ends = RecordEnds(dialect)
        self._width = 0
        self.pending = b""
        self.offset = 0
        self.line = 1

    @property
    def inside(self) -> bool:
        """Whether what is pending ends in quotes."""
        return self._ends.inside

    def end_lines_as(self, record: bytes, width: int) -> None:
        """Take the line end of the first record for that of all, which have so many fields."""
        self.line_end = LineEnd.of(record)
        self._width = width
        self._ends = RecordEnds(self._dialect, self.line_end)

    def leave_out(self, footer: Footer) -> None:
        """Read nothing of the footer."""
        self._text = WithoutFooter(PushedBack(self.pending, self._text), footer)
        self.pending = b""

    def read_on(self) -> bool:
        """Have more pending; False at the end of the text."""
        try:
            data = self._text.read(min(max(self._block_bytes, len(self.pending)), MOST_BLOCKS * self._block_bytes))
        except OSError as error:
            raise SourceError(
                f"{self._name} cannot be read: {error.strerror or error}", code="unreadable_file"
            ) from error
        self.pending += data
        return bool(data)

    def take(self, count: int) -> bytes:
        """So many bytes; their lines are not counted yet."""
        text = self.pending[:count]
        self.drop(count)
        return text

    def drop(self, count: int) -> None:
        """As `take`, for whoever has the text already."""
        self.pending = self.pending[count:]
        self.offset += count

    def put_back(self, text: bytes) -> None:
        """Have text pending again which was taken last of all."""
        self.offset -= len(text)
        self.pending = text + self.pending

    def pass_over(self, count: int) -> None:
        """Take so many bytes, and count their lines."""
        self.line += line_ends(self.pending, 0, count)
        self.drop(count)

    def first_line(self) -> int:
        """How long the first line is that is pending; 0 if its end is not."""
        match = re.search(rb"\r\n|\n|\r(?=.)", self.pending, re.DOTALL)
        return match.end() if match else 0

    def whole_lines(self) -> bytes:
        """What is pending up to its last line end, if no record is known to end behind quotes there; it stays."""
        if self.line_end is LineEnd.CR or self._ends.seen:
            return b""
        return self.pending[: self.pending.rfind(b"\n") + 1]

    def take_records(self) -> bytes:
        """What is pending up to its last record's end, whatever it is made of."""
        cut = self._ends.last(self.pending)
        if cut and self.line_end is LineEnd.CRLF and not self.pending.endswith(b"\r\n", 0, cut):
            cut = self._undivided(cut)
        return self.take(cut)

    def _undivided(self, cut: int) -> int:
        """Where lines end in CRLF, and the last one that is complete in LF: the last place that surely is no part of a
        record, which is known by the records before and behind it; 0 if there is none yet."""
        behind = cut
        while place := RecordEnds(self._dialect, LineEnd.LF).last(self.pending[: behind - 1]):
            start = RecordEnds(self._dialect, LineEnd.LF).last(self.pending[: place - 1])
            text = self.pending[start:behind]
            pair = list(records(text, self._dialect, LineEnd.CRLF))
            if len(pair) == 2 and not is_divided(text, pair[0], pair[1], self._width):
                return place
            behind = place
        return 0

    def start_of_line(self, limit: int) -> bytes:
        """The first line that is pending; of one that is larger than the limit what is kept of it."""
        end = self.pending.find(self._last_byte) + 1 or len(self.pending)
        return without_line_end(self.pending[: end if end <= limit else KEPT_OF_TOO_LARGE], self.line_end)

    def skip_line(self) -> None:
        """Go on behind the first line, as if a record began there."""
        while not (found := self.pending.find(self._last_byte) + 1):
            self.pass_over(len(self.pending))
            if not self.read_on():
                break
        self.pass_over(found)
        # What is left may be most of the file: it is read on in blocks.
        self._text = PushedBack(self.pending, self._text)
        self.pending = b""
        self._ends.restart()

    @property
    def _last_byte(self) -> bytes:
        return (self.line_end or LineEnd.LF).last_byte
