"""Takes rows out of the server by COPY: much faster than a cursor, but it binds no values.

So values travel as literals, quoted by libpq for this very session. Rows come in blocks, without a method call of
psycopg for each: 2 million rows of 4 columns took 3.5 s through `Cursor.copy` and 1.9 s so; psql needs 1.3 s.
"""

from __future__ import annotations

import select
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql

from harborctl.db.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A value in a statement, and the PostgreSQL type that it is to be read as."""

    value: Any
    type: str


def copied(connection: Connection, query: Sequence[str | TypedValue]) -> Iterator[bytes]:
    """The rows of a query as CSV, in blocks of whole lines, without a header.

    Args:
        connection: in a transaction; nothing else may use it until this is exhausted or closed.
        query: its text, with values in between. The text is sent as it is.

    Raises:
        HarborctlError: the server refuses the query or fails on the way.
    """
    driver: Any = connection.connection.driver_connection
    # A line break, because the query may end in a comment.
    parts = ["COPY (", *query, "\n) TO STDOUT (FORMAT csv)"]
    command = sql.Composed([_composed(part) for part in parts]).as_bytes(driver)
    with translated():
        yield from _blocks(driver.pgconn, command)


def _composed(part: str | TypedValue) -> sql.Composable:
    if isinstance(part, str):
        return sql.SQL(part)
    value = part.value
    if value is not None and not isinstance(value, (list, date, datetime)):
        # As text: -5::integer is -(5::integer), but '-5'::integer is not.
        value = "true" if value is True else "false" if value is False else str(value)
    return sql.SQL(" {}::{} ").format(sql.Literal(value), sql.SQL(part.type))


def _blocks(session: pq.abc.PGconn, command: bytes) -> Iterator[bytes]:
    def wait() -> None:
        # Not in libpq, which would not hear of Ctrl-C.
        select.select([session.socket], [], [])
        session.consume_input()

    session.send_query(command)
    while session.flush():
        select.select([], [session.socket], [])
    finished = False
    try:
        while session.is_busy():
            wait()
        started = session.get_result()
        if started is None or started.status != pq.ExecStatus.COPY_OUT:
            _raise(started)
        lines: list[Any] = []
        size = 0
        while True:
            length, line = session.get_copy_data(1)
            if length > 0:
                lines.append(line)
                size += length
                if size >= BLOCK_BYTES:
                    yield b"".join(lines)
                    lines.clear()
                    size = 0
            elif length == 0:
                wait()
            else:
                break
        finished = True
        ended = _ended(session)
        if ended is not None and ended.status != pq.ExecStatus.COMMAND_OK:
            _raise(ended)
        if lines:
            yield b"".join(lines)
    finally:
        if not finished:  # the reader went away, or an error: the session is to be of use again
            session.get_cancel().cancel()
            _drain(session)


def _raise(result: pq.abc.PGresult | None) -> None:
    if result is None:
        raise psycopg.OperationalError("the server sent no result")
    raise psycopg.errors.error_from_result(result)


def _ended(session: pq.abc.PGconn) -> pq.abc.PGresult | None:
    """What the server says at the end; the first of its results that says something."""
    first = None
    while (result := session.get_result()) is not None:
        first = first or result
    return first


def _drain(session: pq.abc.PGconn) -> None:
    while (result := session.get_result()) is not None:
        while result.status == pq.ExecStatus.COPY_OUT and session.get_copy_data(0)[0] > 0:
            pass
        if result.status == pq.ExecStatus.COPY_OUT and session.status == pq.ConnStatus.BAD:
            return
