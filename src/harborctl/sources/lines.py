"""Sources in which a record is a line and its fields stand by their place: COPY's text format and fixed width.

Blocks in which all is as it should be become columns at once; in others each line is looked at, for its error's sake.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from harborctl.errors import BadRow, Location, SourceError
from harborctl.sources.agreement import is_utf8
from harborctl.sources.batch import Batch, Original, nobody
from harborctl.sources.csv.records import csv_record
from harborctl.sources.line_blocks import KEPT_OF_TOO_LONG, LineBlock, LineBlocks
from harborctl.sources.read_again import Block, Rereadable, by_block
from harborctl.sources.transcode import shown, undecodable
from harborctl.sqlstate import CHARACTER_NOT_IN_REPERTOIRE, PROGRAM_LIMIT_EXCEEDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.model import CsvDialect, FileResult, SourceFormat
    from harborctl.sources.batch import Malformed
    from harborctl.sources.files import SourceFile

# As of CSV: the server takes no larger record.
MAX_RECORD_BYTES = 1024 * 1024 * 1024 - 1


class BadLine(ValueError):
    """A line is not of the format.

    Attributes:
        code: SQLSTATE.
        fields: what could be told of it.
    """

    def __init__(self, message: str, *, code: str, hint: str | None = None, fields: Sequence[str | None] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.fields = fields


class LineFormat(Protocol):
    """How lines are made of fields.

    Attributes:
        source_format: the format.
        names: of the columns; without them they go by position. Known once `skips` has said no.
        width: how many columns there are, likewise.
    """

    source_format: SourceFormat
    names: Sequence[str]
    width: int

    def skips(self, line: str) -> bool:
        """Whether this line, of those at the start, is before the first row."""

    def unbegun(self) -> str | None:
        """Why a file in which every line was skipped is wrong."""

    def end(self, text: bytes) -> int | None:
        """Where in these whole lines the rows end, before the file does."""

    def refuse_rest(self, line: str) -> None:
        """Look at a line behind the end of the rows.

        Raises:
            BadLine: it may hold rows.
        """

    def columns(self, text: bytes) -> Sequence[pa.Array] | None:
        """Every field of these whole lines of UTF-8, a string array a column; None where lines need to be looked at."""

    def fields(self, line: str) -> Sequence[str | None] | None:
        """The fields of a line; None for a line that is passed over.

        Raises:
            BadLine: it is not of the format.
        """


class LineSource:
    """A file of lines as text columns. See `Source` for the attributes."""

    def __init__(self, file: SourceFile, dialect: CsvDialect, lines: LineFormat, *, keep: bool = False) -> None:
        self.name = file.name
        self.size = file.size
        self.format = lines.source_format
        self._lines = lines
        self._encoding = dialect.encoding
        self._limit = dialect.max_record_bytes or MAX_RECORD_BYTES
        transcoded = None if codecs.lookup(dialect.encoding).name == "utf-8" else dialect.encoding
        self._file = Rereadable(file, transcoded, keep=keep)
        self._rows = 0
        self._blocks: list[Block] = []
        self._malformed: Malformed | None = None
        self._text = LineBlocks(self._file.text, self._limit)
        try:
            self._first = self._begun()
        except BaseException:  # Ctrl-C, too
            self.close()
            raise
        self.named = bool(lines.names)
        names = lines.names or [f"column {number}" for number in range(1, lines.width + 1)]
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        self._malformed = malformed
        block, self._first = self._first, None
        while block is not None:
            end = self._lines.end(block.text)
            rows = block if end is None else LineBlock(block.text[:end], block.offset, block.line)
            yield self._batch(rows, columns)
            if end is not None:
                self._look_behind(LineBlock(block.text[end:], block.offset + end, block.line + rows.text.count(b"\n")))
                break
            block = self._text.next()

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`: the records as CSV."""
        self._malformed = nobody
        for block, text, inside in self._file.blocks(by_block(self._blocks, rows)):
            entries = self._entries(LineBlock(text, block.offset, block.first_line))
            for row in inside:
                yield Original(entries[row].line, csv_record(entries[row].fields))

    def position(self) -> int:
        """See `Source.position`."""
        return self._file.raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return self._file.result(self.name, self._rows)

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()

    def _begun(self) -> LineBlock | None:
        """The first block that holds rows, from the first of them."""
        while (block := self._text.next()) is not None:
            offset, line = 0, block.line
            while offset < len(block.text):
                end = block.text.find(b"\n", offset) + 1 or len(block.text)
                if not self._lines.skips(_readable(block.text[offset:end])):
                    return LineBlock(block.text[offset:], block.offset + offset, line, block.too_long)
                offset, line = end, line + 1
        if (why := self._lines.unbegun()) is not None:
            raise SourceError(f"{self.name} {why}", code="empty_file")
        return None

    def _look_behind(self, block: LineBlock | None) -> None:
        while block is not None:
            for number, line in enumerate(block.text.split(b"\n"), start=block.line):
                try:
                    self._lines.refuse_rest(_readable(line))
                except BadLine as error:
                    raise self._bad(error, number, line) from error
            block = self._text.next()

    def _batch(self, block: LineBlock, columns: Sequence[int]) -> Batch:
        simple = not block.too_long and len(block.text) <= self._limit and is_utf8(block.text)
        found = self._lines.columns(block.text) if simple and block.text else None
        if found is not None:
            lines: Sequence[int] = range(block.line, block.line + len(found[0]))
        else:
            entries = self._entries(block)
            lines = [entry.line for entry in entries]
            found = [pa.array([entry.fields[place] for entry in entries], pa.string()) for place in range(self._width)]
        arrays = [found[column] for column in columns]
        records = pa.RecordBatch.from_arrays(arrays, names=[str(column) for column in columns])
        if lines:
            self._blocks.append(Block(self._rows, block.offset, len(block.text), block.line, plain=False))
        row_of = partial(int.__add__, self._rows)
        self._rows += len(lines)
        return Batch(records, self.name, lines.__getitem__, row_of=row_of)

    @property
    def _width(self) -> int:
        return len(self.schema)

    def _entries(self, block: LineBlock) -> list[_Entry]:
        entries: list[_Entry] = []
        lines = block.text.split(b"\n")
        if not lines[-1]:
            del lines[-1]
        for number, line in enumerate(lines, start=block.line):
            try:
                fields = self._fields(line, too_long=block.too_long)
            except BadLine as error:
                bad = self._bad(error, number, line)
                if self._malformed is None:
                    raise bad from error
                record = csv_record(error.fields or [shown(line[:KEPT_OF_TOO_LONG])])
                self._malformed(bad, self._rows + len(entries), record, splits=False)
            else:
                if fields is not None:
                    entries.append(_Entry(fields, number))
        return entries

    def _fields(self, line: bytes, *, too_long: bool) -> Sequence[str | None] | None:
        if too_long or len(line) > self._limit:
            raise BadLine(
                f"this line is larger than {self._limit:,} bytes",
                code=PROGRAM_LIMIT_EXCEEDED,
                hint="If it is really one record, raise the limit with --max-record-bytes.",
            )
        if (broken := undecodable(line, self._encoding)) is not None:
            raise BadLine(
                f"the bytes {broken.hex(' ')} are not {self._encoding.upper()}",
                code=CHARACTER_NOT_IN_REPERTOIRE,
                hint="Say what the file is written in, for example --encoding latin-1 or --encoding cp1252.",
            )
        return self._lines.fields(line.decode())

    def _bad(self, error: BadLine, number: int, line: bytes) -> BadRow:
        return BadRow(
            str(error), code=error.code, location=Location(self.name, number), value=shown(line[:200]), hint=error.hint
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """The fields of a row, and its line."""

    fields: Sequence[str | None]
    line: int


def _readable(line: bytes) -> str:
    """A line as text, whatever it holds."""
    return line.decode(errors="replace").rstrip("\r\n")
