"""Puts staged rows into the target when some may be bad: those that the target refuses are found and put aside.

All rows are tried in one statement. If that fails, rows which a query shows to violate the constraint are taken out;
else the rows are halved by their numbers, each half a statement of its own over a view of the staging table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Column, MetaData, Table, delete, func, select
from sqlalchemy.exc import DBAPIError

from harborctl.db.constraints import constraints_of
from harborctl.load.attempts import of_rows
from harborctl.load.merge import Account
from harborctl.load.probes import can_probe, violations_in
from harborctl.load.rejects import Reason
from harborctl.load.staging import TEMPORARY_SCHEMA, Staging, identifier
from harborctl.model import Mode

if TYPE_CHECKING:
    from harborctl.db.constraints import Constraint
    from harborctl.errors import HarborctlError
    from harborctl.load.modes import Work

WINDOW = "harborctl_window"

# Writes so many staged rows, which it reads from the table given, and says what became of them.
Write = Callable[[Staging, int], "Account"]


@dataclass(frozen=True, slots=True)
class _Range:
    """Rows by their numbers, both ends among them, and how many there are."""

    first: int
    last: int
    rows: int


class LateRejects:
    """The staged rows of one load."""

    def __init__(self, work: Work, staging: Staging) -> None:
        self._work = work
        self._connection = work.connection
        self._table = staging.table
        self._number = staging.table.c[staging.order.name]
        self._known = constraints_of(work.connection, work.plan.target.oid)
        self._window: Staging | None = None
        self.count = 0

    def write(self, whole: Staging, write: Write) -> Account:
        """Write all rows that the target takes; the others are put aside."""
        account = Account()
        waiting = [found] if (found := self._range(None)) else []
        is_first, probed = True, set[str]()
        while waiting:
            part = waiting.pop()
            try:
                with self._connection.begin_nested():
                    staging = self._look_at(part) or whole
                    account = _sum(account, write(staging, part.rows))
            except DBAPIError as error:
                failure = of_rows(error)
                name = error.orig.diag.constraint_name if isinstance(error.orig, psycopg.Error) else None
                if part.rows == 1:
                    self._reject(part.first, failure, name)
                    continue
                if name and name not in probed:
                    probed.add(name)
                    self._probe(name)
                    waiting += [left] if (left := self._range(part)) else []
                    continue
                if is_first:
                    is_first, self._window = False, self._made_window()  # not in a savepoint, which would take it back
                waiting += reversed(self._halves(part))
        return account

    def reject(self, number: int, reason: Reason) -> None:
        """Put a staged row aside."""
        if self._work.rejects is None:
            raise AssertionError("a load that puts no rows aside")
        self._work.rejects.add(number, reason)
        self._connection.execute(delete(self._table).where(self._number == number))
        self.count += 1

    def _reject(self, number: int, failure: HarborctlError, name: str | None) -> None:
        column = failure.column
        constraint = self._constraint(name)
        if column is None and constraint is not None and len(constraint.columns) == 1:
            column = constraint.columns[0]
        value = None
        if column in self._work.plan.names:
            text = func.concat(self._table.c[column])
            value = self._connection.execute(select(text).where(self._number == number)).scalar_one()
        self.reject(number, Reason(failure.code, failure.message, column, value))

    def _probe(self, name: str) -> None:
        constraint = self._constraint(name)
        if constraint is None or not self._is_certain() or not can_probe(constraint, self._work.plan):
            return
        for violation in violations_in(self._connection, self._work.plan, constraint, self._table, self._number.name):
            if violation.is_certain:
                self.reject(violation.row, violation.reason)

    def _is_certain(self) -> bool:
        """Whether each staged row is written, or equals one that is there: then what violates a constraint is bad."""
        plan = self._work.plan
        if plan.merge is None or plan.mode is Mode.IGNORE or plan.merge.newest_by:
            return False
        return {*plan.merge.overwritten, *plan.merge.key.columns} >= set(plan.names)

    def _constraint(self, name: str | None) -> Constraint | None:
        return next((constraint for constraint in self._known if constraint.name == name), None)

    # -- parts of the staged rows

    def _range(self, within: _Range | None) -> _Range | None:
        query = select(func.min(self._number), func.max(self._number), func.count()).select_from(self._table)
        if within is not None:
            query = query.where(self._number.between(within.first, within.last))
        first, last, rows = self._connection.execute(query).one()
        return _Range(first, last, rows) if rows else None

    def _halves(self, part: _Range) -> list[_Range]:
        middle = self._connection.execute(
            select(self._number)
            .where(self._number.between(part.first, part.last))
            .order_by(self._number)
            .offset(part.rows // 2)
            .limit(1)
        ).scalar_one()
        low = _Range(part.first, middle - 1, part.rows // 2)
        return [low, _Range(middle, part.last, part.rows - part.rows // 2)]

    def _look_at(self, part: _Range) -> Staging | None:
        """The staging table, with the rows of this part only; None as long as it is looked at as a whole."""
        if self._window is None:
            return None
        for name, value in (("harborctl.first", part.first), ("harborctl.last", part.last)):
            self._connection.execute(select(func.set_config(name, str(value), True)))
        return self._window

    def _made_window(self) -> Staging:
        driver = cast("psycopg.Connection[Any]", self._connection.connection.driver_connection)
        table, number = identifier(self._table), sql.Identifier(self._number.name)
        driver.execute(sql.SQL("CREATE INDEX ON {} ({})").format(table, number))
        driver.execute(
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
