"""JSON Lines sources: one object a line; fields as text, exactly as they are written.

A number keeps its digits: 1.10 stays 1.10. Nested values stay JSON; a missing field is NULL.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harborctl.errors import BadRow, SourceError
from harborctl.model import FileResult, Location, SourceFormat
from harborctl.sources.batch import RAW_COLUMN, REJECT_COLUMNS, Batch, Original
from harborctl.sources.json_text import Number, json_text
from harborctl.sources.read_again import Block, Rereadable, by_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.sources.batch import Malformed
    from harborctl.sources.files import SourceFile

BLOCK_BYTES = 512 * 1024
INVALID_JSON = "22032"

_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


class JsonLinesSource:
    """A file of JSON objects, one a line, as text columns. See `Source` for the attributes.

    The columns are those of the objects in the first block; an object further down with another field is an error.
    """

    named = True
    format = SourceFormat.JSONL

    def __init__(self, file: SourceFile, *, keep: bool = False) -> None:
        self.name = file.name
        self.size = file.size
        self._file = Rereadable(file, keep=keep)
        self._raw = self._file.raw
        self._rows = 0
        self._blocks: list[Block] = []
        self._malformed: Malformed | None = None
        try:
            self._stretches = self._read()
            self._first = next(self._stretches, None)
            lines = self._first.text.splitlines() if self._first else []
            names = dict.fromkeys(name for text in lines for name in self._names(text))
            self.schema = pa.schema([pa.field(name, pa.string()) for name in names])
            if not names:
                if self._first:
                    self._parsed(self._first)  # raises what is wrong with a line
                raise SourceError(f"{self.name} is empty: no object, no columns", code="empty_file")
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        self._malformed = malformed
        names = [self.schema.field(column).name for column in columns]
        block = self._first
        while block is not None:
            objects = self._parsed(block)
            arrays = [pa.array([_text(entry.fields.get(name)) for entry in objects], pa.string()) for name in names]
            records = pa.RecordBatch.from_arrays(arrays, names=names)
            if objects:
                self._blocks.append(Block(self._rows, block.offset, len(block.text), block.line, plain=False))
            lines, row_of = [entry.line for entry in objects], partial(int.__add__, self._rows)
            self._rows += len(objects)
            yield Batch(records, self.name, lines.__getitem__, row_of=row_of)
            block = next(self._stretches, None)

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`."""
        wanted = {}
        self._malformed = _nobody

        def blocks() -> Iterator[Block]:
            for block, inside in by_block(self._blocks, rows):
                wanted[block.offset] = inside
                yield block

        for block, text in self._file.blocks(blocks()):
            stretch = _Stretch(text, block.offset, block.first_line)
            objects = self._parsed(stretch)
            for row in wanted.pop(block.offset):
                yield Original(objects[row].line, objects[row].text)

    def position(self) -> int:
        """See `Source.position`."""
        return self._raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return FileResult(self.name, self._raw.position, self._rows, self._raw.sha256())

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()

    def _read(self) -> Iterator[_Stretch]:
        """The text in stretches of whole lines."""
        pending, line, offset = b"", 1, 0
        while True:
            data = self._file.text.read(max(BLOCK_BYTES, len(pending)))
            pending += data
            cut = pending.rfind(b"\n") + 1 if data else len(pending)
            if cut:
                text, pending = pending[:cut], pending[cut:]
                yield _Stretch(text, offset, line)
                line += len(text.splitlines())
                offset += cut
            if not data:
                return

    def _names(self, text: bytes) -> Iterator[str]:
        """The fields of a line, if it is an object, also where one of a reject file is about a text that is none."""
        with suppress(BadRow):
            fields = self._object(text, 0)
            raw = fields.pop(RAW_COLUMN, None)
            yield from fields
            if isinstance(raw, str) and raw:
                yield from self._names(raw.encode(errors="surrogateescape"))

    def _parsed(self, stretch: _Stretch) -> list[_Entry]:
        """The objects of a stretch. Blank lines are passed over; what is not an object is bad, as is an object with a
        field that none in the first stretch has."""
        known = frozenset(self.schema.names)
        entries: list[_Entry] = []
        for line, text in enumerate(stretch.text.splitlines(), start=stretch.line):
            if not text.strip():
                continue
            try:
                entry = self._entry(text, line)
                if new := next((name for name in entry.fields if name not in known), None):
                    raise BadRow(
                        f"field {new} is new: no object in the first block of the file has it",
                        code="42703",
                        location=Location(self.name, line),
                        column=new,
                        hint="Let the first object have every field, null where there is no value.",
                    )
            except BadRow as error:
                if self._malformed is None:
                    raise
                self._malformed(error, self._rows + len(entries), self._told(text), splits=False)
            else:
                entries.append(entry)
        return entries

    def _entry(self, text: bytes, line: int) -> _Entry:
        fields = self._object(text, line)
        raw = fields.pop(RAW_COLUMN, None)
        if isinstance(raw, str) and raw:
            entry = self._entry(raw.encode(errors="surrogateescape"), line)
            return replace(entry, fields=fields | entry.fields)
        return _Entry(fields, line, text)

    def _told(self, text: bytes) -> bytes:
        """What is told of a bad line; of one of a reject file the text there, unless fields are filled in, too."""
        with suppress(BadRow):
            fields = self._object(text, 0)
            raw = fields.pop(RAW_COLUMN, None)
            filled = [name for name, value in fields.items() if value is not None and name not in REJECT_COLUMNS]
            if isinstance(raw, str) and raw and not filled:
                return self._told(raw.encode(errors="surrogateescape"))
        return text

    def _object(self, text: bytes, line: int) -> dict[str, Any]:
        try:
            record = _DECODER.decode(text.decode())
            if b"\\ud" in text.lower():
                json_text(record).encode()  # half of a pair of surrogates is no character
        except ValueError as error:  # JSON's and UTF-8's errors alike
            raise BadRow(
                f"this line is not JSON: {error}",
                code=INVALID_JSON,
                location=Location(self.name, line),
                value=text.decode(errors="backslashreplace"),
            ) from error
        if not isinstance(record, dict):
            raise BadRow(
                "this line is not a JSON object",
                code=INVALID_JSON,
                location=Location(self.name, line),
                value=text.decode(errors="backslashreplace"),
            )
        return record


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Whole lines: their text, its place in the file, and the number of the first of them."""

    text: bytes
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """One object, its line, and its text."""

    fields: dict[str, Any]
    line: int
    text: bytes


def _nobody(error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
    """Takes what was handed over before."""


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json_text(value)


def without_reject_fields(text: bytes) -> bytes:
    """An object's text without the fields that a reject file adds."""
    if b'"_harborctl_' not in text:
        return text
    fields = _DECODER.decode(text.decode())
    return json_text({name: value for name, value in fields.items() if name not in REJECT_COLUMNS}).encode()
