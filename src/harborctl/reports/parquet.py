"""Writes a result as Parquet, with its types: numeric as decimal, timestamptz with its zone, arrays as lists.

The rows come as CSV, which Arrow reads many times faster than Python could. A numeric without precision says its digits
only in its values: a result with such a column goes to a temporary file first, and is written when all have been seen.
What Parquet's type cannot hold (`infinity`, NaN in a decimal) is an error, never a NULL.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import time
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from harborctl.errors import HarborctlError
from harborctl.reports.render import csv_lines, list_elements
from harborctl.reports.result import unique_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harborctl.reports.result import Column, Result

# Bytes of Arrow data in a row group. All of a group is in memory until it is written, at times next to the one after
# it: 4 million rows of 6 columns peaked at 240 MB with 8 MB, 1.5 million at 186 MB with 4 MB; Arrow alone takes 102.
# The files are of one size.
GROUP_BYTES = 4 << 20

_TYPES = {
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.uint32(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
    "bytea": pa.binary(),
}


@dataclass(frozen=True, slots=True)
class _Field:
    """A column: its unique name, the Arrow type of its values or elements, and that type's name for people.

    `type` is None for a numeric whose digits are not known yet.
    """

    name: str
    column: Column
    type: Any

    @property
    def is_list(self) -> bool:
        return self.column.delimiter is not None

    @property
    def read_as(self) -> Any:
        """The type that Arrow reads from CSV; the rest is `_finished`'s."""
        plain = self.is_list or self.type is None or pa.types.is_binary(self.type)
        return pa.string() if plain else self.type


def write_parquet(result: Result, stream: IO[bytes]) -> None:
    """Write the result.

    Raises:
        HarborctlError: a value that its column's Parquet type cannot hold.
    """
    fields = [
        _Field(name, column, _type(column))
        for name, column in zip(unique_names(result.columns), result.columns, strict=True)
    ]
    tables = _read(fields, _blocks(result))
    if all(field.type is not None for field in fields):
        _write(fields, tables, stream)
        return
    with tempfile.TemporaryFile() as held:
        fields = _spooled(fields, tables, held)
        held.seek(0)
        with pa.ipc.open_stream(held) as reader:
            _write(fields, (pa.Table.from_batches([batch]) for batch in reader), stream)


def _type(column: Column) -> Any:
    if column.base == "numeric":
        return None if column.digits is None or column.delimiter is not None else _decimal(*column.digits)
    return _TYPES.get(column.base, pa.string())


def _decimal(precision: int, scale: int) -> Any:
    """A decimal with these digits; None if there is no such thing."""
    # numeric(3,5) has three digits from the third place after the point on; numeric(3,-2) none after the point.
    precision, scale = max(precision, scale, precision - scale), max(scale, 0)
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if precision <= 76 else None


def _blocks(result: Result) -> Iterator[bytes]:
    if result.lines is not None:
        return result.lines()
    return (lines.encode() for lines in csv_lines(result))


def _read(fields: list[_Field], blocks: Iterator[bytes]) -> Iterator[Any]:
    """Each block as a table, of the types that Arrow reads by itself."""
    # Positions, not names: a name may be empty.
    names = [str(number) for number in range(len(fields))]
    reading = pa.csv.ReadOptions(column_names=names, block_size=1 << 30, use_threads=False)
    # A line of one NULL is empty, and nothing else is: COPY writes the empty text as "".
    parsing = pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)

    def converting(*, as_text: bool) -> Any:
        return pa.csv.ConvertOptions(
            column_types={n: pa.string() if as_text else f.read_as for n, f in zip(names, fields, strict=True)},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        )

    def read(block: bytes, *, as_text: bool) -> Any:
        return pa.csv.read_csv(pa.BufferReader(block), reading, parsing, converting(as_text=as_text))

    for block in blocks:
        try:
            yield read(block, as_text=False)
        except pa.ArrowInvalid as error:
            raise _culprit(fields, read(block, as_text=True), error) from error


def _culprit(fields: list[_Field], texts: Any, error: Exception) -> HarborctlError:
    for field, column in zip(fields, texts.columns, strict=True):
        if field.read_as == pa.string() or pa.types.is_boolean(field.read_as):
            continue
        for text in column.drop_null().unique().to_pylist():
            if not _fits(text, field.read_as):
                return _unfit(field, text)
    return HarborctlError(f"cannot write Parquet: {error}", code="bad_value")


def _unfit(field: _Field, text: str) -> HarborctlError:
    return HarborctlError(
        f"Parquet's type for {field.column.type} cannot hold {text[:100]}",
        code="bad_value",
        column=field.name,
        hint="Cast the column to text in the report, or take another format.",
    )


def _spooled(fields: list[_Field], tables: Iterator[Any], held: IO[bytes]) -> list[_Field]:
    """Put the tables aside in `held`, and give the fields back with the digits of all their values."""
    digits = {number: (1, 0) for number, field in enumerate(fields) if field.type is None}
    schema = pa.schema([(str(number), field.read_as) for number, field in enumerate(fields)])
    with pa.ipc.new_stream(held, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for table in tables:
            writer.write_table(table)
            for number, (whole, scale) in digits.items():
                found_whole, found_scale = _digits(fields[number], table.column(number))
                digits[number] = max(whole, found_whole), max(scale, found_scale)
    measured = list(fields)
    for number, (whole, scale) in digits.items():
        # As many digits before the point as there is room for: the type then depends on the scale only.
        kind = _decimal(max(38, whole + scale), scale)
        if kind is None:
            raise _unfit(fields[number], f"{whole} digits before the point and {scale} behind it")
        measured[number] = _Field(fields[number].name, fields[number].column, kind)
    return measured


def _digits(field: _Field, texts: Any) -> tuple[int, int]:
    """The most digits before and behind the point."""
    if field.is_list:
        texts = pa.chunked_array([_flat(field, chunk)[1] for chunk in texts.chunks], pa.string())
    texts = pc.utf8_ltrim(texts, "-")
    odd = texts.filter(pc.invert(pc.match_substring_regex(texts, r"^[0-9.]*$")))
    if len(odd):
        raise _unfit(field, odd[0].as_py())
    length, point = pc.utf8_length(texts), pc.find_substring(texts, ".")
    whole = pc.if_else(pc.less(point, 0), length, point)
    scale = pc.if_else(pc.less(point, 0), 0, pc.subtract(pc.subtract(length, point), 1))
    return pc.max(whole).as_py() or 1, pc.max(scale).as_py() or 0


def _write(fields: list[_Field], tables: Iterator[Any], stream: IO[bytes]) -> None:
    schema = pa.schema([(f.name, pa.list_(f.type) if f.is_list else f.type) for f in fields])
    group: list[Any] = []
    size = 0
    # One thread finishes and compresses while this one waits for the server.
    with (
        pa.parquet.ParquetWriter(_Counted(stream), schema, compression="zstd", compression_level=1) as writer,
        ThreadPoolExecutor(1) as pool,
    ):

        def write(batch: list[Any]) -> None:
            writer.write_table(_finished(fields, schema, pa.concat_tables(batch)))

        writing = None
        for table in tables:
            group.append(table)
            size += table.nbytes
            if size >= GROUP_BYTES:
                if writing is not None:
                    writing.result()
                writing = pool.submit(write, group)
                group, size = [], 0
        if writing is not None:
            writing.result()
        if group:
            write(group)


def _finished(fields: list[_Field], schema: Any, table: Any) -> Any:
    return pa.Table.from_arrays(
        [
            _values(field, column) if column.type != kind.type else column
            for field, column, kind in zip(fields, table.columns, schema, strict=True)
        ],
        schema=schema,
    )


def _values(field: _Field, texts: Any) -> Any:
    if not field.is_list:
        return _cast(field, texts)
    lists = []
    for chunk in texts.chunks:
        offsets, flat = _flat(field, chunk)
        lists.append(pa.ListArray.from_arrays(offsets, _cast(field, flat), mask=chunk.is_null()))
    return pa.chunked_array(lists, pa.list_(field.type))


def _flat(field: _Field, texts: Any) -> tuple[Any, Any]:
    """The elements of all lists, and where each list begins."""
    offsets, flat = [0], []
    for text in texts.to_pylist():
        if text is not None:
            try:
                flat += list_elements(text, field.column.delimiter or ",")
            except ValueError:
                raise _unfit(field, f"{text}, which has more than one dimension") from None
        offsets.append(len(flat))
    return pa.array(offsets, pa.int32()), pa.array(flat, pa.string())


def _cast(field: _Field, texts: Any) -> Any:
    if pa.types.is_boolean(field.type):
        return pc.equal(texts, "t")
    if pa.types.is_binary(field.type):
        values = [None if text is None else bytes.fromhex(text[2:]) for text in texts.to_pylist()]
        return pa.array(values, pa.binary())
    try:
        if pa.types.is_time(field.type):  # to which Arrow casts no text
            times = [None if text is None else time.fromisoformat(text) for text in texts.to_pylist()]
            return pa.array(times, field.type)
        return pc.cast(texts, field.type)
    except ValueError as error:  # Arrow's is one, too
        odd = next((text for text in pc.unique(texts.drop_null()).to_pylist() if not _fits(text, field.type)), "it")
        raise _unfit(field, odd) from error


def _fits(text: str, kind: Any) -> bool:
    """Whether Arrow reads the text as this type."""
    try:
        pa.csv.read_csv(
            pa.BufferReader(text.encode() + b"\n"),
            pa.csv.ReadOptions(column_names=["value"]),
            convert_options=pa.csv.ConvertOptions(column_types={"value": kind}, null_values=[]),
        )
    except pa.ArrowInvalid:
        return False
    return True


class _Counted:
    """A stream that knows how much has gone through it; a pipe would not say."""

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._written = 0

    def write(self, data: bytes) -> int:
        """Write all of it."""
        self._stream.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """Bytes written."""
        return self._written

    def writable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never."""
        return False

    def flush(self) -> None:
        """Leave that to the stream's owner."""

    def close(self) -> None:
        """Likewise."""
