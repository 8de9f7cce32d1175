"""How many sessions can be had at once. Whoever needs several asks first: with fewer it would wait for itself.

https://www.pgbouncer.org/config.html#default_pool_size, and CONNECTION LIMIT of roles and databases.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from sqlalchemy import func
from sqlalchemy import select as sql_select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from harborctl.db.pool import most_sessions
from harborctl.errors import ConnectionFailed, TooFewSessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine

# Seconds until a session of a pool that others use, too, should have become free.
PATIENCE = 5.0


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands in between, which may give each transaction another session.

    PgBouncer and its likes make up the process id that they tell their clients; the server's own is another.
    """
    driver: Any = connection.connection.driver_connection
    if driver.prepare_threshold is None:  # we were told so
        return True
    own: int = connection.execute(sql_select(func.pg_backend_pid())).scalar_one()
    return own != int(driver.info.backend_pid)


def require_sessions(engine: Engine, count: int, purpose: str, hint: str) -> None:
    """See that `count` transactions can be open at once. They are begun, and rolled back.

    Raises:
        TooFewSessions: they cannot.
        ConnectionFailed: there is no connection at all.
    """
    found = sessions_at_once(engine, count)
    if found < count:
        raise TooFewSessions(
            f"{purpose} needs {count} sessions at once, and only {found} can be had",
            hint=f"Raise what limits them: --pool-size and --max-overflow, default_pool_size of the pooler, CONNECTION"
            f" LIMIT of the role or the database, max_connections of the server. {hint}",
        )


def sessions_at_once(engine: Engine, wanted: int) -> int:
    """How many of the `wanted` transactions could be open at once.

    Raises:
        ConnectionFailed: there is no connection at all.
    """
    known: int = engine.pool.checkedin()  # type: ignore[attr-defined]  # a QueuePool, which is not in the type
    most = most_sessions(engine)
    connections: list[Connection] = []
    try:
        for number in range(wanted if most is None else min(wanted, most)):
            try:
                connections.append(engine.connect())
            except (ConnectionFailed, PoolTimeout):
                if not number:
                    raise
                break
        drivers = [connection.connection.driver_connection for connection in connections]
        begun = [driver for driver, has in zip(drivers, _carried_out(drivers, b"BEGIN"), strict=True) if has]
        # One that has ended by now was not open beside one that began in its place.
        if not all(_carried_out(begun, b"SAVEPOINT still_open")):
            raise ConnectionFailed(
                "the connection to the database was lost",
                code="connection_lost",
                hint="Check that the server runs, and run the command again.",
            )
        return len(begun)
    finally:
        for number, connection in enumerate(connections):
            # What has been opened for this is closed: other processes of ours may need it.
            with suppress(DBAPIError):
                if number >= max(known, 1):
                    connection.invalidate()
                connection.close()


def _carried_out(drivers: Sequence[Any], command: bytes) -> list[bool]:
    """Send a command to each, all at the same time; which of them have carried it out when patience is over."""
    sessions: list[pq.abc.PGconn] = [driver.pgconn for driver in drivers]
    done, waiting = [False] * len(sessions), dict[int, pq.abc.PGconn]()
    for number, session in enumerate(sessions):
        with suppress(psycopg.OperationalError):  # it has ended
            session.send_query(command)
            waiting[number] = session
    deadline = time.monotonic() + PATIENCE
    while waiting and (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([session.socket for session in waiting.values()], [], [], left)
        for number, session in list(waiting.items()):
            if session.socket in ready:
                done[number] |= _is_done(session)
                if not session.is_busy():
                    del waiting[number]
    return done


def _is_done(session: pq.abc.PGconn) -> bool:
    try:
        session.consume_input()
    except Exception:  # noqa: BLE001  # whatever has ended it: nothing is done
        return False
    done = False
    while not session.is_busy() and (result := session.get_result()) is not None:
        done |= result.status == pq.ExecStatus.COMMAND_OK
    return done
