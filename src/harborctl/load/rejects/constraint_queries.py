"""Finds rows that violate a constraint by a query, where the server names no row or there are many of them.

The columns that the constraint is on are put into a temporary table, with the numbers of the rows, and joined with what
they must meet. What is found there is bad for certain, or only a suspect, for the server to judge alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import psycopg
import pyarrow as pa
from psycopg import sql
from sqlalchemy import bindparam, false, select
from sqlalchemy.exc import DBAPIError

from harborctl.db.constraints import Constraint, constraints_of, named
from harborctl.db.failures import translate
from harborctl.db.relations import condition
from harborctl.errors import HarborctlError, StatementFailed, UsageError
from harborctl.load.rejects.savepoint_send import Refusal, of_rows
from harborctl.load.rejects.validate import Slice
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.encode import Encoder
from harborctl.load.write.row_numbers import numbered_plan
from harborctl.load.write.staging import create_numbered, identifier
from harborctl.model import Mode
from harborctl.sqlstate import CHECK_VIOLATION, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Table

    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.savepoint_send import SavepointSender

NUMBER = "harborctl_row"
PROBE = "harborctl_probe"

# Rows that the server names cost little: only where one constraint is violated so often is a query worth it.
MOST_NAMED = 3

CHECK = "check"


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that violates something. Its reason names the column if the constraint is on one only."""

    row: int
    reason: Reason
    is_certain: bool


class Probes:
    """The queries of one load. A constraint is looked at from its first violation on, the user's checks always."""

    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        checks: tuple[str, ...],
        sender: SavepointSender,
        *,
        into_target: bool,
    ) -> None:
        self._connection = connection
        self._driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
        self._plan = plan
        self._checks = checks
        self._sender = sender
        self._into_target = into_target
        self._known = constraints_of(connection, plan.target.oid) if plan.target.kind in "rp" else ()
        self._active: dict[str, Constraint] = {}
        self._named: dict[str, int] = {}
        self._tables = 0

    @property
    def version(self) -> int:
        """Rises with what is looked at; 0 for nothing."""
        return len(self._active) + bool(self._checks)

    def constraint(self, name: str | None) -> Constraint | None:
        """The constraint of this name."""
        return named(self._known, name)

    def noticed(self, error: HarborctlError, name: str | None, *, is_named: bool) -> bool:
        """Hear of a violation. Whether more is looked at from now on."""
        if not self._into_target or error.code not in {UNIQUE_VIOLATION, FOREIGN_KEY_VIOLATION, CHECK_VIOLATION}:
            return False
        count = self._named[name or ""] = self._named.get(name or "", 0) + 1
        if is_named and count < MOST_NAMED:
            return False
        before, found = self.version, self.constraint(name)
        if found is not None and can_probe(found, self._plan):
            self._active[found.name] = found
        return self.version > before

    def violations(self, slices: Sequence[Slice]) -> list[Violation]:
        """The rows, counted over all slices, that violate what is looked at, each once.

        Raises:
            Refusal: a row cannot even be put into the temporary table.
        """
        # The table of a refusal goes with the savepoint: the probes of the next source count from 1 again.
        with self._connection.begin_nested():
            return self._looked_for(slices)

    def _looked_for(self, slices: Sequence[Slice]) -> list[Violation]:
        table = self._filled(slices)
        found: dict[int, Violation] = {}
        rows = sum(piece.rows for piece in slices)
        try:
            with self._connection.begin_nested():
                for check in self._checks:
                    query = select(table.c[NUMBER]).where(
                        condition(check).is_(false()), table.c[NUMBER] >= bindparam("n")
                    )
                    for (row,) in self._connection.execute(query, {"n": 0}):
                        found.setdefault(row, Violation(row, Reason(CHECK, f"the check {check} is not true"), True))
        except DBAPIError as error:
            raise Refusal(of_rows(error), 0, rows, None) from error
        for constraint in self._active.values():
            for violation in violations_in(self._connection, self._plan, constraint, table, NUMBER):
                known = found.get(violation.row)
                if known is None or violation.is_certain > known.is_certain:
                    found[violation.row] = violation
        self._driver.execute(sql.SQL("DROP TABLE {}").format(identifier(table)))
        return sorted(found.values(), key=lambda violation: violation.row)

    def validate(self) -> None:
        """See that the user's checks can be asked.

        Raises:
            UsageError: one cannot; with the server's message and the place in the check.
        """
        table = self._table(self._plan.names)
        for check in self._checks:
            query = select(table.c[NUMBER]).where(condition(check).is_(false()), table.c[NUMBER] >= bindparam("n"))
            try:
                with self._connection.begin_nested():
                    self._connection.execute(query, {"n": 0})
            except DBAPIError as error:
                failure = translate(error)
                if not isinstance(failure, (StatementFailed, UsageError)):
                    raise failure from error
                raise UsageError(
                    f"--check {check}: {failure.message}{_place(error)}",
                    code=failure.code,
                    hint=f"Write a condition in SQL over: {', '.join(self._plan.names)}.",
                ) from error
        self._driver.execute(sql.SQL("DROP TABLE {}").format(identifier(table)))

    # -- the temporary table

    def _filled(self, slices: Sequence[Slice]) -> Table:
        needed = {name for constraint in self._active.values() for name in constraint.columns}
        wanted = [column for column in self._plan.columns if self._checks or column.target.name in needed]
        plan = numbered_plan(replace(self._plan, columns=tuple(wanted)), NUMBER)
        table = self._table([column.target.name for column in wanted])
        read = [column for column in self._plan.columns if column.position is not None]
        kept = [number for number, column in enumerate(read) if column in wanted]
        encoder = Encoder(plan)
        first = 0
        waiting: list[Slice] = []
        for piece in slices:
            records = piece.batch.records
            numbers = pa.array(range(first, first + piece.rows), pa.int64())
            arrays = [*(records.column(number) for number in kept), numbers]
            part = pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])
            batch = replace(piece.batch, records=part, as_read=None)
            encoded = encoder.one(batch) if self._sender.copies else None
            if waiting and encoded and waiting[-1].encoded and waiting[-1].encoded.format is not encoded.format:
                self._send(table, plan, waiting, first)
                waiting = []
            waiting.append(Slice(batch, encoded, alone=False))
            first += piece.rows
        if waiting:
            self._send(table, plan, waiting, first)
        return table

    def _send(self, table: Table, plan: Plan, slices: list[Slice], end: int) -> None:
        before = end - sum(piece.rows for piece in slices)
        try:
            self._sender.send(table, plan, iter(slices))
        except Refusal as refusal:
            refusal.first += before
            refusal.end += before
            raise

    def _table(self, names: Sequence[str]) -> Table:
        self._tables += 1
        columns = [column for column in self._plan.columns if column.target.name in names]
        return create_numbered(
            self._connection, replace(self._plan, columns=tuple(columns)), f"{PROBE}{self._tables}", NUMBER
        )


def can_probe(constraint: Constraint, plan: Plan, *, has_all: bool = False) -> bool:
    """Whether a query over the columns that the load fills can look for violations. Those of rows that refer to others
    of their own table it only finds where it `has_all` rows."""
    if not constraint.whole or not set(plan.names).issuperset(constraint.columns):
        return False
    if constraint.kind == "f":
        reference = constraint.reference
        if reference is None or not reference.sure:
            return False
        return not reference.own or (has_all and set(plan.names).issuperset(reference.columns))
    return constraint.plain or (constraint.kind == "c" and bool(constraint.columns))


def violations_in(
    connection: Connection, plan: Plan, constraint: Constraint, table: Table, number: str
) -> Iterator[Violation]:
    """The rows of a temporary table that violate a constraint of the target; none if that cannot be asked.

    Rows that refer to others of the target may find them in the temporary table, too.
    """
    driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)

    def rows(query: sql.Composed) -> list[tuple[int, str]]:
        return cast("list[tuple[int, str]]", driver.execute(query).fetchall())

    try:
        with connection.begin_nested():
            found = list(_violations(rows, plan, constraint, table, number))
    except psycopg.Error:
        return  # the server will find the rows itself
    yield from found


def _violations(
    rows: Callable[[sql.Composed], list[tuple[int, str]]], plan: Plan, constraint: Constraint, table: Table, number: str
) -> Iterator[Violation]:
    name, keys = plan.target.name, ", ".join(constraint.columns)
    column = constraint.columns[0] if len(constraint.columns) == 1 else None
    # A trigger may change what is looked at.
    is_certain = not plan.target.before_triggers
    if constraint.kind == "c":
        message = f'new row for relation "{name}" violates check constraint "{constraint.name}"'
        for row, value in rows(_checked(constraint, table, number)):
            yield Violation(row, Reason(CHECK_VIOLATION, message, column, value), is_certain)
    elif constraint.reference is not None:
        message = f'insert or update on table "{name}" violates foreign key constraint "{constraint.name}"'
        for row, value in rows(_dangling(constraint, table, number)):
            told = f'{message}: Key ({keys})=({value}) is not present in table "{constraint.reference.table}"'
            yield Violation(row, Reason(FOREIGN_KEY_VIOLATION, told, column, value), is_certain)
    else:
        message = f'duplicate key value violates unique constraint "{constraint.name}"'
        only = sql.SQL("ONLY " if plan.target.has_children else "")
        target = only + sql.Identifier(plan.target.schema, name)
        is_certain &= plan.mode in (Mode.APPEND, Mode.REPLACE)
        for row, value in rows(_taken(constraint, table, target, number)):
            told = f"{message}: Key ({keys})=({value}) already exists"
            yield Violation(row, Reason(UNIQUE_VIOLATION, told, column, value), is_certain)
        for row, value in rows(_repeated(constraint, table, number)):
            yield Violation(row, Reason(UNIQUE_VIOLATION, message, column, value), False)


def _values(columns: Sequence[str]) -> sql.Composed:
    texts = (sql.SQL("CAST({} AS text)").format(_own(column)) for column in columns)
    return sql.SQL("pg_catalog.concat_ws(', ', {})").format(sql.SQL(", ").join(texts))


def _own(column: str) -> sql.Composed:
    return sql.SQL("own.{}").format(sql.Identifier(column))


def _checked(constraint: Constraint, table: Table, number: str) -> sql.Composed:
    # The expression is the catalog's: it names the columns without their table.
    query = sql.SQL("SELECT {}, {} FROM {} AS own WHERE ({}) IS FALSE")
    return query.format(
        sql.Identifier(number),
        _values(constraint.columns),
        identifier(table),
        sql.SQL(constraint.expression or "TRUE"),
    )


def _dangling(constraint: Constraint, table: Table, number: str) -> sql.Composed:
    reference = constraint.reference
    if reference is None:
        raise AssertionError(constraint.name)
    pairs = zip(reference.columns, reference.operators, constraint.columns, strict=True)
    same = sql.SQL(" AND ").join(
        sql.SQL("other.{} {} {}").format(sql.Identifier(theirs), sql.SQL(operator), _own(ours))
        for theirs, operator, ours in pairs
    )
    places = [sql.SQL("ONLY " if reference.only else "") + sql.Identifier(reference.schema, reference.table)]
    if reference.own:
        places.append(sql.Composed([identifier(table)]))
    columns = [_own(column) for column in constraint.columns]
    some_null = sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(column) for column in columns)
    all_null = sql.SQL(" AND ").join(sql.SQL("{} IS NULL").format(column) for column in columns)
    lacks = sql.SQL(" AND ").join(
        sql.SQL("NOT EXISTS (SELECT FROM {} AS other WHERE {})").format(place, same) for place in places
    )
    bad = (
        sql.SQL("NOT ({}) AND (({}) OR {})").format(all_null, some_null, lacks)
        if reference.full
        else sql.SQL("NOT ({}) AND {}").format(some_null, lacks)
    )
    return sql.SQL("SELECT own.{}, {} FROM {} AS own WHERE {}").format(
        sql.Identifier(number), _values(constraint.columns), identifier(table), bad
    )


def _taken(constraint: Constraint, table: Table, target: sql.Composed, number: str) -> sql.Composed:
    same = sql.SQL(" AND ").join(
        sql.SQL("other.{} {} {}").format(sql.Identifier(column), sql.SQL(equality), _own(column))
        for column, equality in zip(constraint.columns, constraint.equalities, strict=True)
    )
    query = sql.SQL("SELECT own.{}, {} FROM {} AS own WHERE EXISTS (SELECT FROM {} AS other WHERE {})")
    return query.format(sql.Identifier(number), _values(constraint.columns), identifier(table), target, same)


def _repeated(constraint: Constraint, table: Table, number: str) -> sql.Composed:
    keys = sql.SQL(", ").join(map(sql.Identifier, constraint.columns))
    known = sql.SQL(" AND ").join(
        sql.SQL("{} IS NOT NULL").format(sql.Identifier(column)) for column in constraint.columns
    )
    query = sql.SQL(
        "SELECT {number}, value FROM (SELECT {number}, {value} AS value,"
        " pg_catalog.row_number() OVER (PARTITION BY {keys} ORDER BY {number}) AS place"
        " FROM {table} AS own WHERE {known}) AS ranked WHERE place > 1"
    )
    return query.format(
        number=sql.Identifier(number),
        keys=keys,
        value=_values(constraint.columns),
        table=identifier(table),
        known=known,
    )


def _place(error: DBAPIError) -> str:
    """Where in the check the server stopped."""
    position = error.orig.diag.statement_position if isinstance(error.orig, psycopg.Error) else None
    start = (error.statement or "").find("WHERE (") + len("WHERE (")
    return f" (at character {int(position) - start})" if position and int(position) > start else ""
