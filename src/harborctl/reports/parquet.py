"""Writes a result as Parquet, with its types: numeric as decimal, timestamptz with its zone, arrays as lists.

The rows come as CSV, which Arrow reads many times faster than Python could. A numeric without precision says its digits
only in its values: a result with such a column goes to temporary files first, a new one whenever more digits turn up,
and mostly that is one file, which only needs to be copied.
What Parquet's type cannot hold (`infinity`, NaN in a decimal) is an error, never a NULL.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from harborctl.errors import HarborctlError
from harborctl.reports.render import csv_lines, list_elements
from harborctl.reports.result import unique_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from harborctl.reports.result import Column, Result

# Bytes of Arrow data in a row group. All of a group is in memory until it is written, at times next to the one after
# it: 4 million rows of 6 columns peaked at 240 MB with 8 MB, 1.5 million at 186 MB with 4 MB; Arrow alone takes 102.
# The files are of one size.
GROUP_BYTES = 4 << 20

# Blocks taken from the server that nobody has read yet.
BLOCKS_AHEAD = 4

# From there on a column is written without a dictionary. With Parquet's megabyte, which a group hardly reaches, two
# million rows of 5 columns took 0.51 s and 16 MB, with this 0.30 s and 8.6 MB; without any dictionary 0.25 s.
DICTIONARY_BYTES = 16 << 10

_MOMENT = pa.timestamp("us", "UTC")
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
    "timestamptz": _MOMENT,
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
        # Arrow reads no decimal of more than 38 digits from CSV; it casts text to one.
        plain = self.is_list or self.type is None or pa.types.is_binary(self.type) or pa.types.is_decimal256(self.type)
        return pa.string() if plain else self.type


def write_parquet(result: Result, stream: IO[bytes]) -> None:
    """Write the result.

    Raises:
        HarborctlError: a value that its column's Parquet type cannot hold.
    """
    if not result.columns:
        raise HarborctlError(
            "Parquet holds columns, and the report has none",
            code="no_columns",
            hint="Select a column, or another format.",
        )
    fields = [
        _Field(name, column, _type(column))
        for name, column in zip(unique_names(result.columns), result.columns, strict=True)
    ]
    with _File(fields, stream) if all(field.type is not None for field in fields) else _Parts(fields, stream) as rows:
        _pass_on(_blocks(result), _Reader(fields), rows)


class _Rows(Protocol):
    """What takes the rows, table by table as `_Reader` gives them."""

    def add(self, table: Any) -> None: ...


def _pass_on(blocks: Iterator[bytes], reader: _Reader, rows: _Rows) -> None:
    """Let one thread do all work on the blocks while this one takes them from the server."""

    def add(block: bytes) -> None:
        rows.add(reader.table(block))

    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for block in blocks:
            if len(waiting) == BLOCKS_AHEAD:
                waiting.popleft().result()
            waiting.append(pool.submit(add, block))
        for future in waiting:
            future.result()


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


class _Reader:
    """Reads blocks of CSV as tables, of the types that Arrow reads by itself."""

    def __init__(self, fields: list[_Field]) -> None:
        self._fields = fields
        # Positions, not names: a name may be empty.
        self._names = [str(number) for number in range(len(fields))]

    def table(self, block: bytes) -> Any:
        try:
            return self._read(block, [field.read_as for field in self._fields])
        except pa.ArrowInvalid as error:
            texts = self._read(block, [pa.string()] * len(self._fields))
            return self._with_old_moments(block, texts, error)

    def _with_old_moments(self, block: bytes, texts: Any, error: Exception) -> Any:
        """The block, with its moments read here: Arrow does not know offsets with seconds, as all zones have had them
        before there was a standard time."""
        moments = [number for number, field in enumerate(self._fields) if field.read_as == _MOMENT]
        try:
            kinds = [pa.string() if field.read_as == _MOMENT else field.read_as for field in self._fields]
            table = self._read(block, kinds)
            for number in moments:
                read = _moments(texts.column(number).to_pylist())
                table = table.set_column(number, table.field(number).with_type(_MOMENT), read)
        except (ValueError, OverflowError):
            raise _culprit(self._fields, texts, error) from error
        return table

    def _read(self, block: bytes, types: list[Any]) -> Any:
        return pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(column_names=self._names, block_size=1 << 30, use_threads=False),
            # A line of one NULL is empty, and nothing else is: COPY writes the empty text as "".
            pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                column_types=dict(zip(self._names, types, strict=True)),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )


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


class _File:
    """A Parquet file in the making."""

    def __init__(self, fields: list[_Field], stream: IO[bytes]) -> None:
        self._fields = fields
        self._schema = _schema(fields)
        self._writer = _writer(self._schema, stream)
        self._group: list[Any] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._writer:
            if kind is None:
                self._flush()

    def add(self, table: Any) -> None:
        self._group.append(table)
        self._size += table.nbytes
        if self._size >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._group:
            self._writer.write_table(_finished(self._fields, self._schema, pa.concat_tables(self._group)))
            self._group, self._size = [], 0


class _Parts:
    """Parquet files aside, each for rows whose numbers need no more digits than its types have; one in the end."""

    def __init__(self, fields: list[_Field], stream: IO[bytes]) -> None:
        self._given = fields
        self._stream = stream
        self._digits = {number: (1, 0) for number, field in enumerate(fields) if field.type is None}
        self._fields = self._typed()
        self._held: list[IO[bytes]] = []
        self._files = ExitStack()
        self._part = ExitStack()
        self._file: _File | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files:
            self._part.__exit__(kind, error, trace)
            if kind is None:
                self._join()

    def add(self, table: Any) -> None:
        for number, (whole, scale) in self._digits.items():
            found_whole, found_scale = _digits(self._given[number], table.column(number))
            self._digits[number] = max(whole, found_whole), max(scale, found_scale)
        fields = self._typed()
        if self._file is None or fields != self._fields:
            self._fields = fields
            self._part.close()
            held = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
            self._held.append(held)
            self._file = self._part.enter_context(_File(fields, held))
        self._file.add(table)

    def _typed(self) -> list[_Field]:
        """The fields with types for the digits seen so far."""
        typed = list(self._given)
        for number, (whole, scale) in self._digits.items():
            # As many digits before the point as there is room for: the type then depends on little but the scale.
            kind = _decimal(38 if whole + scale <= 38 else max(76, whole + scale), scale)
            if kind is None:
                raise _unfit(typed[number], f"{whole} digits before the point and {scale} behind it")
            typed[number] = replace(typed[number], type=kind)
        return typed

    def _join(self) -> None:
        for held in self._held:
            held.seek(0)
        if len(self._held) == 1:
            shutil.copyfileobj(self._held[0], self._stream)
            return
        schema = _schema(self._fields)
        with _writer(schema, self._stream) as writer:
            for held in self._held:
                with pa.parquet.ParquetFile(held) as part:
                    for number in range(part.num_row_groups):
                        writer.write_table(part.read_row_group(number).cast(schema))


def _schema(fields: list[_Field]) -> Any:
    return pa.schema([(f.name, pa.list_(f.type) if f.is_list else f.type) for f in fields])


def _writer(schema: Any, stream: IO[bytes]) -> Any:
    return pa.parquet.ParquetWriter(
        _Counted(stream),
        schema,
        compression="zstd",
        compression_level=1,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
    )


def _digits(field: _Field, texts: Any) -> tuple[int, int]:
    """The most digits before and behind the point. Of NaN and infinity it says nothing; casting them fails."""
    if field.is_list:
        texts = pa.chunked_array([_flat(field, chunk)[1] for chunk in texts.chunks], pa.string())
    texts = pc.utf8_ltrim(texts, "-")
    length, point = pc.binary_length(texts), pc.find_substring(texts, ".")
    whole = pc.if_else(pc.less(point, 0), length, point)
    scale = pc.if_else(pc.less(point, 0), 0, pc.subtract(pc.subtract(length, point), 1))
    return pc.max(whole).as_py() or 1, pc.max(scale).as_py() or 0


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
        try:
            return pc.cast(texts, field.type)
        except pa.ArrowInvalid:
            if field.type != _MOMENT:
                raise
            return _moments(texts.to_pylist())
    except (ValueError, OverflowError) as error:
        odd = next((text for text in pc.unique(texts.drop_null()).to_pylist() if not _fits(text, field.type)), "it")
        raise _unfit(field, odd) from error


def _moments(texts: list[str | None]) -> Any:
    """Raises ValueError or OverflowError if one is not in the years 1 to 9999."""
    return pa.array([None if text is None else datetime.fromisoformat(text).astimezone(UTC) for text in texts], _MOMENT)


def _fits(text: str, kind: Any) -> bool:
    """Whether Arrow, or `_moments`, reads the text as this type."""
    try:
        if kind == _MOMENT:
            _moments([text])
            return True
        if pa.types.is_decimal256(kind):
            pc.cast(pa.array([text]), kind)
            return True
        pa.csv.read_csv(
            pa.BufferReader(text.encode() + b"\n"),
            pa.csv.ReadOptions(column_names=["value"]),
            convert_options=pa.csv.ConvertOptions(column_types={"value": kind}, null_values=[]),
        )
    except (ValueError, OverflowError):  # Arrow's is one, too
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
