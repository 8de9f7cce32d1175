"""JSON Lines sources: one object a line; values as JSON, exactly as they are written.

A value's own text goes on: 1.10 stays 1.10. What it means is decided by the column that it goes into. A missing field
is NULL; a field that the table has no column for makes its line a bad record, unless every object at the start has it.
"""

from __future__ import annotations

import codecs
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import BadRow, Location
from harborctl.model import FileResult, SourceFormat
from harborctl.sources.agreement import is_utf8
from harborctl.sources.batch import RAW_COLUMN, REJECT_COLUMNS, Batch, Original, nobody
from harborctl.sources.files import HashingReader, open_bytes, open_content
from harborctl.sources.json_text import json_text
from harborctl.sources.json_values import (
    NULL,
    Fields,
    JsonValue,
    NotJson,
    column_of,
    fields_of,
    lines_of,
    scalar_texts,
    string_of,
)
from harborctl.sources.line_blocks import KEPT_OF_TOO_LONG, LineBlock, LineBlocks
from harborctl.sources.read_again import KEPT_IN_MEMORY, Block, PushedBack, Rereadable, by_block
from harborctl.sources.transcode import Utf8Reader, shown, undecodable
from harborctl.sqlstate import CHARACTER_NOT_IN_REPERTOIRE, INVALID_JSON_TEXT, PROGRAM_LIMIT_EXCEEDED, UNDEFINED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from harborctl.sources.batch import Malformed
    from harborctl.sources.files import ByteStream, SourceFile

# jsonb takes no more, and a gzip of half a megabyte can hold a line of half a gigabyte.
MAX_RECORD_BYTES = 256 * 1024 * 1024
LARGE_BYTES = 16 * 1024 * 1024

_BLANK = b" \t\r"


class JsonLinesSource:
    """A file of JSON objects, one a line, as columns of JSON values. See `Source` for the attributes.

    Until `settle` was called, the columns are the fields of the objects in the first stretch.

    Attributes:
        first_names: these fields.
    """

    named = True
    format = SourceFormat.JSONL

    def __init__(
        self,
        file: SourceFile,
        encoding: str = "utf-8",
        *,
        keep: bool = False,
        max_record_bytes: int | None = None,
        convert: Callable[[ByteStream], ByteStream] | None = None,
    ) -> None:
        """`convert`: makes lines of a text that is none, of a document."""
        self.name = file.name
        self.size = file.size
        self._source = file
        self._encoding = encoding
        self._transcoded = None if codecs.lookup(encoding).name == "utf-8" else encoding
        self._limit = max_record_bytes or MAX_RECORD_BYTES
        self._convert = convert
        self._file = Rereadable(file, self._transcoded, keep=keep, convert=convert)
        self._raw = self._file.raw
        self._rows = 0
        self._blocks: list[Block] = []
        self._malformed: Malformed | None = None
        self._ahead: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._common: set[str] | None = None
        try:
            self._line_blocks = LineBlocks(self._file.text, self._limit)
            self._first = self._line_blocks.next()
            names: dict[str, None] = {}
            for of_one in self._objects_names(self._first):
                names.update(dict.fromkeys(of_one))
                self._common = set(of_one) if self._common is None else self._common.intersection(of_one)
            self.first_names = tuple(names)
            self.settle(self.first_names)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def look_for(self, names: Collection[str]) -> list[str]:
        """See `WithoutHeader`: of these names those that some object of the file has, whatever their case, and what
        every object of the first stretch has.

        What turns up in no object of the first stretch is looked for in the rest of the file. Of a pipe that is kept in
        a temporary file.
        """
        folded = {name.lower() for name in names}
        known = [
            name
            for name in self.first_names
            if name in (self._common or ()) or name in REJECT_COLUMNS or name.lower() in folded
        ]
        if missing := folded.difference(name.lower() for name in self.first_names):
            known += [name for name in self._further_names(missing) if name not in known]
        return known

    def all_names(self) -> list[str]:
        """See `WithoutHeader`."""
        names = dict.fromkeys(self.first_names)
        for text in self._rest():
            for of_one in self._objects_names(LineBlock(text, 0, 0)):
                names.update(dict.fromkeys(of_one))
        return list(names)

    def settle(self, names: Iterable[str]) -> None:
        """See `WithoutHeader`."""
        self.schema = pa.schema([pa.field(name, JsonValue()) for name in names])
        self._known = frozenset(self.schema.names)

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`. Columns with a `direct` type hold the text of scalars, the others JSON."""
        self._malformed = malformed
        names = [self.schema.field(column).name for column in columns]
        as_text = [*direct, *[None] * len(names)]
        stretch, self._first = self._first, None
        while stretch is not None:
            rows, lines = self._parsed(stretch)
            arrays = [
                scalar_texts(values) if arrow is not None else values
                for values, arrow in zip((column_of(rows, name) for name in names), as_text, strict=False)
            ]
            records = pa.RecordBatch.from_arrays(arrays, names=[str(column) for column in columns])
            if rows:
                self._blocks.append(Block(self._rows, stretch.offset, len(stretch.text), stretch.line, plain=False))
            row_of = partial(int.__add__, self._rows)
            self._rows += len(rows)
            is_large = len(stretch.text) > LARGE_BYTES
            del stretch, rows, arrays
            if is_large:  # Arrow would keep what it needed for copies: as much as the record
                pa.default_memory_pool().release_unused()
            yield Batch(records, self.name, lines.__getitem__, row_of=row_of)
            stretch = self._line_blocks.next()

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        self._malformed = nobody
        for block, text, inside in self._file.blocks(by_block(self._blocks, rows)):
            entries = self._entries(LineBlock(text, block.offset, block.first_line))
            for row in inside:
                yield Original(entries[row].line, entries[row].text)

    def position(self) -> int:
        """See `Source.position`."""
        return self._raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return self._file.result(self.name, self._rows)

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()
        if self._ahead is not None:
            self._ahead.close()

    # -- the columns

    def _further_names(self, missing: set[str]) -> list[str]:
        """Which names that are these in lower case objects behind the first stretch have, in the file's spelling."""
        # With letters as they are, and as most programs write them.
        needles = {json.dumps(name, ensure_ascii=plain).lower().encode() for name in missing for plain in (True, False)}
        left, found = set(missing), dict[str, None]()
        for text in self._rest():
            # To look for bytes takes a tenth of the time of taking lines apart.
            lowered = text.lower()
            if any(needle in lowered for needle in needles):
                of_all = dict.fromkeys(name for of_one in self._objects_names(LineBlock(text, 0, 0)) for name in of_one)
                found |= {name: None for name in of_all if name.lower() in missing}
                left.difference_update(name.lower() for name in of_all)
            if not left and self._ahead is None:
                break
        return list(found)

    def _rest(self) -> Iterator[bytes]:
        """The text behind the first stretch in whole lines, without taking it from the stream of rows."""
        path = self._source.path
        if path is not None:
            raw = HashingReader(open_bytes(self._source), hashes=False)
            try:
                text = open_content(raw, self._source)
                stream = text if self._transcoded is None else Utf8Reader(text, self._transcoded, self.name)
                stretches = LineBlocks(stream if self._convert is None else self._convert(stream), self._limit)
                stretches.next()
                while (stretch := stretches.next()) is not None:
                    yield stretch.text
            finally:
                raw.close()
            return
        self._ahead = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)  # noqa: SIM115  # closed by close()
        kept = _Kept(PushedBack(self._line_blocks.take_pending(), self._file.text), self._ahead)
        line, offset = self._line_blocks.line, self._line_blocks.offset
        stretches = LineBlocks(kept, self._limit, line, offset)
        while (stretch := stretches.next()) is not None:
            yield stretch.text
        self._ahead.seek(0)
        self._line_blocks = LineBlocks(self._ahead, self._limit, line, offset)

    def _objects_names(self, stretch: LineBlock | None) -> Iterator[Collection[str]]:
        """The fields of each object, also where a line of a reject file is about a text that is none."""
        text = stretch.text if stretch is not None else b""
        rows = lines_of(text)
        if rows is not None and not any(RAW_COLUMN in row for row in rows):
            yield from rows
            return
        for line in text.split(b"\n"):
            with suppress(NotJson, UnicodeEncodeError):
                fields = fields_of(line)
                raw = _raw_text(fields)
                yield {*fields, *(fields_of(raw) if raw else ())}

    # -- one stretch

    def _parsed(self, stretch: LineBlock) -> tuple[Sequence[Fields], Sequence[int]]:
        """The objects of a stretch, and the lines at which they stand. Blank lines are passed over; what is not an
        object is bad, as is an object with a field that is no column."""
        is_simple = (
            not stretch.too_long
            and len(stretch.text) <= self._limit
            and RAW_COLUMN not in self._known
            and is_utf8(stretch.text)
        )
        rows = lines_of(stretch.text) if is_simple else None
        if rows is not None and self._known.issuperset(set[str]().union(*rows)):
            return rows, range(stretch.line, stretch.line + len(rows))
        entries = self._entries(stretch)
        return [entry.fields for entry in entries], [entry.line for entry in entries]

    def _entries(self, stretch: LineBlock) -> list[_Entry]:
        entries: list[_Entry] = []
        for line, with_end in enumerate(stretch.text.split(b"\n"), start=stretch.line):
            text = with_end.removesuffix(b"\r")
            if not text.strip(_BLANK):
                continue
            try:
                entry = self._entry(text, line, too_long=stretch.too_long)
                self._check_names(entry)
            except BadRow as error:
                if self._malformed is None:
                    raise
                self._malformed(error, self._rows + len(entries), self._told(text), splits=False)
            else:
                entries.append(entry)
        return entries

    def _check_names(self, entry: _Entry) -> None:
        if new := next((name for name in entry.fields if name not in self._known), None):
            raise BadRow(
                f"field {new} goes into no column of the table",
                code=UNDEFINED_COLUMN,
                location=Location(self.name, entry.line),
                column=new,
                value=shown(bytes(entry.fields[new])),
                hint=f"Leave it out with --skip-columns '{new}', or --map it to a column.",
            )

    def _entry(self, text: bytes, line: int, *, too_long: bool = False) -> _Entry:
        if too_long or len(text) > self._limit:
            raise BadRow(
                f"this line is larger than {self._limit:,} bytes",
                code=PROGRAM_LIMIT_EXCEEDED,
                location=Location(self.name, line),
                value=shown(text[:80]) + "…",
                hint="If it is really one object, raise the limit with --max-record-bytes.",
            )
        fields = self._object(text, line)
        raw = _raw_text(fields)
        if raw:
            entry = self._entry(raw, line)
            return replace(entry, fields=fields | entry.fields)
        return _Entry(fields, line, text)

    def _told(self, text: bytes) -> bytes:
        """What is told of a bad line; of one of a reject file the text there, unless fields are filled in, too."""
        if len(text) > self._limit:
            return text[:KEPT_OF_TOO_LONG]
        with suppress(NotJson, UnicodeEncodeError):
            fields = fields_of(text)
            raw = _raw_text(fields)
            filled = [name for name, value in fields.items() if value != NULL and name not in REJECT_COLUMNS]
            if raw and not filled:
                return self._told(raw)
        return text

    def _object(self, text: bytes, line: int) -> Fields:
        location = Location(self.name, line)
        if (broken := undecodable(text, self._encoding)) is not None:
            raise BadRow(
                f"the bytes {broken.hex(' ')} are not {self._encoding.upper()}",
                code=CHARACTER_NOT_IN_REPERTOIRE,
                location=location,
                value=shown(text),
                hint="Say what the file is written in, for example --encoding latin-1 or --encoding cp1252.",
            )
        try:
            return fields_of(text)
        except NotJson as error:
            is_other = text.strip(_BLANK)[:1] != b"{"
            reason = "this line is not a JSON object" if is_other else f"this line is not JSON: {error}"
            raise BadRow(reason, code=INVALID_JSON_TEXT, location=location, value=shown(text)) from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """One object, its line, and its text."""

    fields: Fields
    line: int
    text: bytes


class _Kept:
    """A stream of which everything that is read is kept."""

    def __init__(self, stream: ByteStream, kept: tempfile.SpooledTemporaryFile[bytes]) -> None:
        self._stream = stream
        self._kept = kept

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        data = self._stream.read(size)
        self._kept.write(data)
        return data


def _raw_text(fields: Fields) -> bytes:
    """What a reject file keeps of a line that was no object; it is taken out of the fields."""
    raw = bytes(fields.pop(RAW_COLUMN, NULL))
    return string_of(raw).encode(errors="surrogateescape") if raw.startswith(b'"') else b""


def names_in(text: bytes) -> Collection[str]:
    """The fields of an object."""
    return fields_of(text).keys()


def without_reject_fields(text: bytes) -> bytes:
    """An object's text without the fields that a reject file adds."""
    if b'"_harborctl_' not in text:
        return text
    fields = fields_of(text)
    own = [
        f"{json_text(name)}:".encode() + bytes(value) for name, value in fields.items() if name not in REJECT_COLUMNS
    ]
    return b"{" + b",".join(own) + b"}"
