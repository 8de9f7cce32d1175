"""Parts of batches that still know where their rows stand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from harborctl.sources.batch import Batch


def stretch(batch: Batch, start: int, end: int) -> Batch:
    """The rows from `start` up to `end`."""
    if start == 0 and end == batch.records.num_rows:
        return batch
    as_read, line_of, row_of = batch.as_read, batch.line_of, batch.row_of
    return replace(
        batch,
        records=batch.records.slice(start, end - start),
        line_of=lambda row: line_of(start + row),
        row_of=lambda row: row_of(start + row),
        as_read=(lambda: as_read().slice(start, end - start)) if as_read else None,
    )


def without(batch: Batch, rows: Collection[int]) -> Batch:
    """All rows but these."""
    if not rows:
        return batch
    return taken(batch, [row for row in range(batch.records.num_rows) if row not in rows])


def taken(batch: Batch, rows: Sequence[int]) -> Batch:
    """These rows."""
    as_read, line_of, row_of = batch.as_read, batch.line_of, batch.row_of
    return replace(
        batch,
        records=_taken(batch.records, rows),
        line_of=lambda row: line_of(rows[row]),
        row_of=lambda row: row_of(rows[row]),
        as_read=(lambda: _taken(as_read(), rows)) if as_read else None,
    )


def _taken(records: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    try:
        return records.take(pa.array(rows, pa.int64()))
    except pa.ArrowNotImplementedError:  # views and runs, also inside of other types: Arrow 26
        arrays = [pa.concat_arrays([array.slice(row, 1) for row in rows] or [array[:0]]) for array in records.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=records.schema)
