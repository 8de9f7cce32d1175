"""How rejects of typed sources (Parquet, Arrow) are written: as Parquet, or as CSV.

Whoever puts the bad field right and loads the file gets what the source would have given for every other field. So a
column keeps its type where all sources have the same, and Parquet has it, too. Else, and in CSV, its values are the
text that the load itself would send for them. A value that the load cannot send stands there as people read it.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from harborctl.codecs.literals import is_binary, is_text, text_form
from harborctl.codecs.typed_input import Unstorable, shown
from harborctl.load.rejects.spool import Malformation, told_apart
from harborctl.sources.batch import FINER, REASON_COLUMNS, REJECT_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harborctl.codecs.codec import Codec
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import ColumnKey, Rejected
    from harborctl.sources.batch import Source

PIECE_ROWS = 1000


class _Typed:
    """Rows of typed values, put together to tables. Those of a source follow each other."""

    def __init__(
        self, sources: Sequence[Source], plans: Sequence[Plan], kinds: dict[ColumnKey, pa.DataType | None]
    ) -> None:
        """`kinds`: the type of each column; None where its values are written as text."""
        self._codecs = [_codecs(source, plan) for source, plan in zip(sources, plans, strict=True)]
        self._kinds = kinds
        reasons = [pa.field(name, pa.int64() if name.endswith("_line") else pa.string()) for name in REASON_COLUMNS]
        self._schema = pa.schema([*((name, kind or pa.string()) for (name, _), kind in kinds.items()), *reasons])
        self._source = 0
        self._rows: list[pa.RecordBatch] = []
        self._reasons: list[Sequence[str | int | None]] = []

    def begin(self, out: IO[bytes]) -> None:
        raise NotImplementedError

    def add(self, rejected: Rejected, names: tuple[str, ...], reason: Sequence[str | int | None]) -> None:  # noqa: ARG002  # as `Form` has it
        if isinstance(rejected.original, Malformation) or rejected.original.row is None:
            raise AssertionError("a file of typed values has no malformed records")
        row = rejected.original.row
        if self._rows and (
            rejected.source != self._source or len(self._rows) == PIECE_ROWS or row.schema != self._rows[-1].schema
        ):
            self._flush()
        self._source = rejected.source
        self._rows.append(row)
        self._reasons.append(reason)

    def end(self) -> None:
        self._flush()

    def write(self, table: pa.Table) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, codecs = pa.Table.from_batches(self._rows), self._codecs[self._source]
        there = {key: position for position, key in enumerate(told_apart(rows.schema.names))}
        columns = [
            _column(rows.column(there[key]), kind, codecs.get(key))
            if key in there
            else pa.nulls(len(rows), kind or pa.string())
            for key, kind in self._kinds.items()
        ]
        reasons = zip(*self._reasons, strict=True)
        added = [pa.array(c, f.type) for c, f in zip(reasons, list(self._schema)[len(columns) :], strict=True)]
        self._rows, self._reasons = [], []
        self.write(pa.Table.from_arrays([*columns, *added], schema=self._schema))


class AsParquet(_Typed):
    """Parquet, the values as they were wherever it can hold them."""

    def __init__(self, sources: Sequence[Source], plans: Sequence[Plan]) -> None:
        super().__init__(sources, plans, {key: _common_type(found) for key, found in _types(sources).items()})

    def begin(self, out: IO[bytes]) -> None:
        """See `Form.begin`."""
        self._writer = pq.ParquetWriter(out, self._schema)

    def write(self, table: pa.Table) -> None:
        """Write these rows."""
        self._writer.write_table(table)

    def end(self) -> None:
        """See `Form.end`."""
        super().end()
        self._writer.close()


class AsValues(_Typed):
    """CSV in COPY's dialect, each value in the input syntax of the column that it goes into."""

    def __init__(self, sources: Sequence[Source], plans: Sequence[Plan]) -> None:
        super().__init__(sources, plans, dict.fromkeys(_types(sources)))

    def begin(self, out: IO[bytes]) -> None:
        """See `Form.begin`."""
        self._out = out
        self._write([self._schema.names])

    def write(self, table: pa.Table) -> None:
        """Write these rows."""
        columns = [text_form(column.combine_chunks()).to_pylist() for column in table.columns]
        self._write(zip(*columns, strict=True))

    def _write(self, rows: Iterable[Iterable[str | None]]) -> None:
        for row in rows:
            # NULL is empty, the empty text is quoted.
            fields = ["" if field is None else '"' + field.replace('"', '""') + '"' for field in row]
            self._out.write((",".join(fields) + "\n").encode())


def _codecs(source: Source, plan: Plan) -> dict[ColumnKey, Codec]:
    keys = told_apart(source.schema.names)
    return {keys[column.position]: column.codec for column in plan.columns if column.position is not None}


# -- which type a column has


def _types(sources: Sequence[Source]) -> dict[ColumnKey, list[pa.DataType]]:
    """Each column's, in all sources that have it."""
    found: dict[ColumnKey, list[pa.DataType]] = {}
    for source in sources:
        for key, field in zip(told_apart(source.schema.names), source.schema, strict=True):
            if field.name not in REJECT_COLUMNS:
                types_of_it = found.setdefault(key, [])
                types_of_it.append(_plain_type(field.type))
                if FINER in (field.metadata or {}):
                    types_of_it.append(pa.timestamp("ns"))
    return found


def _plain_type(arrow: pa.DataType) -> pa.DataType:
    """The type without what only says how values are laid out. Of a dictionary for each batch there may be too many
    values for a single one."""
    if types.is_dictionary(arrow) or types.is_run_end_encoded(arrow):
        return _plain_type(arrow.value_type)
    if is_text(arrow):
        return pa.string()
    return pa.binary() if is_binary(arrow) and not types.is_fixed_size_binary(arrow) else arrow


def _common_type(found: list[pa.DataType]) -> pa.DataType | None:
    """What holds the values of all these types unchanged; None if only text does. Decimals, floats and times change
    their text with their type, and may go into a column of text."""
    found = [arrow for arrow in found if not types.is_null(arrow)] or [pa.null()]
    common = found[0]
    if any(arrow != common for arrow in found):
        if not all(map(types.is_integer, found)):
            return None
        unsigned = [bool(types.is_unsigned_integer(arrow)) for arrow in found]
        if pa.uint64() in found and not all(unsigned):
            return None
        common = pa.uint64() if all(unsigned) else pa.int64()
    return common if _is_parquet(common) else None


def _is_parquet(arrow: pa.DataType) -> bool:
    """Whether Parquet has this type, and gives it back as it is."""
    out = pa.BufferOutputStream()
    try:
        pq.ParquetWriter(out, pa.schema([("column", arrow)])).close()
        return bool(pq.read_schema(pa.BufferReader(out.getvalue())).field(0).type == arrow)
    except (pa.ArrowException, OSError):  # the latter of a negative scale
        return False


# -- the values


def _column(values: pa.ChunkedArray, kind: pa.DataType | None, codec: Codec | None) -> pa.Array | pa.ChunkedArray:
    """One source's values, as the file has them."""
    chunks = [_decoded(chunk) for chunk in values.chunks]
    if kind is None:
        return pa.array(_texts(pa.concat_arrays(chunks), codec), pa.string())
    return pa.chunked_array([chunk if chunk.type == kind else chunk.cast(kind) for chunk in chunks], kind)


def _decoded(array: pa.Array) -> pa.Array:
    if types.is_dictionary(array.type):
        return _decoded(array.dictionary_decode())
    return _decoded(pc.run_end_decode(array)) if types.is_run_end_encoded(array.type) else array


def _texts(array: pa.Array, codec: Codec | None) -> list[str | None]:
    """Values in their column's input syntax; those that the load leaves out in the usual one of their type."""
    way = codec.text if codec else text_form
    try:
        texts: list[str | None] = way(array).to_pylist()
    except _REFUSALS:
        return [_text(array.slice(row, 1), way) for row in range(len(array))]
    return texts


def _text(value: pa.Array, way: Callable[[pa.Array], pa.Array]) -> str | None:
    try:
        text: str | None = way(value)[0].as_py()
    except Unstorable as error:
        return error.value
    except _REFUSALS:
        return shown(value) if value[0].is_valid else None
    return text


# The latter two of columns that are left out: of types that text cannot say, and of texts that are none.
_REFUSALS = (Unstorable, pa.ArrowException, ValueError)
