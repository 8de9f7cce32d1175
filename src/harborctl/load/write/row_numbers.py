"""Rows that bring their number along into a staging table, so that they can be found again in their source."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.codecs.codec import Session, codec
from harborctl.load.plan.plan import PlannedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harborctl.load.plan.plan import Plan
    from harborctl.sources.batch import Batch


# A row's number in the load: the position of its source, then its number there. An array of bigint holds it.
SOURCE_FACTOR = 1 << 44


def numbered_plan(plan: Plan, name: str) -> Plan:
    """The plan with the column `name` for the number, which comes last in its batches."""
    column = replace(
        plan.target.columns[0],
        name=name,
        type="bigint",
        base="int8",
        modifier=-1,
        kind="b",
        not_null=True,
        required=False,
        generated=False,
        always_identity=False,
        sequence=None,
        folding=None,
    )
    filled = PlannedColumn(column, len(plan.positions), None, codec(pa.int64(), column, Session(utc=False)))
    read = [planned for planned in plan.columns if planned.position is not None]
    return replace(plan, columns=(*read, filled, *(c for c in plan.columns if c.position is None)))


def numbered(batches: Iterable[Batch], source: int) -> Iterator[Batch]:
    """All batches of a source, with the number of each row in the load as a last column."""
    first = source * SOURCE_FACTOR
    for batch in batches:
        numbers = pa.array(range(first, first + batch.records.num_rows), pa.int64())
        first += batch.records.num_rows
        as_read = batch.as_read
        yield replace(
            batch,
            records=_with(numbers, batch.records),
            as_read=partial(_as_read_with, numbers, as_read) if as_read else None,
        )


def _as_read_with(numbers: pa.Array, as_read: Callable[[], pa.RecordBatch]) -> pa.RecordBatch:
    return _with(numbers, as_read())


def _with(numbers: pa.Array, records: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*records.columns, numbers], names=[*records.schema.names, "number"])
