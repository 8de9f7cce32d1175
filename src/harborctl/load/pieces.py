"""Parts of batches that still know where their rows stand. A part of a part is a part of the whole: nothing nests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from harborctl.sources.batch import Batch


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
