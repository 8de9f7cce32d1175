"""What is noted of rows while they stream by: keys that are NULL, whether keys rise, where a row stands.

All of it is told from the source's values, in the thread that reads, at a cost that does not show.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.errors import BadRow, Location
from harborctl.sqlstate import NOT_NULL_VIOLATION

if TYPE_CHECKING:
    from collections.abc import Callable

    from harborctl.load.plan.plan import Plan
    from harborctl.sources.batch import Batch

KEY_HINT = "A row without a key matches no row: fill it in, or choose another --key."


class KeyWatch:
    """Watches the key of all rows of a load, whose plans differ in the order of columns only.

    Args:
        refuses: a row without its key ends the load.

    Attributes:
        rises: the key is a whole number and has only risen so far: no two rows have the same.
    """

    def __init__(self, plan: Plan, *, refuses: bool = True) -> None:
        key = plan.merge.key if plan.merge else None
        self._required: tuple[str, ...] = ()
        self._rising: str | None = None
        self._last: int | None = None
        if key and key.is_plain:
            names = tuple(part.text for part in key.parts)
            self._required = names if key.nulls_distinct and refuses else ()
            column = plan.target.column(names[0])
            if len(names) == 1 and column and column.base in {"int2", "int4", "int8"}:
                self._rising = names[0]
        self.rises = self._rising is not None

    def see(self, plan: Plan, batch: Batch) -> None:
        """Look at the next batch.

        Raises:
            BadRow: a row's key is NULL.
        """
        read = [column.target.name for column in plan.columns if column.position is not None]
        for name in self._required:
            if name in read and batch.records.column(read.index(name)).null_count:
                nulls = pc.is_null(batch.records.column(read.index(name)))
                raise BadRow(
                    f"key column {name} is NULL",
                    code=NOT_NULL_VIOLATION,
                    location=batch.location(pc.index(nulls, True).as_py()),
                    column=name,
                    hint=KEY_HINT,
                )
        if self.rises and batch.records.num_rows:
            self.rises = self._rising in read and self._rises_in(batch.records.column(read.index(self._rising)))

    def _rises_in(self, keys: pa.Array) -> bool:
        try:
            numbers = keys.cast(pa.int64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return False
        if numbers.null_count or (self._last is not None and numbers[0].as_py() <= self._last):
            return False
        self._last = numbers[-1].as_py()
        return bool(pc.all(pc.less(numbers[:-1], numbers[1:])).as_py() is not False)


class Places:
    """Where each row of a load stands in its source. Keeps what a batch needs for that, which may be its text."""

    def __init__(self) -> None:
        self._first_rows: list[int] = []
        self._lines: list[tuple[str, Callable[[int], int]]] = []
        self._rows = 0

    def see(self, _: Plan, batch: Batch) -> None:
        """Note the next batch."""
        self._first_rows.append(self._rows)
        self._lines.append((batch.file, batch.line_of))
        self._rows += batch.records.num_rows

    def of(self, number: int) -> Location:
        """The place of the row with this number, counted from 1 over all sources."""
        index = bisect_right(self._first_rows, number - 1) - 1
        file, line_of = self._lines[index]
        return Location(file, line_of(number - 1 - self._first_rows[index]))
