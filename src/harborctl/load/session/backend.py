"""The server process of a load: what must be over before one can say how the load ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Numeric, cast, column, extract, func, select

if TYPE_CHECKING:
    from decimal import Decimal

    from sqlalchemy import Connection, Select

# Seconds. A backend that has its transaction to roll back ends at once; the wait is for a machine that stands still.
PATIENCE = 30.0
POLL = 0.02


@dataclass(frozen=True, slots=True)
class Backend:
    """A server process. Process ids come again; with the time of its start it is one process for ever.

    Attributes:
        start: in seconds from 1970; as a number, because a session's DateStyle decides how times are written.
    """

    pid: int
    start: Decimal | None


def backend_of(connection: Connection) -> Backend:
    """The one that serves this transaction."""
    row = connection.execute(_activity(func.pg_backend_pid())).one()
    return Backend(row.pid, row.start)


def end_backend(connection: Connection, backend: Backend) -> bool:
    """See to it that `backend` is gone, so that what it was about to commit is in, or never will be.

    A connection that broke on our side may live on over there: still committing, or waiting for data that will not
    come, with its locks. Returns whether it is gone.
    """
    activity = _activity(backend.pid).subquery()
    there = select(activity.c.pid).where(activity.c.start == backend.start)
    deadline = time.monotonic() + PATIENCE
    while connection.execute(there).first() is not None:
        if time.monotonic() > deadline:
            return False
        connection.execute(select(func.pg_terminate_backend(backend.pid)))
        time.sleep(POLL)
        # Within a transaction the server tells of sessions what it told first.
        connection.execute(select(func.pg_stat_clear_snapshot()))
    return True


def _activity(pid: object) -> Select[Any]:
    activity = func.pg_stat_get_activity(pid).table_valued(column("pid"), column("backend_start"))
    return select(activity.c.pid, cast(extract("epoch", activity.c.backend_start), Numeric).label("start"))
