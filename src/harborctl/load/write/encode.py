"""Batches → bytes that COPY reads. Pure, and run in the thread ahead of the socket."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pgpq import ArrowToPostgresBinaryEncoder

from harborctl.codecs.codec import NotPlain, Unstorable
from harborctl.codecs.text_input import held
from harborctl.errors import BadRow
from harborctl.sqlstate import CHARACTER_NOT_IN_REPERTOIRE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harborctl.load.plan.plan import Plan
    from harborctl.sources.batch import Batch


class CopyFormat(Enum):
    """The format of a stretch of a COPY stream."""

    BINARY = "binary"
    TEXT = "text"


# Signature, flags and header extension length, and the end (PostgreSQL manual, COPY, Binary Format).
BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
BINARY_TRAILER = b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One batch as COPY data: one record or line a row, neither header nor trailer."""

    batch: Batch
    format: CopyFormat
    data: tuple[bytes | memoryview, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(memoryview(part).nbytes for part in self.data)


class Encoder:
    """Encodes the batches of one plan: binary where every column has an exact way, else text."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._schema: pa.Schema | None = None
        arrows = [column.codec.arrow for column in plan.columns]
        if all(arrow is not None for arrow in arrows):
            self._schema = pa.schema([pa.field(str(number), arrow) for number, arrow in enumerate(arrows)])

    def encode(self, batches: Iterable[Batch]) -> Iterator[Encoded]:
        """Each batch, encoded.

        Raises:
            BadRow: a value cannot be stored unchanged.
        """
        for batch in batches:
            if batch.records.num_rows:
                yield self.one(batch)

    @property
    def has_binary(self) -> bool:
        """Whether there is a binary way at all."""
        return self._schema is not None

    def one(self, batch: Batch) -> Encoded:
        """One batch that has rows, encoded. Raises as `encode` does."""
        return self.as_binary(batch) or self.as_text(batch)

    def as_binary(self, batch: Batch) -> Encoded | None:
        """One batch as binary; None if some value has no exact binary form."""
        data = self._binary_data(batch)
        return None if data is None else Encoded(batch, CopyFormat.BINARY, data)

    def as_text(self, batch: Batch) -> Encoded:
        """One batch as text, whether or not it has a binary form."""
        return Encoded(batch, CopyFormat.TEXT, (copy_text(text_columns(self._plan, batch)),))

    def _binary_data(self, batch: Batch) -> tuple[bytes | memoryview, ...] | None:
        if self._schema is None:
            return None
        try:
            columns = _converted(self._plan, batch, lambda codec: codec.convert)
        except NotPlain:
            return None
        # The encoder hands its bytes out when it likes, not batch by batch. A fresh one for each batch costs nothing
        # (measured) and ends where the batch ends; header and trailer belong to the COPY, not to the batch.
        encoder = ArrowToPostgresBinaryEncoder(self._schema)
        encoder.write_header()
        try:
            body = encoder.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        except ValueError:
            return None  # a date or time before what its binary form can hold: the server shall say so
        end = encoder.finish()
        return (body, memoryview(end)[: -len(BINARY_TRAILER)])


def text_columns(plan: Plan, batch: Batch) -> list[pa.Array]:
    """The batch's columns as `string`, in the server's input syntax.

    Raises:
        BadRow: a value cannot be stored unchanged.
    """
    columns = _converted(plan, batch, lambda codec: codec.text)
    for planned, column in zip(plan.columns, columns, strict=True):
        # What is held may also lie below a NULL.
        if b"\0" in held(column) and (row := pc.index(pc.match_substring(column, "\0"), True).as_py()) >= 0:
            raise BadRow(
                'invalid byte sequence for encoding "UTF8": 0x00',
                code=CHARACTER_NOT_IN_REPERTOIRE,
                location=batch.location(row),
                column=planned.target.name,
                value=column[row].as_py(),
                hint="PostgreSQL's text cannot hold the character NUL.",
            )
    return columns


def _converted(plan: Plan, batch: Batch, way: Callable[..., Callable[[pa.Array], pa.Array]]) -> list[pa.Array]:
    columns = []
    for planned, array in zip(plan.columns, plan.arrays(batch), strict=True):
        try:
            columns.append(way(planned.codec)(array))
        except Unstorable as error:
            raise BadRow(
                error.reason,
                code=error.code,
                location=batch.location(error.row),
                column=planned.target.name,
                value=error.value,
            ) from error
    return columns


# COPY's text format escapes these (PostgreSQL manual, COPY, Text Format); the backslash first.
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def copy_text(columns: list[pa.Array]) -> bytes:
    """Rows of `string` columns in COPY's text format: one line a row, whatever the fields hold."""
    escaped = []
    for column in columns:
        characters = held(column)
        for character, escape in _ESCAPES:
            if character.encode() in characters:
                column = pc.replace_substring(column, character, escape)  # noqa: PLW2901  # escaped once for each
        escaped.append(column)
    lines = pc.binary_join_element_wise(*escaped, "\t", null_handling="replace", null_replacement="\\N")
    return "\n".join([*lines.to_pylist(), ""]).encode()
