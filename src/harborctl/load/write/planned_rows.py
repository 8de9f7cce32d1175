"""The rows of a source as its plan wants them: a column for each that is filled, and nothing in columns without a name.

A header that ends in a delimiter names a last column ''. Rows that end in one, too, are what it is about; a value there
has no place to go to, and is not left out unsaid.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.codecs.literals import bare
from harborctl.errors import BadRow
from harborctl.load.write.bad_row import Reason
from harborctl.model import SourceFormat
from harborctl.sources.batch import without
from harborctl.sqlstate import BAD_COPY_FILE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harborctl.load.plan.dialect import NullRule
    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.bad_row import Note
    from harborctl.sources.batch import Batch, Malformed, Source


def planned_rows(
    source: Source, plan: Plan, malformed: Malformed | None = None, refuse: Note | None = None
) -> Iterator[Batch]:
    """All rows, with one column for each of `plan.positions`. `refuse` takes rows that cannot go in.

    Raises:
        BadRow: a column without a name has a value, and nobody takes the row; or as `Source.batches`.
    """
    wanted: list[tuple[int, pa.DataType | None]] = list(zip(plan.positions, plan.direct_types, strict=True))
    unnamed: list[tuple[int, pa.DataType | None]]
    if source.format is SourceFormat.JSONL:  # hands out a column as documents and as text at once
        unnamed = [(position, pa.string()) for position in plan.unnamed]
    else:
        wanted = [(position, _direct(plan, position)) for position, _ in wanted]
        unnamed = [(position, None) for position in plan.unnamed]
    rules = [column.nulls for column in plan.columns if column.position is not None]
    read = list(dict.fromkeys([*wanted, *unnamed]))
    for batch in source.batches([position for position, _ in read], [direct for _, direct in read], malformed):
        sound = batch
        for column in unnamed:
            sound = _without_values(sound, read.index(column), column[0], refuse)
        if read != wanted:
            sound = _arranged(sound, [read.index(column) for column in wanted])
        yield _with_nulls(sound, rules) if any(rules) else sound


def _with_nulls(batch: Batch, rules: Sequence[NullRule | None]) -> Batch:
    """The batch with NULL in the fields in which the options want it, and nowhere else."""

    def ruled(records: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [rule.of(array) if rule else array for rule, array in zip(rules, records.columns, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])

    as_read = batch.as_read
    return replace(
        batch, records=ruled(batch.records), as_read=(lambda: ruled(as_read())) if as_read is not None else None
    )


def _direct(plan: Plan, position: int) -> pa.DataType | None:
    """The type that all columns take which this one fills."""
    wanted = zip(plan.positions, plan.direct_types, strict=True)
    found = {direct for place, direct in wanted if place == position}
    return found.pop() if len(found) == 1 else None


def _arranged(batch: Batch, indexes: Sequence[int]) -> Batch:
    as_read = batch.as_read
    return replace(
        batch,
        records=_columns(batch.records, indexes),
        as_read=partial(_as_read, as_read, indexes) if as_read else None,
    )


def _as_read(as_read: Callable[[], pa.RecordBatch], indexes: Sequence[int]) -> pa.RecordBatch:
    return _columns(as_read(), indexes)


def _columns(records: pa.RecordBatch, indexes: Sequence[int]) -> pa.RecordBatch:
    arrays = [records.column(index) for index in indexes]
    return pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])


def _without_values(batch: Batch, index: int, position: int, refuse: Note | None) -> Batch:
    """The rows that have nothing in this column."""
    array = batch.records.column(index)
    if array.null_count == len(array):
        return batch
    values = bare(array).to_pylist()
    rows = [row for row, value in enumerate(values) if value is not None and value not in ("", b"")]
    for row in rows:
        message = f"column {position + 1} has no name, and here it has a value"
        value = str(values[row])
        if refuse is None:
            raise BadRow(
                message,
                code=BAD_COPY_FILE_FORMAT,
                location=batch.location(row),
                value=value,
                hint=f"Load it with --map '#{position + 1}=COLUMN', or leave it out with"
                f" --skip-columns '#{position + 1}'.",
            )
        refuse(batch, row, Reason(BAD_COPY_FILE_FORMAT, message, value=value))
    return without(batch, rows)
