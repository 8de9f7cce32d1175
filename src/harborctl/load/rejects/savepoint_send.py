"""One attempt to send rows, inside a savepoint: all of them go in, or none and the server's reason.

The savepoint is the driver's: what SQLAlchemy rolls back to stays open, and all later ones would be inside of it. Ten
thousand of those take all locks of the server.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol, cast

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translate
from harborctl.load.write.bad_row import may_be_of_a_row
from harborctl.load.write.copy import CONTEXT, server_speaks
from harborctl.load.write.encode import BINARY_HEADER, BINARY_TRAILER, CopyFormat
from harborctl.load.write.insert import insert_into
from harborctl.load.write.staging import identifier
from harborctl.load.write.values import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Table

    from harborctl.errors import HarborctlError
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.validate import Slice

# Where the server holds a row against policies, as its errors tell. Their code is that of a missing privilege, which is
# no row's. https://www.postgresql.org/docs/current/protocol-error-fields.html
POLICY_ROUTINE = "ExecWithCheckOptions"


class Refusal(Exception):
    """The server did not take the rows of an attempt.

    Attributes:
        error: what it said.
        first, end: the rows among which the cause is, counted from 0 over all slices of the attempt.
        constraint: the name of the one that was violated.
    """

    def __init__(self, error: HarborctlError, first: int, end: int, constraint: str | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.first = first
        self.end = end
        self.column = error.column
        self.constraint = constraint


class Attempt(Protocol):
    """A way to send rows.

    Attributes:
        encodes: whether it sends what `Slice.encoded` holds.
    """

    encodes: bool

    def of(self, plan: Plan) -> Attempt:
        """The same way, for rows of another plan that go into a table of our own."""

    def send(self, table: Table, slices: Iterator[Slice], *, stays: bool = True) -> int:
        """Send all rows, which are encoded alike, and return how many the server says went in; they stay there or not.

        Raises:
            Refusal: none did, and a row may be the cause.
            HarborctlError: none did, and no row is.
        """


class CopyAttempt:
    """By COPY. See `Attempt`."""

    encodes = True

    def __init__(self, connection: Connection, plan: Plan) -> None:
        self._connection = connection
        self._driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
        self._names = plan.names

    def of(self, plan: Plan) -> CopyAttempt:
        """See `Attempt.of`."""
        return CopyAttempt(self._connection, plan)

    def send(self, table: Table, slices: Iterator[Slice], *, stays: bool = True) -> int:
        """See `Attempt.send`."""
        sent = 0
        try:
            with self._driver.transaction(), self._driver.cursor() as cursor:
                first = next(slices)
                copy_format = _encoded(first)[0]
                with cursor.copy(self._statement(table, copy_format)) as copy:
                    if copy_format is CopyFormat.BINARY:
                        copy.write(BINARY_HEADER)
                    sent += _write(copy, first)
                    while not server_speaks(self._driver) and (piece := next(slices, None)) is not None:
                        sent += _write(copy, piece)
                    if copy_format is CopyFormat.BINARY:
                        copy.write(BINARY_TRAILER)
                inserted = cursor.rowcount
                if not stays:
                    raise psycopg.Rollback
        except psycopg.Error as error:
            failure = of_rows(error)
            match = CONTEXT.search(error.diag.context or "")
            if match and int(match["row"]) <= sent:
                if match["column"] in self._names:
                    failure.column = match["column"]
                row = int(match["row"]) - 1
                raise Refusal(failure, row, row + 1, error.diag.constraint_name) from error
            raise Refusal(failure, 0, sent, error.diag.constraint_name) from error
        return inserted

    def _statement(self, table: Table, copy_format: CopyFormat) -> sql.Composed:
        columns = sql.SQL(", ").join(map(sql.Identifier, self._names))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})")
        return statement.format(identifier(table), columns, sql.SQL(copy_format.value))


class ValuesAttempt:
    """By INSERT, so many rows a round trip. See `Attempt`."""

    encodes = False

    def __init__(self, connection: Connection, plan: Plan, batch_size: int) -> None:
        self._connection = connection.execution_options(preserve_rowcount=True)
        self._driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
        self._plan = plan
        self._batch_size = batch_size

    def of(self, plan: Plan) -> ValuesAttempt:
        """See `Attempt.of`."""
        return ValuesAttempt(self._connection, plan, self._batch_size)

    def send(self, table: Table, slices: Iterator[Slice], *, stays: bool = True) -> int:
        """See `Attempt.send`."""
        statement = insert_into(table, self._plan)
        sent = inserted = count = 0
        try:
            with self._driver.transaction():
                rows = chain.from_iterable(rows_of(self._plan, piece.batch) for piece in slices)
                while part := list(islice(rows, self._batch_size)):
                    count = len(part)
                    inserted += self._connection.execute(statement, part).rowcount
                    sent += count
                if not stays:
                    raise psycopg.Rollback
        except DBAPIError as error:
            failure = of_rows(error)
            cause = error.orig
            constraint = cause.diag.constraint_name if isinstance(cause, psycopg.Error) else None
            raise Refusal(failure, sent, sent + count, constraint) from error
        return inserted


def of_rows(error: psycopg.Error | DBAPIError) -> HarborctlError:
    """What the server said, if rows may be the cause; else it is raised."""
    failure = translate(error)
    cause = error.orig if isinstance(error, DBAPIError) else error
    is_policy = isinstance(cause, psycopg.Error) and cause.diag.source_function == POLICY_ROUTINE
    if not may_be_of_a_row(failure) and not is_policy:
        raise failure from error
    return failure


def _encoded(piece: Slice) -> tuple[CopyFormat, Sequence[bytes | memoryview]]:
    if piece.encoded is None:
        raise AssertionError("COPY takes encoded slices")
    return piece.encoded.format, piece.encoded.data


def _write(copy: psycopg.Copy, piece: Slice) -> int:
    for data in _encoded(piece)[1]:
        copy.write(memoryview(data))
    return piece.rows
