"""JSON Lines sources: one object a line; fields as text, exactly as they are written.

A number keeps its digits: 1.10 stays 1.10. Nested values stay JSON; a missing field is NULL.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harborctl.errors import BadRow, SourceError
from harborctl.model import FileResult, Location
from harborctl.sources.batch import Batch
from harborctl.sources.files import HashingReader, SourceFile, open_bytes, open_content
from harborctl.sources.json_text import Number, json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK_BYTES = 512 * 1024
INVALID_JSON = "22032"

_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


class JsonLinesSource:
    """A file of JSON objects, one a line, as text columns. See `Source` for the attributes.

    The columns are those of the objects in the first block; an object further down with another field is an error.
    """

    named = True

    def __init__(self, file: SourceFile) -> None:
        self.name = file.name
        self.size = file.path.stat().st_size if file.path else None
        self._raw = HashingReader(open_bytes(file))
        self._rows = 0
        try:
            self._text = open_content(self._raw, file)
            self._blocks = self._objects()
            self._first = next(self._blocks, ([], []))
        except BaseException:
            self.close()
            raise
        names = dict.fromkeys(name for record in self._first[0] for name in record)
        if not names:
            self.close()
            raise SourceError(f"{self.name} is empty: no object, no columns", code="empty_file")
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])

    def batches(self, columns: Sequence[int], direct: Sequence[pa.DataType | None] = ()) -> Iterator[Batch]:  # noqa: ARG002
        """See `Source.batches`."""
        names = [self.schema.field(column).name for column in columns]
        known = set(self.schema.names)
        block: tuple[list[dict[str, Any]], list[int]] | None = self._first
        while block is not None:
            objects, lines = block
            for record, line in zip(objects, lines, strict=True):
                if not known.issuperset(record):
                    name = next(name for name in record if name not in known)
                    raise BadRow(
                        f"field {name} is new: no object in the first block of the file has it",
                        code="42703",
                        location=Location(self.name, line),
                        column=name,
                        hint="Let the first object have every field, null where there is no value.",
                    )
            arrays = [pa.array([_text(record.get(name)) for record in objects], pa.string()) for name in names]
            records = pa.RecordBatch.from_arrays(arrays, names=names)
            self._rows += len(objects)
            yield Batch(records, self.name, lines.__getitem__)
            block = next(self._blocks, None)

    def position(self) -> int:
        """See `Source.position`."""
        return self._raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return FileResult(self.name, self._raw.position, self._rows, self._raw.sha256())

    def close(self) -> None:
        """See `Source.close`."""
        self._raw.close()

    def _objects(self) -> Iterator[tuple[list[dict[str, Any]], list[int]]]:
        """Objects and their lines, a block at a time. Blank lines are passed over."""
        pending, line = b"", 1
        while True:
            data = self._text.read(max(BLOCK_BYTES, len(pending)))
            pending += data
            cut = pending.rfind(b"\n") + 1 if data else len(pending)
            if cut:
                objects, lines = [], []
                for text in pending[:cut].splitlines():
                    if text.strip():
                        objects.append(self._object(text, line))
                        lines.append(line)
                    line += 1
                pending = pending[cut:]
                yield objects, lines
            if not data:
                return

    def _object(self, text: bytes, line: int) -> dict[str, Any]:
        try:
            record = _DECODER.decode(text.decode())
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


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json_text(value)
