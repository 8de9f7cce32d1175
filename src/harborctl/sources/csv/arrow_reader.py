"""Blocks of CSV as Arrow reads them, where it provably reads what COPY would. Else they are refused, without a verdict.

Arrow takes a quote as such only at a field's start, where COPY takes it anywhere. A block without quotes, or with
quotes only where RFC 4180 puts them, means the same to both.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import types

from harborctl.sources.agreement import (
    has_year_zero,
    holds_any,
    may_have_empty_lines,
    may_have_empty_rows,
    may_hold_hexadecimals,
)
from harborctl.sources.csv.records import LineEnd, blank_lines, may_be_stray, may_have_blank_lines, plain_quoting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harborctl.sources.csv.records import ByteDialect

# While it reads CSV, Arrow takes signals for itself, and loses some that come near the end of a block: 5 of 1 076
# SIGTERMs. A block takes milliseconds: Python's own handlers can wait so long.
pa.enable_signal_handlers(False)

_NAMED_COLUMN = re.compile(r"^In CSV column #(\d+): ")


class ArrowReader:
    """Reads blocks of one file.

    Args:
        width: how many columns the file has.
        direct: the columns that may be read as another type than text.
        tolerant: bad rows are put aside, and must not send others the slow way.
    """

    def __init__(
        self,
        dialect: ByteDialect,
        line_end: LineEnd | None,
        width: int,
        direct: Mapping[int, pa.DataType],
        *,
        tolerant: bool,
    ) -> None:
        self._dialect = dialect
        self._line_end = line_end
        self._width = width
        # What is between white space Arrow reads as other numbers than PostgreSQL.
        self._direct = {} if dialect.trim else direct
        self._tolerant = tolerant
        self._plain_quoting = plain_quoting(dialect)

    @property
    def converts(self) -> bool:
        """Whether blocks may come with other types than text."""
        return bool(self._direct)

    def lines(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch | None:
        """The text, if it proves to be records of one line each; None is no verdict, only doubt.

        The proof costs next to nothing because it looks at what Arrow made of the text. No line end in any value: so
        each record is one line, and the text ends where a record does. No quote in any value: so every quote opened or
        closed a field, which means to COPY what it means to Arrow. No row without any value: so no line is empty.
        """
        dialect = self._dialect
        has_quotes = dialect.holds_quotes(text)
        if has_quotes and (len(columns) != self._width or dialect.escape != dialect.quote):
            return None
        if text.startswith(codecs.BOM_UTF8) or b"" not in dialect.nulls:
            return None  # Arrow would drop the mark; an empty line would not be told from empty fields
        is_crlf = self._line_end is LineEnd.CRLF
        if (is_crlf or b"\r" in text) and not text.count(b"\r") == text.count(b"\r\n") == text.count(b"\n"):
            return None
        batch = self._directly_read(text, columns, self._safely_direct(text))
        if batch is None:
            return None
        is_doubtful = (
            (self._width > 1 and may_have_empty_rows(batch))
            or any(types.is_date(column.type) and has_year_zero(column) for column in batch.columns)
            or (has_quotes and any(holds_any(column, (dialect.quote, b"\n", b"\r")) for column in batch.columns))
        )
        if is_doubtful:
            return None
        try:
            return self._trimmed(batch, text) if dialect.trim else batch
        except pa.ArrowInvalid:
            return None

    def records(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch | None:
        """Whole records of any form. None is no verdict: COPY might take them."""
        # Arrow takes these bytes for a mark of the encoding wherever a block happens to start.
        if not self._quoting_is_plain(text) or text.startswith(codecs.BOM_UTF8):
            return None
        if may_be_stray(text, self._dialect.quote, self._line_end, self._width):
            return None
        try:
            text = self._without_blank_lines(text)
            batch = self._all_records(text, columns)
            return self._trimmed(batch, text) if self._dialect.trim else batch
        except pa.ArrowInvalid:
            return None

    def texts(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch:
        """A block that `lines` took, every field as text."""
        return self._arrow_batch(text, columns, ignore_empty_lines=False)

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
                if not fewer or not self._tolerant:
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

    def _quoting_is_plain(self, text: bytes) -> bool:
        """Whether every quote stands where RFC 4180 puts it, and none is left open."""
        dialect = self._dialect
        if dialect.escape != dialect.quote and dialect.escape in text:
            return False
        return not dialect.holds_quotes(text) or self._plain_quoting.fullmatch(text) is not None

    def _without_blank_lines(self, text: bytes) -> bytes:
        """The text for Arrow, which does not pass over lines of spaces.

        Raises:
            pa.ArrowInvalid: they may stand in quotes.
        """
        if not self._dialect.skip_blank or not may_have_blank_lines(text):
            return text
        if self._dialect.holds_quotes(text):
            raise pa.ArrowInvalid("blank lines, or quotes around them")
        at_line_start = rb"(?:\A|(?<=" + (self._line_end or LineEnd.LF).last_byte + b"))(?:"
        return re.sub(at_line_start + blank_lines(self._dialect, self._line_end).pattern + b")", b"", text)

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

    def _all_records(self, text: bytes, columns: Sequence[int]) -> pa.RecordBatch:
        # To COPY an empty line is a record of one empty field: a row of a one-column file, an error in any other.
        # Arrow would make a row of NULLs of it, or pass over it, as told.
        if self._width == 1:
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
                column_names=[str(position) for position in range(self._width)],
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


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.to_batches()
    if len(batches) > 1:
        batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
