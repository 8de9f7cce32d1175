"""Typed batches cut by size: memory follows bytes, not rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

if TYPE_CHECKING:
    from collections.abc import Iterator

# Arrow's own pool keeps what is freed: of rows of 50 KB 20 MB more at the peak, and no faster.
pa.set_memory_pool(pa.system_memory_pool())

# About as many bytes as a CSV block makes: small batches keep the encoder's buffers small and the socket busy. What a
# batch becomes on its way (text of floats, literals of arrays) is several times as large, and several are on their way.
BATCH_BYTES = 2 * 1024 * 1024
BATCH_ROWS = 8192


def rows_within(bytes_per_row: float) -> int:
    """How many rows of this size make a batch."""
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(bytes_per_row, 1))))


def bytes_per_row(records: pa.RecordBatch) -> float:
    """How large a row is on average, once it is taken out of what it shares with others."""
    if not records.num_rows:
        return 0
    return float(sum(_bytes_of(array) for array in records.columns) / records.num_rows)


def cut(records: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows in batches of no more than `BATCH_BYTES`, as far as rows are not larger, and `BATCH_ROWS`."""
    step = rows_within(bytes_per_row(records))
    for start in range(0, records.num_rows, step):
        yield from _halved(records.slice(start, step))


def _halved(records: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    rows = records.num_rows
    # What all rows share does not become less by halving, and is no reason for it.
    if rows > 1 and sum(array.nbytes for array in records.columns if not _shares(array.type)) > 2 * BATCH_BYTES:
        yield from _halved(records.slice(0, rows // 2))
        yield from _halved(records.slice(rows // 2))
    else:
        yield records


def _bytes_of(array: pa.Array) -> float:
    if types.is_dictionary(array.type):
        values = array.dictionary
        return float(array.indices.nbytes + len(array) * values.nbytes / max(len(values), 1))
    return float(array.nbytes)


def _shares(arrow: pa.DataType) -> bool:
    return bool(
        types.is_dictionary(arrow)
        or types.is_run_end_encoded(arrow)
        or types.is_string_view(arrow)
        or types.is_binary_view(arrow)
    )
