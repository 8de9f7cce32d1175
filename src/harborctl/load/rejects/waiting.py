"""Rows that refer to others of their table, which stand further down or in another source.

Once all others are in they are staged, those of all sources in one table, and go into the target together.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from harborctl.load.rejects.isolate import careful_writer
from harborctl.load.rejects.merge_isolate import LateRejects
from harborctl.load.write.bad_row import Reason, Written, value_of
from harborctl.load.write.row_numbers import SOURCE_FACTOR, numbered
from harborctl.load.write.staged_insert import StagedInsert
from harborctl.load.write.staging import ROW_NUMBER, STAGING, Staging, create_numbered, free_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.load.rejects.isolate import Waiting
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import LoadOptions


class _Places:
    """Puts aside rows that are known by their numbers in the staging table."""

    def __init__(self, waiting: Sequence[Waiting]) -> None:
        self._waiting = waiting
        self._ends = [list(accumulate(batch.records.num_rows for batch in each.batches)) for each in waiting]

    def add(self, number: int, reason: Reason) -> None:
        """Put aside the row with this number."""
        source, row = divmod(number, SOURCE_FACTOR)
        each, ends = self._waiting[source], self._ends[source]
        index = bisect_right(ends, row)
        batch, row = each.batches[index], row - (ends[index - 1] if index else 0)
        if reason.column in each.plan.names:
            reason = replace(reason, value=value_of(each.plan, batch, row, reason.column))
        each.refuse(batch, row, reason)


def write_waiting(
    connection: Connection, waiting: Sequence[Waiting], options: LoadOptions, progress: Progress
) -> Written:
    """Put the rows into their target, as far as what they refer to is there or comes with them.

    Raises:
        BadRow: a row cannot go in, and there is no place for rejects.
    """
    if not waiting:
        return Written()
    plan = waiting[0].plan
    number = free_name(ROW_NUMBER, plan.names)
    table = create_numbered(connection, plan, STAGING, number)
    for position, each in enumerate(waiting):
        writer = careful_writer(connection, table, each.plan, options, each.refuse, number)
        writer.write(numbered(each.batches, position), progress)
    staging = Staging(table, table.c[number])
    account = LateRejects(connection, plan, _Places(waiting), staging, StagedInsert(staging, plan)).write()
    return Written(account.rows_read, account.inserted)
