"""What sources hand on: batches of rows that know where they stand, and parts of them that still do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa

from harborctl.errors import Location, SourceError
from harborctl.sqlstate import CHARACTER_NOT_IN_REPERTOIRE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from harborctl.errors import BadRow
    from harborctl.model import FileResult, SourceFormat

# What a reject file has beside the columns of its source. Whoever reads one leaves these columns out; a record that
# could not be told into fields has them empty, and its text in the last.
RAW_COLUMN = "_harborctl_raw"
REASON_COLUMNS = (
    "_harborctl_file",
    "_harborctl_line",
    "_harborctl_column",
    "_harborctl_value",
    "_harborctl_code",
    "_harborctl_error",
)
REJECT_COLUMNS = (*REASON_COLUMNS, RAW_COLUMN)


# In the metadata of a field: some batches may have its times in this, finer unit.
FINER = b"harborctl.finer"


def _unnumbered(_row: int) -> int:
    raise AssertionError("nobody has numbered the rows of this batch")


class Malformed(Protocol):
    """Whoever takes records that are not of the format.

    Args:
        error: what is wrong with it, and where.
        before: how many rows the source has handed on before it.
        record: its text, without the line end, in UTF-8 as far as it is text.
        splits: whether it can be told into the right number of fields: then only some value is broken.
    """

    def __call__(self, error: BadRow, before: int, record: bytes, *, splits: bool) -> None: ...


def nobody(error: BadRow, before: int, record: bytes, *, splits: bool) -> None:
    """Takes malformed records that somebody has had already."""


def bad_names(file: str) -> SourceError:
    """The names of the columns of a typed source are not text."""
    return SourceError(
        f"a column of {file} has a name that is not UTF-8",
        code=CHARACTER_NOT_IN_REPERTOIRE,
        hint="Let the program that wrote it give the column another name.",
    )


@dataclass(frozen=True, slots=True)
class Original:
    """A row as it stands in the source: the text of its record in UTF-8, or its values as a table of one row."""

    line: int
    text: bytes = b""
    row: pa.RecordBatch | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one source.

    Attributes:
        records: the rows; of a CSV every column is `string`, or of the type that it was asked to be read as.
        file: the source, as the user named it.
        as_read: makes the rows anew with every field as it stands in the source, where `records` has other types.
        line_of: 0-based row of `records` → 1-based physical line (Parquet: row) at which it starts in the source.
        row_of: 0-based row of `records` → how many rows the source has handed on before it.
    """

    records: pa.RecordBatch
    file: str
    line_of: Callable[[int], int]
    as_read: Callable[[], pa.RecordBatch] | None = None
    row_of: Callable[[int], int] = _unnumbered

    def location(self, row: int) -> Location:
        """Where the 0-based `row` of this batch stands in its source."""
        return Location(self.file, self.line_of(row))


@dataclass(frozen=True, slots=True)
class _Moved:
    """What `of` tells of the rows of a whole batch, told of these of them."""

    of: Callable[[int], int]
    rows: Sequence[int]

    def __call__(self, row: int) -> int:
        return self.of(self.rows[row])


@dataclass(frozen=True, slots=True)
class _PartAsRead:
    """These rows of a whole batch, made anew as they stand in the source."""

    of: Callable[[], pa.RecordBatch]
    rows: Sequence[int]

    def __call__(self) -> pa.RecordBatch:
        return _taken(self.of(), self.rows)


def stretch(batch: Batch, start: int, end: int) -> Batch:
    """The rows from `start` up to `end`."""
    if start == 0 and end == batch.records.num_rows:
        return batch
    return taken(batch, range(start, end))


def without(batch: Batch, rows: Collection[int]) -> Batch:
    """All rows but these."""
    if not rows:
        return batch
    return taken(batch, [row for row in range(batch.records.num_rows) if row not in rows])


def taken(batch: Batch, rows: Sequence[int]) -> Batch:
    """These rows."""
    return replace(
        batch,
        records=_taken(batch.records, rows),
        line_of=_part(_Moved, batch.line_of, rows),
        row_of=_part(_Moved, batch.row_of, rows),
        as_read=_part(_PartAsRead, batch.as_read, rows) if batch.as_read else None,
    )


def _part(kind: type[Any], of: Any, rows: Sequence[int]) -> Any:
    if not isinstance(of, kind):
        return kind(of, rows)
    whole = of.rows[rows.start : rows.stop] if isinstance(rows, range) else [of.rows[row] for row in rows]
    return kind(of.of, whole)


def _taken(records: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    if isinstance(rows, range):
        return records.slice(rows.start, len(rows))
    try:
        return records.take(pa.array(rows, pa.int64()))
    except pa.ArrowNotImplementedError:  # views and runs, also inside of other types: Arrow 26
        arrays = [pa.concat_arrays([array.slice(row, 1) for row in rows] or [array[:0]]) for array in records.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=records.schema)


class Columns(Protocol):
    """What a plan has to know of a source.

    Attributes:
        name: as the user named it.
        schema: the columns, in file order. Names may repeat; the plan refuses what it cannot tell apart.
        named: whether the columns have names of their own; without them they go by position.
        format: what it is made of.
    """

    name: str
    schema: pa.Schema
    named: bool
    format: SourceFormat


@runtime_checkable
class WithoutHeader(Protocol):
    """A source whose rows name their fields, so that its start does not tell all columns.

    Attributes:
        first_names: those that it does tell.
    """

    first_names: Sequence[str]

    def look_for(self, names: Collection[str]) -> Sequence[str]:
        """Which columns there are, given what a table takes; none where there are no rows."""

    def all_names(self) -> Sequence[str]:
        """The columns of all its rows, in the order in which they turn up."""

    def settle(self, names: Sequence[str]) -> None:
        """Have these columns, NULL where rows lack them."""


class Source(Columns, Protocol):
    """One input, opened.

    Attributes:
        size: bytes on disk, or None where that is unknown.
    """

    size: int | None

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """The rows from the first to the last, once, with the columns at these positions of `schema`, in this order.

        `direct` names for each column a type that its text may be read as right away, which saves a step, wherever
        PostgreSQL provably reads the same there; a batch may come with the text all the same. Records that are not of
        the format go to `malformed`, if it is given.

        Raises:
            BadRow: a record is not of the format.
            SourceError: the file cannot be read on.
        """

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """The rows with these numbers, which rise, as `Batch.row_of` tells them; read again from the file.

        Only after `batches` has ended, and only if `malformed` was given to it.

        Raises:
            SourceError: the file has changed, or cannot be read again.
        """

    def position(self) -> int:
        """Bytes of `size` that have been read."""

    def result(self) -> FileResult:
        """What was read; complete once `batches` has ended."""

    def close(self) -> None:
        """Release the file. Safe to call twice."""
