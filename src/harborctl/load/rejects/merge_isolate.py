"""Puts staged rows into the target when some may be bad: those that the target refuses are found and put aside.

All rows are tried in one statement. If that fails, rows which a query shows to violate the constraint are taken out;
else the rows are halved by their numbers, each half a statement of its own over a view of the staging table. How many
rows are tried together goes down with each refusal, and doubles with each success. Rows that refer to others of their
table wait for these: what waits is tried together, as long as more goes in.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Column, MetaData, Table, delete, func, select
from sqlalchemy.exc import DBAPIError

from harborctl.db.constraints import constraints_of, named
from harborctl.load.merge.statements import Merge, is_exact
from harborctl.load.rejects.constraint_queries import can_probe, violations_in
from harborctl.load.rejects.isolate import MOST_SAVEPOINTS
from harborctl.load.rejects.savepoint_send import of_rows
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.staging import TEMPORARY_SCHEMA, Staging, identifier
from harborctl.model import Account, Mode

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.constraints import Constraint
    from harborctl.errors import HarborctlError
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import Rejects

WINDOW = "harborctl_window"


@dataclass(frozen=True, slots=True)
class _Range:
    """Rows by their numbers, both ends among them, and how many there were when `put_aside` had been put aside."""

    first: int
    last: int
    rows: int
    put_aside: int


class _Order(Enum):
    """What becomes of rows that refer to others of their table which are not there."""

    TOGETHER = "with all that are tried with them they wait"
    PARTS = "one by one they wait for each other"
    LAST = "they are bad"


class LateRejects:
    """The staged rows of one load."""

    def __init__(self, connection: Connection, plan: Plan, rejects: Rejects, staging: Staging, merge: Merge) -> None:
        self._connection = connection
        self._driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        self._plan = plan
        self._rejects = rejects
        self._merge = merge
        self._table = staging.table
        self._number = staging.table.c[staging.order.name]
        self._known = constraints_of(connection, plan.target.oid)
        self._refers = any(_refers(constraint) for constraint in self._known)
        self._probed = set[str]()
        self._part_merge: Merge | None = None
        self._most = sys.maxsize
        self._savepoints = 0
        self._may_seek = True
        self.count = 0

    def write(self) -> Account:
        """Write all rows that the target takes; the others are put aside."""
        account, orders = Account(), iter(_Order)
        order = next(orders)
        while (rest := self._range(None)) is not None:
            before = self.count
            written, waits = self._round(rest, order)
            account = _sum(account, written)
            if not waits:
                break
            if not written.rows_read and self.count == before:
                order = next(orders)
        return account

    def _round(self, rest: _Range, order: _Order) -> tuple[Account, bool]:
        """Try these rows; what became of those that went in, and whether others are left that wait.

        While bad rows are sought, what goes well is taken back, and left to the next round.
        """
        account, waits, seeks, waiting = Account(), False, False, [rest]
        self._most = sys.maxsize
        # Rows that are put aside leave others without what they refer to.
        self._probed -= {name for constraint in self._known if _refers(constraint) for name in constraint.names}
        while waiting:
            left = self._left(waiting.pop())
            if left is None:
                continue
            *others, part = self._next(left)
            waiting += others
            try:
                with self._driver.transaction():
                    written = self._merge_of(part).write(self._connection, part.rows)
                    if seeks:
                        raise psycopg.Rollback
                    if self._part_merge is not None:  # the others will be tried once more
                        self._connection.execute(delete(self._table).where(self._is_in(part)))
            except DBAPIError as error:
                name = error.orig.diag.constraint_name if isinstance(error.orig, psycopg.Error) else None
                parts = self._divided(part, of_rows(error), name, order)
                waits |= parts is None
                waiting += parts or []
                seeks |= self._may_seek and order is _Order.TOGETHER and self._savepoints > MOST_SAVEPOINTS
            else:
                self._most *= 2
                if not seeks:
                    self._savepoints += 1
                    account = _sum(account, written)
        self._may_seek &= not seeks
        return account, waits or seeks

    def _divided(self, part: _Range, failure: HarborctlError, name: str | None, order: _Order) -> list[_Range] | None:
        """What is left of a part that was refused, the first rows last; None if it waits for other rows."""
        constraint = named(self._known, name)
        refers = constraint is not None and _refers(constraint)
        if name and name not in self._probed and (part.rows > 1 or refers):
            self._probed.add(name)
            self._probe(constraint)
            return [part]
        if refers and (order is _Order.TOGETHER or (order is _Order.PARTS and part.rows == 1)):
            return None
        if part.rows == 1:
            self._reject(part.first, failure, constraint)
            return []
        if self._part_merge is None:  # made here: a savepoint would take its view back
            self._part_merge = Merge(self._made_window(), self._plan, self._merge.plan)
        self._most = part.rows // 2
        return self._parted(part, part.rows // 2)[::-1]

    def reject(self, number: int, reason: Reason) -> None:
        """Put a staged row aside."""
        self._rejects.add(number, reason)
        self._connection.execute(delete(self._table).where(self._number == number))
        self.count += 1

    def _reject(self, number: int, failure: HarborctlError, constraint: Constraint | None) -> None:
        column = failure.column
        if column is None and constraint is not None and len(constraint.columns) == 1:
            column = constraint.columns[0]
        value = None
        if column in self._plan.names:
            text = func.concat(self._table.c[column])
            value = self._connection.execute(select(text).where(self._number == number)).scalar_one()
        self.reject(number, Reason(failure.code, failure.message, column, value))

    def _probe(self, constraint: Constraint | None) -> None:
        """Put the rows aside that violate the constraint for certain: those that the load would write."""
        plan = self._plan
        if constraint is None or not self._writes(constraint) or not can_probe(constraint, plan, has_all=True):
            return
        while True:
            found = violations_in(self._connection, plan, constraint, self._table, self._number.name)
            certain = {violation.row: violation.reason for violation in found if violation.is_certain}
            # An UPDATE that leaves a foreign key as it is does not ask whether that holds.
            names = constraint.columns if constraint.kind == "f" else None
            bad = self._merge.written_of(self._connection, list(certain), names) if certain else set()
            for number in sorted(bad):
                self.reject(number, certain[number])
            if not bad or not _refers(constraint):
                return

    def _writes(self, constraint: Constraint) -> bool:
        """Whether a row that is written has the staged values in all columns of the constraint."""
        plan = self._plan
        if plan.merge is None:
            return False
        kept = set(constraint.columns) - set(plan.merge.overwritten)
        exact = (column for name in plan.merge.key.columns if (column := plan.target.column(name)) and is_exact(column))
        return plan.mode is Mode.IGNORE or kept <= {column.name for column in exact}

    # -- parts of the staged rows

    def _is_in(self, part: _Range) -> Any:
        return self._number.between(part.first, part.last)

    def _range(self, within: _Range | None) -> _Range | None:
        query = select(func.min(self._number), func.max(self._number), func.count()).select_from(self._table)
        if within is not None:
            query = query.where(self._is_in(within))
        first, last, rows = self._connection.execute(query).one()
        return _Range(first, last, rows, self.count) if rows else None

    def _left(self, part: _Range) -> _Range | None:
        """The part without rows that have been put aside meanwhile: a query finds those of all parts."""
        return part if part.put_aside == self.count else self._range(part)

    def _next(self, part: _Range) -> list[_Range]:
        """As many of the rows as are tried together now, behind the others."""
        return self._parted(part, self._most)[::-1] if part.rows > self._most else [part]

    def _parted(self, part: _Range, rows: int) -> list[_Range]:
        """The first so many rows, and the others."""
        middle = self._connection.execute(
            select(self._number).where(self._is_in(part)).order_by(self._number).offset(rows).limit(1)
        ).scalar_one()
        low = replace(part, last=middle - 1, rows=rows)
        return [low, replace(part, first=middle, rows=part.rows - rows)]

    def _merge_of(self, part: _Range) -> Merge:
        """The merge of this part's rows only; that of all staged rows as long as they were not divided."""
        if self._part_merge is None:
            return self._merge
        bounds = (("harborctl.first", part.first), ("harborctl.last", part.last))
        self._connection.execute(select(*(func.set_config(name, str(value), True) for name, value in bounds)))
        return self._part_merge

    def _made_window(self) -> Staging:
        table, number = identifier(self._table), sql.Identifier(self._number.name)
        self._driver.execute(sql.SQL("CREATE INDEX ON {} ({})").format(table, number))
        self._driver.execute(
            sql.SQL(
                "CREATE TEMPORARY VIEW {} AS SELECT * FROM {}"
                " WHERE {} BETWEEN pg_catalog.current_setting('harborctl.first')::bigint"
                " AND pg_catalog.current_setting('harborctl.last')::bigint"
            ).format(sql.Identifier(TEMPORARY_SCHEMA, WINDOW), table, number)
        )
        columns: list[Column[Any]] = [Column(column.name, column.type) for column in self._table.columns]
        view = Table(WINDOW, MetaData(), *columns, schema=TEMPORARY_SCHEMA)
        return Staging(view, view.c[self._number.name])


def _sum(one: Account, other: Account) -> Account:
    return Account(*(getattr(one, field.name) + getattr(other, field.name) for field in fields(Account)))


def _refers(constraint: Constraint) -> bool:
    """Whether it wants rows of the target to be there."""
    return constraint.reference is not None and constraint.reference.own
