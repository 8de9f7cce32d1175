"""CSV sources: blocks of whole records, read by Arrow where Arrow and COPY agree, else by COPY's own rules.

Arrow's reader is fast but takes a quote as such only at a field's start, where COPY takes it anywhere. A block without
quotes, or with quotes only where RFC 4180 puts them, means the same to both; `_quoting_is_plain` is the test. Every
other block, and every block that Arrow refuses, goes through `csv_records`, which also knows where an error stands.
Fields stay text: what they mean is decided by the column they go into.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import types

from harborctl.errors import BadRow, Location, SourceError, UsageError
from harborctl.model import CsvDialect, ExtraFields, FileResult, ShortRows, SourceFormat
from harborctl.sources.agreement import (
    has_year_zero,
    holds_any,
    is_utf8,
    may_have_empty_lines,
    may_have_empty_rows,
    may_hold_hexadecimals,
)
from harborctl.sources.batch import RAW_COLUMN, REASON_COLUMNS, REJECT_COLUMNS, Batch, Original
from harborctl.sources.csv.records import (
    ByteDialect,
    LineEnd,
    Record,
    RecordEnds,
    blank_lines,
    field_texts,
    is_divided,
    line_ends,
    may_be_stray,
    may_have_blank_lines,
    plain_quoting,
    records,
    whole_records,
    without_line_end,
)
from harborctl.sources.encodings import codec_of
from harborctl.sources.first_bytes import ENOUGH, refuse_other_formats
from harborctl.sources.footer import Footer, WithoutFooter
from harborctl.sources.read_again import Block, PushedBack, Rereadable, by_block
from harborctl.sources.transcode import encoded, shown, undecodable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harborctl.sources.batch import Malformed
    from harborctl.sources.files import ByteStream, SourceFile

# While it reads CSV, Arrow takes signals for itself, and loses some that come near the end of a block: 5 of 1 076
# SIGTERMs. A block takes milliseconds: Python's own handlers can wait so long.
pa.enable_signal_handlers(False)

# Measured on lineitem: blocks of 0.25 MiB cost 15 % more client time; larger ones only hold memory.
BLOCK_BYTES = 512 * 1024

# A record that does not end is read on in pieces as large as what there is of it, but for the memory not larger.
READ_BYTES = 32 * 1024 * 1024

_NAMED_COLUMN = re.compile(r"^In CSV column #(\d+): ")

# PostgreSQL refuses a COPY line of 1 GiB and over (MaxAllocSize); a record that never ends must not eat the memory.
MAX_RECORD_BYTES = 1024 * 1024 * 1024 - 1

# What is kept of a line that is larger than the limit.
KEPT_OF_TOO_LARGE = 64 * 1024

BAD_COPY_FILE_FORMAT = "22P04"
CHARACTER_NOT_IN_REPERTOIRE = "22021"


class CsvSource:
    """A CSV file or pipe as text columns. See `Source` for the attributes.

    Attributes:
        named: whether the columns have names of their own; without them they are matched by position.
        line_end: what its first record ends in; None if nothing comes behind that.
    """

    line_end: LineEnd | None = None

    def __init__(self, file: SourceFile, dialect: CsvDialect, *, keep: bool = False) -> None:
        if file.format is SourceFormat.TSV and dialect.delimiter == ",":
            dialect = replace(dialect, delimiter="\t")
        self.name = file.name
        self.format = file.format
        self.size = file.size
        self._dialect = byte_dialect(dialect)
        # A record that stands in a field of a reject file, and that field.
        self._inner = replace(self._dialect, skip_blank=False)
        self._exact = replace(self._inner, trim=False)
        self._fills = dialect.short_rows is ShortRows.NULL
        self._cuts = dialect.extra_fields is ExtraFields.IGNORE
        self._null = dialect.nulls[0].encode() if dialect.nulls else b""
        self._footer: Footer | None = None
        self._encoding = dialect.encoding
        self._limit = dialect.max_record_bytes or MAX_RECORD_BYTES
        transcoded = None if codecs.lookup(dialect.encoding).name == "utf-8" else dialect.encoding
        self._file = Rereadable(file, transcoded, keep=keep)
        self._raw = self._file.raw
        self._text: ByteStream = self._file.text
        self._pending = b""
        # Where `_pending` stands in the text, and the blocks before it, for rows that are read again.
        self._offset = 0
        self._blocks: list[Block] = []
        self._malformed: Malformed | None = None
        self._wanted: Sequence[int] = ()
        self._line = 1
        self._rows = 0
        self._plain_quoting = plain_quoting(self._dialect)
        self._ends = RecordEnds(self._dialect)
        self._direct: Mapping[int, pa.DataType] = {}
        self._simple_blocks = 1
        self._doubtful_blocks = 0
        try:
            self._read_start(dialect)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        if not self._dialect.trim:  # what is between white space Arrow reads as other numbers than PostgreSQL
            self._direct = {column: arrow for column, arrow in zip(columns, direct, strict=False) if arrow is not None}
        self._malformed = malformed
        self._wanted = columns
        while True:
            offset, line = self._offset, self._line
            batch = self._simple_batch(columns) or self._careful_batch(columns)
            if batch is not None:
                yield self._noted(batch, offset, line, complete=True)
            if self._fill():
                continue
            if not self._pending:
                break
            offset, line = self._offset, self._line
            if self._ends.inside:
                # Before a copy is made of what may be most of the file.
                self._pass_over_line(self._unterminated(self._line))
                continue
            text, self._pending = self._pending, b""
            self._offset += len(text)
            batch = self._batch(text, self._quoting_is_plain(text), columns)
            yield self._noted(batch, offset, line, complete=False)

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        wanted = {}

        def blocks() -> Iterator[Block]:
            for block, inside in by_block(self._blocks, rows):
                wanted[block.offset] = inside
                yield block

        for block, text in self._file.blocks(blocks()):
            yield from self._originals(block, text, wanted.pop(block.offset))

    def _noted(self, batch: Batch, offset: int, line: int, *, complete: bool) -> Batch:
        if self._malformed is not None and batch.records.num_rows:
            plain = complete and self._line - line == batch.records.num_rows
            self._blocks.append(Block(self._rows, offset, self._offset - offset, line, plain))
            batch = replace(batch, row_of=partial(int.__add__, self._rows))
        self._rows += batch.records.num_rows
        return batch

    def _originals(self, block: Block, text: bytes, wanted: list[int]) -> Iterator[Original]:
        if block.plain:
            lines = text.splitlines() if b"\r" in text else text.split(b"\n")
            for row in wanted:
                yield Original(block.first_line + row, self._own_text(lines[row]))
            return
        rows, row, line, behind = iter(wanted), 0, block.first_line, 0
        looked_for = next(rows, None)
        for record in whole_records(text, self._dialect, self.line_end, len(self.schema)):
            line += line_ends(text, behind, record.start)
            behind = record.start
            record_text = without_line_end(text[record.start : record.end], self.line_end)
            try:
                self._checked(record, record_text, line)
            except BadRow:
                continue
            if row == looked_for:
                yield Original(line, self._own_text(record_text))
                looked_for = next(rows, None)
            row += 1

    def position(self) -> int:
        """See `Source.position`."""
        return self._raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return self._file.result(self.name, self._rows)

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()
        self._pending = b""

    def divisible_from(self) -> int | None:
        """Where in the file its first record begins, before any has been read; None where quotes do not tell, from any
        record's start, where records end, or bytes of the text are not bytes of the file."""
        is_file = self._file.text is self._file.raw and self.size is not None
        if not is_file or self._dialect.escape != self._dialect.quote:
            return None
        return self._offset

    def divisible_to(self, file: SourceFile) -> int:
        """Where in such a file its last record ends."""
        size = self.size or 0
        return size if self._footer is None else self._footer.place_in(file, size)

    # -- the start of the file

    def _read_start(self, given: CsvDialect) -> None:
        dialect = self._begun(given)
        for _ in range(dialect.skip_lines):
            self._take_line()
        first = self._first_record()
        if first is not None and self._pending[first.start : first.end].endswith((b"\n", b"\r")):
            self.line_end = LineEnd.of(self._pending[first.start : first.end])
            self._ends = RecordEnds(self._dialect, self.line_end)
        if first is None:
            if dialect.header:
                raise SourceError(
                    f"{self.name} is empty: not even a header",
                    code="empty_file",
                    hint="A file without a header line is read with --no-header.",
                )
            names = list(dialect.columns)
        elif dialect.header:
            names = [_header_name(field) for field in first.fields]
            self._take(first.end)
        else:
            names = [f"column {number}" for number in range(1, len(first.fields) + 1)]
        self.named = dialect.header or bool(dialect.columns)
        if dialect.columns:
            self._check_columns(dialect, len(names))
            names = list(dialect.columns)
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])
        self._own = [position for position, name in enumerate(names) if name not in REJECT_COLUMNS]
        self._raw_column = names.index(RAW_COLUMN) if RAW_COLUMN in names else None

    def _begun(self, dialect: CsvDialect) -> CsvDialect:
        """Read the first block, and see what it is of; the dialect of that."""
        while self._fill() and len(self._pending) < ENOUGH and not re.search(rb"[\r\n]", self._pending):
            pass  # of a pipe a little at a time may come
        if not codecs.lookup(self._encoding).name.startswith(("utf-16", "utf-32")):
            refuse_other_formats(self.name, encoded(self._pending, self._encoding)[:ENOUGH])
        if self._pending.startswith(codecs.BOM_UTF8):
            self._pending = self._pending.removeprefix(codecs.BOM_UTF8)
            self._offset = len(codecs.BOM_UTF8)
        if self._is_reject_file():  # it has a header, whatever the source had that its rows are from
            dialect = replace(dialect, header=True, columns=(), skip_lines=0, skip_footer=0)
        if dialect.skip_footer:
            blank = b" \t".replace(self._dialect.delimiter, b"") if dialect.skip_blank_lines else None
            self._footer = Footer(dialect.skip_footer, blank)
            self._text = WithoutFooter(PushedBack(self._pending, self._text), self._footer)
            self._pending = b""
            self._fill()
        return dialect

    def _check_columns(self, dialect: CsvDialect, count: int) -> None:
        """Whether `--columns` names as many as the first record has. Without a header that is a row like others."""
        wanted, is_row = len(dialect.columns), not dialect.header
        may_differ = is_row and (self._fills if count < wanted else self._cuts)
        if count != wanted and not may_differ:
            raise UsageError(f"--columns names {wanted} columns, but {self.name} has {count}", code="column_count")

    def _is_reject_file(self) -> bool:
        line = re.split(rb"[\r\n]", self._pending[:BLOCK_BYTES], maxsplit=1)[0]
        if REASON_COLUMNS[0].encode() not in line:
            return False
        names = next(records(line, self._dialect)).fields
        return {name.encode() for name in REASON_COLUMNS}.issubset(names)

    def _first_record(self) -> Record | None:
        dialect = replace(self._dialect, nulls=frozenset())  # a column may be called like NULL's spelling
        while True:
            record = next(records(self._pending, dialect), None)
            complete = record is not None and record.closed and record.end < len(self._pending)
            if complete or not self._fill():
                break
        if record is not None and not record.closed:
            raise self._unterminated(self._line)
        return record

    def _take_line(self) -> None:
        while not (match := re.search(rb"\r\n|\n|\r(?=.)", self._pending, re.DOTALL)):
            if not self._fill():
                self._take(len(self._pending))
                return
        self._take(match.end())

    def _take(self, count: int) -> None:
        self._line += line_ends(self._pending, 0, count)
        self._pending = self._pending[count:]
        self._offset += count

    def _fill(self) -> bool:
        """Read on; False at the end of the file."""
        if len(self._pending) > self._limit:
            self._pass_over_line(self._too_large(self._line))
        return self._read_on()

    def _read_on(self) -> bool:
        try:
            data = self._text.read(min(max(BLOCK_BYTES, len(self._pending)), READ_BYTES))
        except OSError as error:
            raise SourceError(
                f"{self.name} cannot be read: {error.strerror or error}", code="unreadable_file"
            ) from error
        self._pending += data
        return bool(data)

    # -- blocks of whole records

    def _simple_batch(self, columns: Sequence[int]) -> Batch | None:
        """What is pending up to its last line end, if that proves to be records of one line each.

        The proof costs next to nothing because it looks at what Arrow made of the text. No line end in any value: so
        each record is one line, and the text ends where a record does. No quote in any value: so every quote opened or
        closed a field, which means to COPY what it means to Arrow. No row without any value: so no line is empty.
        None is no verdict, only doubt.
        """
        cut = self._pending.rfind(b"\n") + 1
        if (
            not cut
            or self.line_end is LineEnd.CR
            or self._ends.seen
            or self._doubtful_blocks > self._simple_blocks
            or self._raw_column is not None
        ):
            return None
        text = self._pending[:cut]
        if self._dialect.skip_blank and may_have_blank_lines(text):
            return None
        batch = self._records_if_simple(text, columns) if len(text) <= self._limit else None
        if batch is None:
            self._doubtful_blocks += 1
            return None
        self._simple_blocks += 1
        self._pending = self._pending[cut:]
        self._offset += cut
        first_line = self._line
        self._line += batch.num_rows
        as_read = partial(self._arrow_batch, text, columns, ignore_empty_lines=False) if self._direct else None
        return Batch(batch, self.name, partial(int.__add__, first_line), as_read)

    def _records_if_simple(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch | None:
        dialect = self._dialect
        has_quotes = dialect.holds_quotes(text)
        if has_quotes and (len(columns) != len(self.schema) or dialect.escape != dialect.quote):
            return None
        if text.startswith(codecs.BOM_UTF8) or b"" not in dialect.nulls:
            return None  # Arrow would drop the mark; an empty line would not be told from empty fields
        is_crlf = self.line_end is LineEnd.CRLF
        if (is_crlf or b"\r" in text) and not text.count(b"\r") == text.count(b"\r\n") == text.count(b"\n"):
            return None
        batch = self._directly_read(text, columns, self._safely_direct(text))
        if batch is None:
            return None
        is_doubtful = (
            (len(self.schema) > 1 and may_have_empty_rows(batch))
            or any(types.is_date(column.type) and has_year_zero(column) for column in batch.columns)
            or (has_quotes and any(holds_any(column, (dialect.quote, b"\n", b"\r")) for column in batch.columns))
        )
        if is_doubtful:
            return None
        try:
            return self._trimmed(batch, text) if dialect.trim else batch
        except pa.ArrowInvalid:
            return None

    def _directly_read(
        self, text: bytes, columns: Sequence[int], direct: Mapping[int, pa.DataType]
    ) -> pa.RecordBatch | None:
        """The block with the `direct` columns converted. Where bad rows are put aside, one bad date must not send its
        block, and those after it, the slow way: then without the column that Arrow names, else without any.

        A column with a bad value is likely to have more of them. It is read as text from there on: that costs less than
        to read a block twice.
        """
        fewer = direct
        while True:
            try:
                return self._arrow_batch(text, columns, ignore_empty_lines=False, direct=fewer)
            except pa.ArrowInvalid as error:
                if not fewer or self._malformed is None:
                    return None
                named = _NAMED_COLUMN.search(str(error))
                bad = int(named[1]) if named and fewer is direct else None
                fewer = {n: arrow for n, arrow in direct.items() if n != bad} if bad in direct else {}
                self._direct = {n: arrow for n, arrow in self._direct.items() if n != bad}

    def _safely_direct(self, text: bytes) -> Mapping[int, pa.DataType]:
        """The columns that Arrow may read as numbers and dates at once, where it takes no more than PostgreSQL does.

        Elsewhere it takes more: decimals like 1e+-1, integers like 0xFFFFFFFF (for -1). Days of the year 0 are found
        once they are read.
        """
        doubtful = [(b"+" in text, types.is_decimal), (may_hold_hexadecimals(text), types.is_integer)]
        refused = [is_kind for is_doubtful, is_kind in doubtful if is_doubtful]
        if not refused:
            return self._direct
        return {n: arrow for n, arrow in self._direct.items() if not any(is_kind(arrow) for is_kind in refused)}

    def _careful_batch(self, columns: Sequence[int]) -> Batch | None:
        """What is pending up to its last record's end, whatever it is made of."""
        cut = self._ends.last(self._pending)
        if cut and self.line_end is LineEnd.CRLF and not self._pending.endswith(b"\r\n", 0, cut):
            cut = self._undivided(cut)
        if not cut:
            return None
        text, self._pending = self._pending[:cut], self._pending[cut:]
        self._offset += cut
        return self._batch(text, self._quoting_is_plain(text), columns)

    def _undivided(self, cut: int) -> int:
        """Where lines end in CRLF, and the last one that is complete in LF: the last place that surely is no part of a
        record, which is known by the records before and behind it; 0 if there is none yet."""
        behind, width = cut, len(self.schema)
        while place := RecordEnds(self._dialect, LineEnd.LF).last(self._pending[: behind - 1]):
            start = RecordEnds(self._dialect, LineEnd.LF).last(self._pending[: place - 1])
            text = self._pending[start:behind]
            pair = list(records(text, self._dialect, LineEnd.CRLF))
            if len(pair) == 2 and not is_divided(text, pair[0], pair[1], width):
                return place
            behind = place
        return 0

    def _quoting_is_plain(self, text: bytes) -> bool:
        """Whether every quote stands where RFC 4180 puts it, and none is left open."""
        dialect = self._dialect
        if dialect.escape != dialect.quote and dialect.escape in text:
            return False
        return not dialect.holds_quotes(text) or self._plain_quoting.fullmatch(text) is not None

    # -- one block

    def _batch(self, text: bytes, is_plain: bool, columns: Sequence[int]) -> Batch:
        first_line = self._line
        # Arrow takes these bytes for a mark of the encoding wherever a block happens to start.
        is_plain = is_plain and not may_be_stray(text, self._dialect.quote, self.line_end, len(self.schema))
        if is_plain and not text.startswith(codecs.BOM_UTF8) and self._raw_column is None and len(text) <= self._limit:
            try:
                batch = self._read_with_arrow(self._without_blank_lines(text), columns)
            except pa.ArrowInvalid:
                pass  # the slow reader says where and what, or finds that COPY would take it
            else:
                one_each = not self._dialect.skip_blank and not self._dialect.holds_quotes(text)
                self._line += batch.num_rows if one_each else line_ends(text)
                if self._line - first_line == batch.num_rows:
                    return Batch(batch, self.name, partial(int.__add__, first_line))
                return Batch(batch, self.name, partial(self._line_of_record, text, first_line))
        return self._read_slowly(text, columns)

    def _line_of_record(self, text: bytes, first_line: int, row: int) -> int:
        for number, record in enumerate(records(text, self._dialect, self.line_end)):
            if number == row:
                return first_line + line_ends(text, 0, record.start)
        raise IndexError(row)

    def _without_blank_lines(self, text: bytes) -> bytes:
        """The text for Arrow, which does not pass over lines of spaces.

        Raises:
            pa.ArrowInvalid: they may stand in quotes.
        """
        if not self._dialect.skip_blank or not may_have_blank_lines(text):
            return text
        if self._dialect.holds_quotes(text):
            raise pa.ArrowInvalid("blank lines, or quotes around them")
        at_line_start = rb"(?:\A|(?<=" + (self.line_end or LineEnd.LF).last_byte + b"))(?:"
        return re.sub(at_line_start + blank_lines(self._dialect, self.line_end).pattern + b")", b"", text)

    def _trimmed(self, batch: pa.RecordBatch, text: bytes) -> pa.RecordBatch:
        """The batch that Arrow has made of the text, its fields without white space around them.

        Raises:
            pa.ArrowInvalid: what is left spells NULL, and it is not known whether it had quotes.
        """
        nulls = pa.array([null.decode() for null in self._dialect.nulls], pa.string())
        arrays = []
        for array in batch.columns:
            trimmed = pc.ascii_trim_whitespace(array)
            spells_null = pc.and_not(pc.is_in(trimmed, value_set=nulls), pc.is_in(array, value_set=nulls))
            if pc.any(spells_null).as_py():
                if self._dialect.holds_quotes(text):
                    raise pa.ArrowInvalid("NULL, or its spelling in quotes")
                trimmed = pc.if_else(spells_null, pa.scalar(None, pa.string()), trimmed)
            arrays.append(trimmed)
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def _read_with_arrow(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch:
        batch = self._all_records(text, columns)
        return self._trimmed(batch, text) if self._dialect.trim else batch

    def _all_records(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch:
        # To COPY an empty line is a record of one empty field: a row of a one-column file, an error in any other.
        # Arrow would make a row of NULLs of it, or pass over it, as told.
        if len(self.schema) == 1:
            return self._arrow_batch(text, columns, ignore_empty_lines=False)
        batch = self._arrow_batch(text, columns, ignore_empty_lines=True)
        if may_have_empty_lines(text):
            with_empty_lines = self._arrow_batch(text, columns[:1], ignore_empty_lines=False)
            if with_empty_lines.num_rows != batch.num_rows:
                raise pa.ArrowInvalid("empty line")
        return batch

    def _arrow_batch(
        self,
        text: bytes,
        columns: Sequence[int],
        *,
        ignore_empty_lines: bool,
        direct: Mapping[int, pa.DataType] | None = None,
    ) -> pa.RecordBatch:
        dialect = self._dialect
        if not text.endswith((b"\n", b"\r")):
            text += b"\n"  # at the end of its input Arrow takes an empty field for quoted if the one before it was
        taken = {str(column): (direct or {}).get(column, pa.string()) for column in columns}
        table = arrow_csv.read_csv(
            pa.BufferReader(text),
            arrow_csv.ReadOptions(
                use_threads=False,
                block_size=len(text) + 1,
                column_names=[str(position) for position in range(len(self.schema))],
            ),
            arrow_csv.ParseOptions(
                delimiter=dialect.delimiter.decode(),
                quote_char=dialect.quote.decode() or False,
                double_quote=dialect.escape == dialect.quote,
                newlines_in_values=True,
                ignore_empty_lines=ignore_empty_lines,
            ),
            arrow_csv.ConvertOptions(
                column_types=taken,
                null_values=[null.decode() for null in dialect.nulls],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=list(taken),
                check_utf8=not text.isascii(),
            ),
        )
        return _one_batch(table)

    def _read_slowly(self, text: bytes, columns: Sequence[int]) -> Batch:
        rows: list[list[bytes | None]] = []
        lines: list[int] = []
        behind = 0
        all_utf8 = is_utf8(text)
        for record in whole_records(text, self._dialect, self.line_end, len(self.schema)):
            self._line += line_ends(text, behind, record.start)
            behind = record.start
            record_text = text[record.start : record.end]
            if not record.closed:
                # Only at the end of the file. What is behind its first line may be good records.
                self._offset -= len(record_text)
                self._pending = record_text
                self._pass_over_line(self._unterminated(self._line), len(rows))
                text = text[: record.start]
                break
            try:
                fields = self._checked(record, record_text, self._line)
            except BadRow as error:
                if self._malformed is None:
                    raise
                self._hand_over(error, record, record_text, len(rows))
                continue
            if not all_utf8 and self._malformed is None:
                self._check_characters(record_text, fields, self._line)
            rows.append(fields)
            lines.append(self._line)
        self._line += line_ends(text, behind)
        arrays = [self._text_array([row[column] for row in rows], column, lines) for column in columns]
        batch = pa.RecordBatch.from_arrays(arrays, names=[str(column) for column in columns])
        return Batch(batch, self.name, lines.__getitem__)

    def _checked(self, record: Record, text: bytes, line: int) -> list[bytes | None]:
        """The record's fields, one for each column.

        Raises:
            BadRow: it has too many or too few, or where rows are told apart anyway, a value is not of the encoding.
        """
        fields = record.fields
        if record.end - record.start > self._limit:
            raise self._too_large(line)
        self._check_line_ends(record, text, line)
        if raw := self._raw_of(record, text):
            text = raw
            inner = next(records(text, self._inner, LineEnd.LF))
            if not inner.closed:
                raise self._unterminated(line)
            stray = inner.stray or text[inner.end - 1 : inner.end] * (inner.end < len(text))
            self._check_line_ends(replace(inner, stray=stray), text, line)
            fields = [None] * len(self.schema)
            for position, field in zip(self._own, self._fitted(inner.fields, line, self._own), strict=True):
                fields[position] = field
        fields = self._fitted(fields, line, range(len(self.schema)))
        if self._malformed is not None and undecodable(text, self._encoding) is not None:
            for column in self._wanted:
                self._text_array([fields[column]], column, [line])
            self._check_characters(text, fields, line)
        return fields

    def _raw_of(self, record: Record, text: bytes) -> bytes | None:
        """Of a record of a reject file, the text of one that could not be told into fields. Where no quotes hold it
        together, it is all that is behind the other columns."""
        if self._raw_column is None:
            return None
        if not self._dialect.quote:
            return self._dialect.delimiter.join(
                field_texts(without_line_end(text, self.line_end), self._exact)[self._raw_column :]
            )
        if len(record.fields) != len(self.schema):
            return None
        exact = next(records(text, self._exact)) if self._dialect.trim else record
        return exact.fields[self._raw_column]

    def _fitted(self, fields: list[bytes | None], line: int, columns: Sequence[int]) -> list[bytes | None]:
        """A field for each column, as far as the dialect lets records have too few or too many."""
        if len(fields) < len(columns) and self._fills:
            return [*fields, *[None] * (len(columns) - len(fields))]
        if len(fields) > len(columns) and self._cuts:
            return fields[: len(columns)]
        self._check_width(fields, line, columns)
        return fields

    def _hand_over(self, error: BadRow, record: Record, text: bytes, before: int) -> None:
        """Give a bad record to whoever takes them."""
        if self._malformed is None:
            raise error
        splits = len(record.fields) == len(self.schema) and not record.stray
        if raw := self._raw_of(record, text):
            self._malformed(error, self._rows + before, raw, splits=False)
            return
        text = without_line_end(text, self.line_end)
        self._malformed(error, self._rows + before, self._own_text(text) if splits else text, splits=splits)

    def _own_text(self, text: bytes) -> bytes:
        """A record without the columns that a reject file adds."""
        if len(self._own) == len(self.schema):
            return text if not (self._fills or self._cuts) else self._of_width(text, self._own)
        if self._raw_column is not None and (raw := self._raw_of(next(records(text, self._exact)), text)):
            return self._of_width(raw, range(len(self._own)))
        return self._of_width(text, self._own)

    def _of_width(self, text: bytes, columns: Sequence[int]) -> bytes:
        """The fields of a record at these positions, as they are written; NULL for those that it lacks."""
        fields = field_texts(text, self._exact)
        missing = max(columns) + 1 - len(fields)
        if missing > 0:
            fields += [self._null] * missing
        return self._dialect.delimiter.join(fields[position] for position in columns)

    def _pass_over_line(self, error: BadRow, before: int = 0) -> None:
        """Hand over the first line of a record that does not end, and go on behind it."""
        if self._malformed is None:
            raise error
        last_byte = (self.line_end or LineEnd.LF).last_byte
        found = self._pending.find(last_byte) + 1
        end = found or len(self._pending)
        kept = end if end <= self._limit else KEPT_OF_TOO_LARGE
        first_line = without_line_end(self._pending[:kept], self.line_end)
        self._malformed(error, self._rows + before, first_line, splits=False)
        self._take(end)
        while not found and (self._pending or self._read_on()):
            found = self._pending.find(last_byte) + 1
            self._take(found or len(self._pending))
        # What is left may be most of the file: it is read on in blocks.
        self._text = PushedBack(self._pending, self._text)
        self._pending = b""
        self._ends.restart()

    def _text_array(self, values: list[bytes | None], column: int, lines: list[int]) -> pa.Array:
        try:
            return pa.array(values, pa.binary()).cast(pa.string())
        except pa.ArrowInvalid as invalid:
            for value, line in zip(values, lines, strict=True):
                if (broken := undecodable(value or b"", self._encoding)) is not None:
                    raise BadRow(
                        f"the bytes {broken.hex(' ')} are not {self._encoding.upper()}",
                        code=CHARACTER_NOT_IN_REPERTOIRE,
                        location=Location(self.name, line),
                        column=self.schema.field(column).name,
                        value=shown(value or b""),
                        hint="Say what the file is written in, for example --encoding latin-1 or --encoding cp1252.",
                    ) from invalid
            raise AssertionError("Arrow and Python disagree on UTF-8") from invalid

    def _check_characters(self, record: bytes, fields: list[bytes | None], line: int) -> None:
        """Refuse a character with a quote between its bytes: without it, they would be one. COPY looks at the encoding
        before it looks for quotes. Other broken bytes are told by the field that holds them."""
        broken = undecodable(record, "utf-8")
        if broken is not None and not any(undecodable(field or b"", "utf-8") for field in fields):
            raise BadRow(
                f"the bytes {broken.hex(' ')} are not UTF-8",
                code=CHARACTER_NOT_IN_REPERTOIRE,
                location=Location(self.name, line),
                value=shown(record),
                hint="Look for a quote inside a character.",
            )

    def _check_line_ends(self, record: Record, text: bytes, line: int) -> None:
        if not record.stray:
            return
        what = "newline" if record.stray == b"\n" else "carriage return"
        usual = {
            LineEnd.LF: "a newline",
            LineEnd.CRLF: "carriage return and newline",
            LineEnd.CR: "a carriage return",
            None: "a newline",
        }
        raise BadRow(
            f"unquoted {what} found in data: lines of this file end in {usual[self.line_end]}",
            code=BAD_COPY_FILE_FORMAT,
            location=Location(self.name, line),
            value=shown(without_line_end(text, self.line_end)),
            hint="Put quotes around the field that it is in, or let all lines of the file end alike.",
        )

    def _check_width(self, fields: list[bytes | None], line: int, columns: Sequence[int]) -> None:
        if len(fields) == len(columns):
            return
        location = Location(self.name, line)
        if len(fields) < len(columns):
            missing = self.schema.field(columns[len(fields)]).name
            raise BadRow(
                f"missing data for column {missing}: the record has {len(fields)} fields, not {len(columns)}",
                code=BAD_COPY_FILE_FORMAT,
                location=location,
                column=missing,
                value=self._shown(fields),
            )
        raise BadRow(
            f"extra data after the last column: the record has {len(fields)} fields, not {len(columns)}",
            code=BAD_COPY_FILE_FORMAT,
            location=location,
            value=self._shown(fields),
            hint="A delimiter inside a field needs quotes around the field.",
        )

    def _too_large(self, line: int) -> BadRow:
        return BadRow(
            f"this record is larger than {self._limit:,} bytes",
            code="54000",
            location=Location(self.name, line),
            hint="Look for a quote that is never closed. If it is really one record, raise the limit with"
            " --max-record-bytes.",
        )

    def _shown(self, fields: list[bytes | None]) -> str:
        return shown(self._dialect.delimiter.join(field or b"" for field in fields))

    def _unterminated(self, line: int) -> BadRow:
        return BadRow(
            "a quoted field that starts in this record is never closed",
            code=BAD_COPY_FILE_FORMAT,
            location=Location(self.name, line),
            hint="Check the record's quotes; --quote changes the quote character.",
        )


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.to_batches()
    if len(batches) > 1:
        batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _header_name(field: bytes | None) -> str:
    return shown(field or b"")


def byte_dialect(dialect: CsvDialect) -> ByteDialect:
    """The dialect's characters as bytes.

    Raises:
        UsageError: they cannot be told apart, or are not one byte each.
    """
    codec_of(dialect.encoding)
    escape = dialect.quote if dialect.escape is None else dialect.escape
    characters = [("delimiter", dialect.delimiter), ("quote", dialect.quote), ("escape", escape)]
    if not dialect.quote and escape:
        raise UsageError("--escape means nothing without quotes", code="bad_dialect", hint="Leave it out.")
    for option, character in characters if dialect.quote else characters[:1]:
        if len(character.encode()) != 1 or character in "\r\n":
            raise UsageError(f"--{option} takes one single-byte character, not {character!r}", code="bad_dialect")
    if dialect.delimiter == dialect.quote:
        raise UsageError("--delimiter must differ from --quote", code="bad_dialect")
    if dialect.decimal not in {".", ","}:
        raise UsageError(f"--decimal takes a point or a comma, not {dialect.decimal!r}", code="bad_dialect")
    if dialect.force_not_null and len(dialect.nulls) > 1:
        raise UsageError(
            "--force-not-null keeps the text that is NULL elsewhere, and --null names several",
            code="bad_dialect",
            hint="Say --null once.",
        )
    for null in dialect.nulls:
        special = (dialect.delimiter, *dialect.quote, "\r", "\n")
        if any(character in null for character in special):
            raise UsageError("--null must not contain the delimiter, the quote or a line end", code="bad_dialect")
    return ByteDialect(
        dialect.delimiter.encode(),
        dialect.quote.encode(),
        escape.encode(),
        # Between white space that is left out there is no spelling that begins or ends with some.
        frozenset(null for null in (n.encode() for n in dialect.nulls) if not dialect.trim or null == null.strip()),
        dialect.trim,
        dialect.skip_blank_lines,
    )
