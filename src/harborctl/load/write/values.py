"""The `values` writer: batches → INSERT statements of SQLAlchemy Core.

For small loads, and for databases that speak PostgreSQL without COPY. Values are bound as text without a cast, so that
each column's input function reads them, as it would from COPY.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translate
from harborctl.errors import HarborctlError
from harborctl.load.write.bad_row import Written, bad_row, may_be_of_a_row
from harborctl.load.write.encode import text_columns
from harborctl.load.write.staging import create_staging
from harborctl.load.write.transport import InsertTransport, NotTaken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Table

    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.bad_row import Progress
    from harborctl.load.write.transport import Row
    from harborctl.sources.batch import Batch


def write_values(
    connection: Connection, table: Table, plan: Plan, batches: Iterable[Batch], progress: Progress, batch_size: int
) -> Written:
    """INSERT all batches into `table`, `batch_size` rows a round trip.

    Raises:
        BadRow: a row cannot be stored; the transaction must be rolled back.
        StatementFailed, ConnectionFailed: as the server or the socket has it.
    """
    transport = InsertTransport(connection, table, plan)
    sent = inserted = 0
    for batch in batches:
        rows = rows_of(plan, batch)
        for start in range(0, len(rows), batch_size):
            part = range(start, min(start + batch_size, len(rows)))
            inserted += _insert(connection, transport, plan, batch, rows, part)
        sent += len(rows)
        progress.rows_sent(sent)
    return Written(sent, inserted)


def rows_of(plan: Plan, batch: Batch) -> list[Row]:
    """The rows as values for an INSERT; see `text_columns`."""
    columns = [column.to_pylist() for column in text_columns(plan, batch)]
    names = plan.names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _insert(
    connection: Connection, transport: InsertTransport, plan: Plan, batch: Batch, rows: Sequence[Row], part: range
) -> int:
    """Insert a part of the rows of `batch`; on failure halve it until the row that caused it stands alone."""
    try:
        with connection.begin_nested():
            return transport.send(rows[part.start : part.stop], len(part))
    except NotTaken as refused:
        failure = refused.error
        if not may_be_of_a_row(failure):
            raise failure from refused.cause
        if len(part) == 1:
            column = failure.column or _guilty_column(connection, plan, rows[part.start], failure)
            raise bad_row(failure, plan, batch, part.start, column) from refused.cause
        middle = len(part) // 2
        for half in (part[:middle], part[middle:]):
            _insert(connection, transport, plan, batch, rows, half)
        raise failure from refused.cause  # each half went in alone: no single row is the cause


def _guilty_column(connection: Connection, plan: Plan, row: Row, failure: HarborctlError) -> str | None:
    """The column whose value alone fails in the same way, in a table with the types and nothing else."""
    try:
        with connection.begin_nested():
            probe = create_staging(connection, plan, "harborctl_probe")
    except (DBAPIError, HarborctlError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        return None  # no right to temporary tables: the message must do without the column
    for name, value in row.items():
        try:
            with connection.begin_nested():
                connection.execute(insert(probe), [{name: value}])
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            if translate(error).code == failure.code:
                return name
    return None
