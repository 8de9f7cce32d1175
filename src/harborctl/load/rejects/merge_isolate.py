"""Puts staged rows into the target when some may be bad: those that the target refuses are found and put aside.

All rows are tried in one statement. If that fails, rows which a query shows to violate the constraint are taken out;
else the rows are halved by their numbers, each half a statement of its own over a view of the staging table. How many
rows are tried together goes down with each refusal, and doubles with each success. Rows that refer to others of their
table wait for these: what waits is tried together, as long as more goes in. Those that seem to refer to nothing come
last, so that the others, which may refer to each other in rings, are whole.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, cast

import psycopg
from psycopg import sql
from sqlalchemy import ARRAY, BigInteger, Column, MetaData, Table, any_, delete, func, literal, select, update
from sqlalchemy.exc import DBAPIError

from harborctl.db.constraints import constraints_of, named
from harborctl.db.failures import of_shard
from harborctl.db.storage import Storage
from harborctl.errors import StatementFailed
from harborctl.load.merge.statements import is_exact
from harborctl.load.rejects.constraint_queries import can_probe, violations_in
from harborctl.load.rejects.isolate import MOST_SAVEPOINTS
from harborctl.load.rejects.savepoint_send import of_rows
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.staging import TEMPORARY_SCHEMA, Staging, identifier
from harborctl.model import Account, Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from harborctl.db.constraints import Constraint
    from harborctl.errors import HarborctlError
    from harborctl.load.plan.plan import Plan

WINDOW = "harborctl_window"

# Taken off the number of a row that waits because it seems to refer to nothing: it comes before all others then, out of
# the way of those that are tried together. No row has so high a number.
SUSPECT = 1 << 62


@dataclass(frozen=True, slots=True)
class _Range:
    """Rows by their numbers, both ends among them, and how many there were after so many changes."""

    first: int
    last: int
    rows: int
    changes: int


_OTHERS, _SUSPECTS = _Range(0, SUSPECT, 0, 0), _Range(-SUSPECT, -1, 0, 0)


class _Order(Enum):
    """What becomes of rows that refer to others of their table which are not there."""

    TOGETHER = "with all that are tried with them they wait"
    PARTS = "one by one they wait for each other"
    LAST = "they are bad"


class Statement(Protocol):
    """What writes staged rows into the target, and may be refused."""

    def over(self, staging: Staging) -> Statement:
        """The same for other staged rows."""

    def write(self, connection: Connection, staged: int) -> Account:
        """Write all `staged` rows, and say what became of them."""

    def written_of(self, connection: Connection, numbers: Sequence[int], names: Sequence[str] | None) -> set[int]:
        """Of the rows with these numbers those that are to be written; with `names` only those in which one of these
        columns is new."""


class PutsAside(Protocol):
    """Whoever takes bad rows."""

    def add(self, number: int, reason: Reason) -> None:
        """Put aside the row with this number."""


class NoRejects:
    """No place for bad rows: the first one ends the load."""

    def add(self, _number: int, reason: Reason) -> None:
        """See `PutsAside`."""
        raise StatementFailed(reason.message, code=reason.code)


class LateRejects:
    """The staged rows of one load."""

    def __init__(
        self, connection: Connection, plan: Plan, rejects: PutsAside, staging: Staging, statement: Statement
    ) -> None:
        self._connection = connection
        self._driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        self._plan = plan
        self._rejects = rejects
        self._statement = statement
        self._is_spread = staging.is_spread
        self._table = staging.table
        self._number = staging.table.c[staging.order.name]
        self._known = constraints_of(connection, plan.target.oid)
        self._refers = any(_refers(constraint) for constraint in self._known)
        self._probed = set[str]()
        self._window = self._table
        self._part_statement: Statement | None = None
        self._most = sys.maxsize
        self._savepoints = 0
        self._may_seek = True
        self._changes = 0
        self.count = 0

    def write(self) -> Account:
        """Write all rows that the target takes; the others are put aside."""
        account = self._write_rows(_OTHERS)
        if self._part_statement is None:  # they went in as a whole
            return account
        return account + self._write_rows(_SUSPECTS)

    def _write_rows(self, within: _Range) -> Account:
        account, orders = Account(), iter(_Order)
        order = next(orders)
        while (rest := self._range(within)) is not None:
            before = self.count
            written, waits = self._round(rest, order)
            account += written
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
                    written = self._statement_for(part).write(self._connection, part.rows)
                    if seeks:
                        raise psycopg.Rollback
                    if self._part_statement is not None:  # the others will be tried once more
                        self._connection.execute(delete(self._table).where(self._is_in(part)))
            except DBAPIError as error:
                failure = of_rows(error)
                if self._plan.target.storage is Storage.SHARDS:
                    failure = of_shard(failure)
                parts = self._divided(part, failure, self._violated(error, failure), order)
                waits |= parts is None
                waiting += parts or []
                seeks |= self._may_seek and order is _Order.TOGETHER and self._savepoints > MOST_SAVEPOINTS
            else:
                self._most *= 2
                if not seeks:
                    self._savepoints += 1
                    account += written
        self._may_seek &= not seeks
        return account, waits or seeks

    def _violated(self, error: DBAPIError, failure: HarborctlError) -> str | None:
        """The name of the constraint. Citus hands on what another server has said, and not which it was."""
        name = error.orig.diag.constraint_name if isinstance(error.orig, psycopg.Error) else None
        if name or self._plan.target.storage is not Storage.SHARDS:
            return name
        return next((each for one in self._known for each in one.names if f'"{each}"' in failure.message), None)

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
        self._make_window()
        self._most = part.rows // 2
        return self._parted(part, part.rows // 2)[::-1]

    def reject(self, reasons: Mapping[int, Reason]) -> None:
        """Put staged rows aside, by their numbers."""
        if not reasons:
            return
        for number in sorted(reasons):
            self._rejects.add(number if number >= 0 else number + SUSPECT, reasons[number])
        numbers = literal(list(reasons), ARRAY(BigInteger))
        self._connection.execute(delete(self._table).where(self._number == any_(numbers)))
        self.count += len(reasons)
        self._changes += 1

    def _reject(self, number: int, failure: HarborctlError, constraint: Constraint | None) -> None:
        column = failure.column
        if column is None and constraint is not None and len(constraint.columns) == 1:
            column = constraint.columns[0]
        value = None
        if column in self._plan.names:
            text = func.concat(self._table.c[column])
            value = self._connection.execute(select(text).where(self._number == number)).scalar_one()
        self.reject({number: Reason(failure.code, failure.message, column, value)})

    def _probe(self, constraint: Constraint | None) -> None:
        """Put the rows aside that violate the constraint for certain: those that the load would write."""
        plan = self._plan
        if constraint is None or not self._writes(constraint) or not can_probe(constraint, plan, has_all=True):
            return
        if _refers(constraint) and plan.target.before_triggers:
            self._suspect(constraint)
            return
        if repeats_are_bad := self._keeps_first_of(constraint):
            for other in self._known:
                if other.kind in "cf" and other.name not in self._probed:
                    self._probed.add(other.name)
                    self._probe(other)
        while True:
            found = violations_in(self._connection, plan, constraint, self._table, self._number.name)
            certain = {each.row: each.reason for each in found if each.is_certain or repeats_are_bad}
            # An UPDATE that leaves a foreign key as it is does not ask whether that holds.
            names = constraint.columns if constraint.kind == "f" else None
            bad = self._statement.written_of(self._connection, list(certain), names) if certain else set()
            self.reject({number: certain[number] for number in bad})
            if not bad or not _refers(constraint):
                return

    def _suspect(self, constraint: Constraint) -> None:
        """Let the rows wait that refer to nothing, unless a trigger changes them: without them the others may go in."""
        self._make_window()
        while True:
            self._look_at(_OTHERS)
            found = violations_in(self._connection, self._plan, constraint, self._window, self._number.name)
            numbers = [violation.row for violation in found]
            if not numbers:
                return
            suspects = self._number == any_(literal(numbers, ARRAY(BigInteger)))
            self._connection.execute(
                update(self._table).where(suspects).values({self._number.name: self._number - SUSPECT})
            )
            self._changes += 1

    def _keeps_first_of(self, constraint: Constraint) -> bool:
        """Whether of rows with the same values the first goes in, once all rows are gone that violate another one."""
        unique = [one for one in self._known if one.kind not in "cf"]
        others = (one for one in self._known if one.kind in "cf")
        return (
            unique == [constraint]
            and self._plan.merge is None
            and not self._plan.target.before_triggers
            and all(can_probe(one, self._plan, has_all=True) and not _refers(one) for one in others)
        )

    def _writes(self, constraint: Constraint) -> bool:
        """Whether a row that is written has the staged values in all columns of the constraint."""
        plan = self._plan
        if plan.merge is None:
            return True
        kept = set(constraint.columns) - set(plan.merge.overwritten)
        exact = (column for name in plan.merge.key.columns if (column := plan.target.column(name)) and is_exact(column))
        return plan.mode is Mode.IGNORE or kept <= {column.name for column in exact}

    # -- parts of the staged rows

    def _is_in(self, part: _Range) -> Any:
        return self._number.between(part.first, part.last)

    def _range(self, within: _Range) -> _Range | None:
        query = select(func.min(self._number), func.max(self._number), func.count()).where(self._is_in(within))
        first, last, rows = self._connection.execute(query).one()
        return _Range(first, last, rows, self._changes) if rows else None

    def _left(self, part: _Range) -> _Range | None:
        """The part without rows that have left it meanwhile: a query finds those of all parts."""
        return part if part.changes == self._changes else self._range(part)

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

    def _statement_for(self, part: _Range) -> Statement:
        """What writes this part's rows only; all staged rows as long as they were not divided."""
        if self._part_statement is None:
            return self._statement
        self._look_at(part)
        return self._part_statement

    def _look_at(self, part: _Range) -> None:
        """Let the view have these rows."""
        if self._is_spread:  # settings of this server are unknown to others
            self._create_window(sql.SQL("{} AND {}").format(part.first, part.last))
            return
        bounds = (("harborctl.first", part.first), ("harborctl.last", part.last))
        self._connection.execute(select(*(func.set_config(name, str(value), True) for name, value in bounds)))

    def _make_window(self) -> None:
        """Create the view, if it is not there yet; not in a savepoint, which would take it back."""
        if self._part_statement is not None:
            return
        if not self._is_spread:
            table, number = identifier(self._table), sql.Identifier(self._number.name)
            self._driver.execute(sql.SQL("CREATE INDEX ON {} ({})").format(table, number))
        self._create_window(
            sql.SQL(
                "pg_catalog.current_setting('harborctl.first')::bigint"
                " AND pg_catalog.current_setting('harborctl.last')::bigint"
            )
        )
        columns: list[Column[Any]] = [Column(column.name, column.type) for column in self._table.columns]
        self._window = Table(WINDOW, MetaData(), *columns, schema=TEMPORARY_SCHEMA)
        rows = Staging(self._window, self._window.c[self._number.name], self._is_spread)
        self._part_statement = self._statement.over(rows)

    def _create_window(self, bounds: sql.Composable) -> None:
        table, number = identifier(self._table), sql.Identifier(self._number.name)
        statement = sql.SQL("CREATE OR REPLACE TEMPORARY VIEW {} AS SELECT * FROM {} WHERE {} BETWEEN {}")
        view = sql.Identifier(TEMPORARY_SCHEMA, WINDOW)
        self._driver.execute(statement.format(view, table, number, bounds))


def _refers(constraint: Constraint) -> bool:
    """Whether it wants rows of the target to be there."""
    return constraint.reference is not None and constraint.reference.own
