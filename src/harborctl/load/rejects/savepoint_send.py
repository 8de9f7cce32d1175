"""Sends rows inside savepoints: all of one go in, or none and the server's reason.

The savepoint is the driver's: what SQLAlchemy rolls back to stays open, and all later ones would be inside of it. Ten
thousand of those take all locks of the server.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, cast

import psycopg
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translate
from harborctl.load.write.bad_row import may_be_of_a_row
from harborctl.load.write.transport import CopyTransport, InsertTransport, NotTaken
from harborctl.load.write.values import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Table

    from harborctl.errors import HarborctlError
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.validate import Slice
    from harborctl.load.write.encode import Encoded

# Where the server holds a row against policies, as its errors tell. Their code is that of a missing privilege, which is
# no row's. https://www.postgresql.org/docs/current/protocol-error-fields.html
POLICY_ROUTINE = "ExecWithCheckOptions"


class Refusal(Exception):
    """The server did not take the rows of a savepoint.

    Attributes:
        error: what it said.
        first, end: the rows among which the cause is, counted from 0 over all slices that were sent.
        constraint: the name of the one that was violated.
    """

    def __init__(self, error: HarborctlError, first: int, end: int, constraint: str | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.first = first
        self.end = end
        self.column = error.column
        self.constraint = constraint


class SavepointSender:
    """Sends rows by COPY, or by INSERT, so many a round trip.

    Attributes:
        copies: by COPY: it sends what `Slice.encoded` holds.
    """

    def __init__(self, connection: Connection, batch_size: int, *, copies: bool) -> None:
        self._connection = connection.execution_options(preserve_rowcount=True)
        self._driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
        self._batch_size = batch_size
        self.copies = copies

    def send(self, table: Table, plan: Plan, slices: Iterator[Slice], *, stays: bool = True) -> int:
        """Send all rows, which are encoded alike, and return how many the server says went in; they stay there or not.

        Raises:
            Refusal: none did, and a row may be the cause.
            HarborctlError: none did, and no row is.
        """
        try:
            with self._driver.transaction():
                if self.copies:
                    inserted = CopyTransport(self._connection, table, plan).send(map(_encoded, slices))
                else:
                    rows = chain.from_iterable(rows_of(plan, piece.batch) for piece in slices)
                    inserted = InsertTransport(self._connection, table, plan).send(rows, self._batch_size)
                if not stays:
                    raise psycopg.Rollback
        except NotTaken as refused:
            failure, first, end = of_rows(refused.cause), refused.first, refused.end
            failure.column = refused.column
            if refused.row is not None and refused.row < end:
                first, end = refused.row, refused.row + 1
            raise Refusal(failure, first, end, refused.constraint) from refused.cause
        return inserted


def of_rows(error: psycopg.Error | DBAPIError) -> HarborctlError:
    """What the server said, if rows may be the cause; else it is raised."""
    failure = translate(error)
    cause = error.orig if isinstance(error, DBAPIError) else error
    is_policy = isinstance(cause, psycopg.Error) and cause.diag.source_function == POLICY_ROUTINE
    if not may_be_of_a_row(failure) and not is_policy:
        raise failure from error
    return failure


def _encoded(piece: Slice) -> Encoded:
    if piece.encoded is None:
        raise AssertionError("COPY takes encoded slices")
    return piece.encoded
