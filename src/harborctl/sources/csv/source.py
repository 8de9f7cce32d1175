"""CSV sources: blocks of whole records, read by Arrow where Arrow and COPY agree, else by COPY's own rules.

`splitter` cuts the text into blocks, `arrow_reader` reads those that mean the same to both, and `exact_reader` the
others, record by record; it also knows what is wrong with one. Fields stay text: what they mean is decided by the
column they go into.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import BadRow, SourceError, UsageError
from harborctl.model import CsvDialect, ExtraFields, FileResult, ShortRows, SourceFormat
from harborctl.sources.agreement import is_utf8
from harborctl.sources.batch import REASON_COLUMNS, Batch, Original
from harborctl.sources.csv.arrow_reader import ArrowReader
from harborctl.sources.csv.dialect import byte_dialect
from harborctl.sources.csv.exact_reader import MAX_RECORD_BYTES, ExactReader, too_large, unterminated
from harborctl.sources.csv.records import (
    Record,
    line_ends,
    may_have_blank_lines,
    records,
    whole_records,
    without_line_end,
)
from harborctl.sources.csv.splitter import BLOCK_BYTES, Splitter
from harborctl.sources.first_bytes import ENOUGH, refuse_other_formats
from harborctl.sources.footer import Footer
from harborctl.sources.read_again import Block, Rereadable, by_block
from harborctl.sources.transcode import encoded, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.sources.batch import Malformed
    from harborctl.sources.csv.records import LineEnd
    from harborctl.sources.files import SourceFile


class CsvSource:
    """A CSV file or pipe as text columns. See `Source` for the attributes.

    Attributes:
        named: whether the columns have names of their own; without them they are matched by position.
    """

    def __init__(
        self, file: SourceFile, dialect: CsvDialect, *, keep: bool = False, block_bytes: int | None = None
    ) -> None:
        if file.format is SourceFormat.TSV and dialect.delimiter == ",":
            dialect = replace(dialect, delimiter="\t")
        self.name = file.name
        self.format = file.format
        self.size = file.size
        self._dialect = byte_dialect(dialect)
        self._footer: Footer | None = None
        self._limit = dialect.max_record_bytes or MAX_RECORD_BYTES
        transcoded = None if codecs.lookup(dialect.encoding).name == "utf-8" else dialect.encoding
        self._file = Rereadable(file, transcoded, keep=keep)
        self._split = Splitter(self._file.text, file.name, self._dialect, block_bytes)
        # The blocks before what is pending, for rows that are read again.
        self._blocks: list[Block] = []
        self._malformed: Malformed | None = None
        self._wanted: Sequence[int] = ()
        self._rows = 0
        self._simple_blocks = 1
        self._doubtful_blocks = 0
        try:
            names = self._read_start(dialect)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])
        self._exact = ExactReader(file.name, names, dialect, self._dialect, self.line_end)

    @property
    def line_end(self) -> LineEnd | None:
        """What its first record ends in; None if nothing comes behind that."""
        return self._split.line_end

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        self._malformed = malformed
        self._wanted = columns
        types = {column: arrow for column, arrow in zip(columns, direct, strict=False) if arrow is not None}
        arrow = ArrowReader(self._dialect, self.line_end, len(self.schema), types, tolerant=malformed is not None)
        split = self._split
        while True:
            offset, line = split.offset, split.line
            batch = self._simple_batch(arrow)
            if batch is None and (text := split.take_records()):
                batch = self._batch(text, arrow)
            if batch is not None:
                yield self._noted(batch, offset, line, complete=True)
            if self._fill():
                continue
            if not split.pending:
                break
            offset, line = split.offset, split.line
            if split.inside:
                # Before a copy is made of what may be most of the file.
                self._pass_over_line(unterminated(self.name, line))
                continue
            yield self._noted(self._batch(split.take(len(split.pending)), arrow), offset, line, complete=False)

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        for block, text, inside in self._file.blocks(by_block(self._blocks, rows)):
            yield from self._originals(block, text, inside)

    def _noted(self, batch: Batch, offset: int, line: int, *, complete: bool) -> Batch:
        if self._malformed is not None and batch.records.num_rows:
            plain = complete and self._split.line - line == batch.records.num_rows
            self._blocks.append(Block(self._rows, offset, self._split.offset - offset, line, plain))
            batch = replace(batch, row_of=partial(int.__add__, self._rows))
        self._rows += batch.records.num_rows
        return batch

    def _originals(self, block: Block, text: bytes, wanted: list[int]) -> Iterator[Original]:
        if block.plain:
            lines = text.splitlines() if b"\r" in text else text.split(b"\n")
            for row in wanted:
                yield Original(block.first_line + row, self._exact.own_text(lines[row]))
            return
        rows, row, line, behind = iter(wanted), 0, block.first_line, 0
        looked_for = next(rows, None)
        for record in whole_records(text, self._dialect, self.line_end, len(self.schema)):
            line += line_ends(text, behind, record.start)
            behind = record.start
            record_text = without_line_end(text[record.start : record.end], self.line_end)
            try:
                self._exact.fields(record, record_text, line, self._wanted)
            except BadRow:
                continue
            if row == looked_for:
                yield Original(line, self._exact.own_text(record_text))
                looked_for = next(rows, None)
            row += 1

    def position(self) -> int:
        """See `Source.position`."""
        return self._file.raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return self._file.result(self.name, self._rows)

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()
        self._split.pending = b""

    def divisible_from(self) -> int | None:
        """Where in the file its first record begins, before any has been read; None where quotes do not tell, from any
        record's start, where records end, or bytes of the text are not bytes of the file."""
        is_file = self._file.text is self._file.raw and self.size is not None
        if not is_file or self._dialect.escape != self._dialect.quote:
            return None
        return self._split.offset

    def divisible_to(self, file: SourceFile) -> int:
        """Where in such a file its last record ends."""
        size = self.size or 0
        return size if self._footer is None else self._footer.place_in(file, size)

    # -- the start of the file

    def _read_start(self, given: CsvDialect) -> list[str]:
        """The names of the columns; what is pending then begins with the first row."""
        dialect = self._begun(given)
        split = self._split
        for _ in range(dialect.skip_lines):
            self._skip_line()
        first = self._first_record()
        text = b"" if first is None else split.pending[first.start : first.end]
        if first is None:
            if dialect.header:
                raise SourceError(
                    f"{self.name} is empty: not even a header",
                    code="empty_file",
                    hint="A file without a header line is read with --no-header.",
                )
            names = list(dialect.columns)
        elif dialect.header:
            names = [shown(field or b"") for field in first.fields]
            split.pass_over(first.end)
        else:
            names = [f"column {number}" for number in range(1, len(first.fields) + 1)]
        self.named = dialect.header or bool(dialect.columns)
        if dialect.columns:
            self._check_columns(dialect, len(names))
            names = list(dialect.columns)
        if text.endswith((b"\n", b"\r")):
            split.end_lines_as(text, len(names))
        return names

    def _begun(self, dialect: CsvDialect) -> CsvDialect:
        """Read the first block, and see what it is of; the dialect of that."""
        split = self._split
        while self._fill() and len(split.pending) < ENOUGH and not re.search(rb"[\r\n]", split.pending):
            pass  # of a pipe a little at a time may come
        if not codecs.lookup(dialect.encoding).name.startswith(("utf-16", "utf-32")):
            refuse_other_formats(self.name, encoded(split.pending, dialect.encoding)[:ENOUGH])
        if split.pending.startswith(codecs.BOM_UTF8):
            split.drop(len(codecs.BOM_UTF8))
        if self._is_reject_file():  # it has a header, whatever the source had that its rows are from
            dialect = replace(dialect, header=True, columns=(), skip_lines=0, skip_footer=0)
        if dialect.skip_footer:
            blank = b" \t".replace(self._dialect.delimiter, b"") if dialect.skip_blank_lines else None
            self._footer = Footer(dialect.skip_footer, blank)
            split.leave_out(self._footer)
            self._fill()
        return dialect

    def _check_columns(self, dialect: CsvDialect, count: int) -> None:
        """Whether `--columns` names as many as the first record has. Without a header that is a row like others."""
        wanted = len(dialect.columns)
        fits = dialect.short_rows is ShortRows.NULL if count < wanted else dialect.extra_fields is ExtraFields.IGNORE
        if count != wanted and not (fits and not dialect.header):
            raise UsageError(f"--columns names {wanted} columns, but {self.name} has {count}", code="column_count")

    def _is_reject_file(self) -> bool:
        line = re.split(rb"[\r\n]", self._split.pending[:BLOCK_BYTES], maxsplit=1)[0]
        if REASON_COLUMNS[0].encode() not in line:
            return False
        names = next(records(line, self._dialect)).fields
        return {name.encode() for name in REASON_COLUMNS}.issubset(names)

    def _first_record(self) -> Record | None:
        dialect = replace(self._dialect, nulls=frozenset())  # a column may be called like NULL's spelling
        while True:
            record = next(records(self._split.pending, dialect), None)
            complete = record is not None and record.closed and record.end < len(self._split.pending)
            if complete or not self._fill():
                break
        if record is not None and not record.closed:
            raise unterminated(self.name, self._split.line)
        return record

    def _skip_line(self) -> None:
        while not (end := self._split.first_line()):
            if not self._fill():
                end = len(self._split.pending)
                break
        self._split.pass_over(end)

    # -- blocks of whole records

    def _fill(self) -> bool:
        """Read on; False at the end of the file."""
        if len(self._split.pending) > self._limit:
            self._pass_over_line(too_large(self.name, self._split.line, self._limit))
        return self._split.read_on()

    def _simple_batch(self, arrow: ArrowReader) -> Batch | None:
        """What is pending up to its last line end, if that proves to be records of one line each. None is no verdict,
        only doubt."""
        if self._doubtful_blocks > self._simple_blocks or self._exact.raw_column is not None:
            return None
        text, split = self._split.whole_lines(), self._split
        if not text or (self._dialect.skip_blank and may_have_blank_lines(text)):
            return None
        batch = arrow.lines(text, self._wanted) if len(text) <= self._limit else None
        if batch is None:
            self._doubtful_blocks += 1
            return None
        self._simple_blocks += 1
        split.drop(len(text))
        first_line = split.line
        split.line += batch.num_rows
        as_read = partial(arrow.texts, text, self._wanted) if arrow.converts else None
        return Batch(batch, self.name, partial(int.__add__, first_line), as_read)

    def _batch(self, text: bytes, arrow: ArrowReader) -> Batch:
        """A block of whole records, whatever it is made of."""
        first_line = self._split.line
        fits = self._exact.raw_column is None and len(text) <= self._limit
        batch = arrow.records(text, self._wanted) if fits else None
        if batch is None:
            return self._read_slowly(text)
        one_each = not self._dialect.skip_blank and not self._dialect.holds_quotes(text)
        lines = batch.num_rows if one_each else line_ends(text)
        self._split.line += lines
        if lines == batch.num_rows:
            return Batch(batch, self.name, partial(int.__add__, first_line))
        return Batch(batch, self.name, partial(self._line_of_record, text, first_line))

    def _line_of_record(self, text: bytes, first_line: int, row: int) -> int:
        for number, record in enumerate(records(text, self._dialect, self.line_end)):
            if number == row:
                return first_line + line_ends(text, 0, record.start)
        raise IndexError(row)

    def _read_slowly(self, text: bytes) -> Batch:
        rows: list[list[bytes | None]] = []
        lines: list[int] = []
        behind = 0
        split, exact, tolerant = self._split, self._exact, self._malformed is not None
        all_utf8 = is_utf8(text)
        for record in whole_records(text, self._dialect, self.line_end, len(self.schema)):
            split.line += line_ends(text, behind, record.start)
            behind = record.start
            record_text = text[record.start : record.end]
            if not record.closed:
                # Only at the end of the file. What is behind its first line may be good records.
                split.put_back(record_text)
                self._pass_over_line(unterminated(self.name, split.line), len(rows))
                text = text[: record.start]
                break
            try:
                fields = exact.fields(record, record_text, split.line, self._wanted if tolerant else None)
            except BadRow as error:
                if self._malformed is None:
                    raise
                kept, splits = exact.kept(record, record_text)
                self._malformed(error, self._rows + len(rows), kept, splits=splits)
                continue
            if not all_utf8 and not tolerant:
                exact.check_characters(record_text, fields, split.line)
            rows.append(fields)
            lines.append(split.line)
        split.line += line_ends(text, behind)
        arrays = [exact.text_array([row[column] for row in rows], column, lines) for column in self._wanted]
        batch = pa.RecordBatch.from_arrays(arrays, names=[str(column) for column in self._wanted])
        return Batch(batch, self.name, lines.__getitem__)

    def _pass_over_line(self, error: BadRow, before: int = 0) -> None:
        """Hand over the first line of a record that does not end, and go on behind it."""
        if self._malformed is None:
            raise error
        self._malformed(error, self._rows + before, self._split.start_of_line(self._limit), splits=False)
        self._split.skip_line()
