"""What sources hand on: batches of rows that know where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from harborctl.model import FileResult, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one source.

    Attributes:
        records: the rows; of a CSV every column is `string`, or of the type that it was asked to be read as.
        file: the source, as the user named it.
        as_read: makes the rows anew with every field as it stands in the source, where `records` has other types.
        line_of: 0-based row of `records` → 1-based physical line (Parquet: row) at which it starts in the source.
    """

    records: pa.RecordBatch
    file: str
    line_of: Callable[[int], int]
    as_read: Callable[[], pa.RecordBatch] | None = None

    def location(self, row: int) -> Location:
        """Where the 0-based `row` of this batch stands in its source."""
        return Location(self.file, self.line_of(row))


class Source(Protocol):
    """One input, opened.

    Attributes:
        name: as the user named it.
        schema: the columns, in file order. Names may repeat; the plan refuses what it cannot tell apart.
        named: whether the columns have names of their own; without them they go by position.
        size: bytes on disk, or None where that is unknown.
    """

    name: str
    schema: pa.Schema
    named: bool
    size: int | None

    def batches(self, columns: Sequence[int], direct: Sequence[pa.DataType | None] = ()) -> Iterator[Batch]:
        """The rows from the first to the last, once, with the columns at these positions of `schema`, in this order.

        `direct` names for each column a type that its text may be read as right away, which saves a step, wherever
        PostgreSQL provably reads the same there; a batch may come with the text all the same.

        Raises:
            BadRow: a record is not of the format.
            SourceError: the file cannot be read on.
        """

    def position(self) -> int:
        """Bytes of `size` that have been read."""

    def result(self) -> FileResult:
        """What was read; complete once `batches` has ended."""

    def close(self) -> None:
        """Release the file. Safe to call twice."""
