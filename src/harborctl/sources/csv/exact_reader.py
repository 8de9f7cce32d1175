"""One record of CSV at a time, by COPY's own rules and what the dialect adds to them: its fields, or what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import BadRow, Location
from harborctl.model import ExtraFields, ShortRows
from harborctl.sources.batch import RAW_COLUMN, REJECT_COLUMNS
from harborctl.sources.csv.records import LineEnd, field_texts, records, without_line_end
from harborctl.sources.transcode import shown, undecodable
from harborctl.sqlstate import BAD_COPY_FILE_FORMAT, CHARACTER_NOT_IN_REPERTOIRE, PROGRAM_LIMIT_EXCEEDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.model import CsvDialect
    from harborctl.sources.csv.records import ByteDialect, Record

# PostgreSQL refuses a COPY line of 1 GiB and over (MaxAllocSize); a record that never ends must not eat the memory.
MAX_RECORD_BYTES = 1024 * 1024 * 1024 - 1


class ExactReader:
    """Reads records of one file.

    Attributes:
        limit: bytes of the largest record.
        raw_column: of a reject file, the column with records that could not be told into fields.
    """

    def __init__(
        self, file: str, names: Sequence[str], given: CsvDialect, dialect: ByteDialect, line_end: LineEnd | None
    ) -> None:
        self._file = file
        self._names = names
        self._width = len(names)
        self._dialect = dialect
        # A record that stands in a field of a reject file, and that field.
        self._inner = replace(dialect, skip_blank=False)
        self._exact = replace(self._inner, trim=False)
        self._line_end = line_end
        self._encoding = given.encoding
        self._fills = given.short_rows is ShortRows.NULL
        self._cuts = given.extra_fields is ExtraFields.IGNORE
        self._null = given.nulls[0].encode() if given.nulls else b""
        self._own = [position for position, name in enumerate(names) if name not in REJECT_COLUMNS]
        self.raw_column = names.index(RAW_COLUMN) if RAW_COLUMN in names else None
        self.limit = given.max_record_bytes or MAX_RECORD_BYTES

    def fields(
        self, record: Record, text: bytes, line: int, decoded: Sequence[int] | None = None
    ) -> list[bytes | None]:
        """The record's fields, one for each column.

        Raises:
            BadRow: it has too many or too few, or a value of the `decoded` columns is not of the encoding.
        """
        fields = record.fields
        if record.end - record.start > self.limit:
            raise too_large(self._file, line, self.limit)
        self._check_line_ends(record, text, line)
        if raw := self._raw_of(record, text):
            text = raw
            inner = next(records(text, self._inner, LineEnd.LF))
            if not inner.closed:
                raise unterminated(self._file, line)
            stray = inner.stray or text[inner.end - 1 : inner.end] * (inner.end < len(text))
            self._check_line_ends(replace(inner, stray=stray), text, line)
            fields = [None] * self._width
            for position, field in zip(self._own, self._fitted(inner.fields, line, self._own), strict=True):
                fields[position] = field
        fields = self._fitted(fields, line, range(self._width))
        if decoded is not None and undecodable(text, self._encoding) is not None:
            for column in decoded:
                self.text_array([fields[column]], column, [line])
            self.check_characters(text, fields, line)
        return fields

    def _raw_of(self, record: Record, text: bytes) -> bytes | None:
        """Of a record of a reject file, the text of one that could not be told into fields. Where no quotes hold it
        together, it is all that is behind the other columns."""
        if self.raw_column is None:
            return None
        if not self._dialect.quote:
            return self._dialect.delimiter.join(
                field_texts(without_line_end(text, self._line_end), self._exact)[self.raw_column :]
            )
        if len(record.fields) != self._width:
            return None
        exact = next(records(text, self._exact)) if self._dialect.trim else record
        return exact.fields[self.raw_column]

    def _fitted(self, fields: list[bytes | None], line: int, columns: Sequence[int]) -> list[bytes | None]:
        """A field for each column, as far as the dialect lets records have too few or too many."""
        if len(fields) < len(columns) and self._fills:
            return [*fields, *[None] * (len(columns) - len(fields))]
        if len(fields) > len(columns) and self._cuts:
            return fields[: len(columns)]
        self._check_width(fields, line, columns)
        return fields

    def kept(self, record: Record, text: bytes) -> tuple[bytes, bool]:
        """What is kept of a bad record, and whether that can be told into fields."""
        if raw := self._raw_of(record, text):
            return raw, False
        text = without_line_end(text, self._line_end)
        splits = len(record.fields) == self._width and not record.stray
        return self.own_text(text) if splits else text, splits

    def own_text(self, text: bytes) -> bytes:
        """A record without the columns that a reject file adds."""
        if len(self._own) == self._width:
            return text if not (self._fills or self._cuts) else self._of_width(text, self._own)
        if self.raw_column is not None and (raw := self._raw_of(next(records(text, self._exact)), text)):
            return self._of_width(raw, range(len(self._own)))
        return self._of_width(text, self._own)

    def _of_width(self, text: bytes, columns: Sequence[int]) -> bytes:
        """The fields of a record at these positions, as they are written; NULL for those that it lacks."""
        fields = field_texts(text, self._exact)
        missing = max(columns) + 1 - len(fields)
        if missing > 0:
            fields += [self._null] * missing
        return self._dialect.delimiter.join(fields[position] for position in columns)

    def text_array(self, values: list[bytes | None], column: int, lines: list[int]) -> pa.Array:
        """The fields of a column, of records that start at these lines, as `string`.

        Raises:
            BadRow: one is not of the encoding.
        """
        try:
            return pa.array(values, pa.binary()).cast(pa.string())
        except pa.ArrowInvalid as invalid:
            for value, line in zip(values, lines, strict=True):
                if (broken := undecodable(value or b"", self._encoding)) is not None:
                    raise BadRow(
                        f"the bytes {broken.hex(' ')} are not {self._encoding.upper()}",
                        code=CHARACTER_NOT_IN_REPERTOIRE,
                        location=Location(self._file, line),
                        column=self._names[column],
                        value=shown(value or b""),
                        hint="Say what the file is written in, for example --encoding latin-1 or --encoding cp1252.",
                    ) from invalid
            raise AssertionError("Arrow and Python disagree on UTF-8") from invalid

    def check_characters(self, record: bytes, fields: list[bytes | None], line: int) -> None:
        """Refuse a character with a quote between its bytes: without it, they would be one. COPY looks at the encoding
        before it looks for quotes. Other broken bytes are told by the field that holds them."""
        broken = undecodable(record, "utf-8")
        if broken is not None and not any(undecodable(field or b"", "utf-8") for field in fields):
            raise BadRow(
                f"the bytes {broken.hex(' ')} are not UTF-8",
                code=CHARACTER_NOT_IN_REPERTOIRE,
                location=Location(self._file, line),
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
            f"unquoted {what} found in data: lines of this file end in {usual[self._line_end]}",
            code=BAD_COPY_FILE_FORMAT,
            location=Location(self._file, line),
            value=shown(without_line_end(text, self._line_end)),
            hint="Put quotes around the field that it is in, or let all lines of the file end alike.",
        )

    def _check_width(self, fields: list[bytes | None], line: int, columns: Sequence[int]) -> None:
        if len(fields) == len(columns):
            return
        location = Location(self._file, line)
        if len(fields) < len(columns):
            missing = self._names[columns[len(fields)]]
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

    def _shown(self, fields: list[bytes | None]) -> str:
        return shown(self._dialect.delimiter.join(field or b"" for field in fields))


def too_large(file: str, line: int, limit: int) -> BadRow:
    """The record that starts there is."""
    return BadRow(
        f"this record is larger than {limit:,} bytes",
        code=PROGRAM_LIMIT_EXCEEDED,
        location=Location(file, line),
        hint="Look for a quote that is never closed. If it is really one record, raise the limit with"
        " --max-record-bytes.",
    )


def unterminated(file: str, line: int) -> BadRow:
    """The record that starts there has no end."""
    return BadRow(
        "a quoted field that starts in this record is never closed",
        code=BAD_COPY_FILE_FORMAT,
        location=Location(file, line),
        hint="Check the record's quotes; --quote changes the quote character.",
    )
