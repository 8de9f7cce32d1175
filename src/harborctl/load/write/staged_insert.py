"""Staged rows into the target by one INSERT: they may refer to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from harborctl.load.write.insert import insert_into
from harborctl.model import Account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.staging import Staging


class StagedInsert:
    """The statement of one load that meets no rows of its target."""

    def __init__(self, staging: Staging, plan: Plan) -> None:
        self._staging = staging
        self._plan = plan

    def over(self, staging: Staging) -> StagedInsert:
        """The same for other staged rows."""
        return StagedInsert(staging, self._plan)

    def write(self, connection: Connection, staged: int) -> Account:
        """Insert all `staged` rows. What is not inserted a trigger has dropped."""
        names = self._plan.names
        rows = select(*(self._staging.table.c[name] for name in names))
        if not self._staging.is_spread:
            rows = rows.order_by(self._staging.order)
        statement = insert_into(self._plan.target.table(), self._plan).from_select(list(names), rows)
        inserted = connection.execution_options(preserve_rowcount=True).execute(statement).rowcount
        return Account(staged, inserted=inserted, skipped=staged - inserted)

    @staticmethod
    def written_of(_connection: Connection, numbers: Sequence[int], _names: Sequence[str] | None) -> set[int]:
        """Of the rows with these numbers those that are to be written: all of them."""
        return set(numbers)
