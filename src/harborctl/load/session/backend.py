"""Whose transaction is whose: what must be over before one can say how an attempt ended.

A process id does not tell: behind a pooler the same server process serves others by now. An advisory lock does, for it
ends with the transaction that took it.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, cast, func, select, text

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Seconds. A server that is told of the client's end rolls back by itself, and so does a pooler.
GRACE = 0.5
# Seconds. A backend that has its transaction to roll back ends at once; the wait is for a machine that stands still.
PATIENCE = 30.0
POLL = 0.02

_BITS = 62

# One number as key has objsubid 1, and is shown in two halves. Other databases have locks of their own.
HOLDERS = """
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid::bigint << 32 | objid::bigint = :key
"""
_HOLDERS = text(HOLDERS)
# Asked and done at once: a session whose transaction has just ended is another's the next moment.
_TERMINATE = text(f"SELECT pg_terminate_backend(pid) FROM ({HOLDERS}) AS holders")  # noqa: S608  # a constant


def new_key() -> int:
    """A key that nobody else has."""
    return random.SystemRandom().getrandbits(_BITS)


def sign(connection: Connection, key: int, load_id: str | None = None, *, shared: bool = False) -> None:
    """Let this transaction be known by `key` until it ends, and as one of this load, if it is named."""
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    locks = [lock(cast(key, BigInteger))]
    if load_id is not None:
        locks.append(func.pg_advisory_xact_lock_shared(func.hashtextextended(load_id, cast(0, BigInteger))))
    connection.execute(select(*locks))


def end_signed(connection: Connection, key: int) -> bool:
    """See to it that no transaction of `key` runs any more, so that what it was about to commit is in, or never will
    be. For transactions whose connection is lost.

    A connection that broke on our side may live on over there: still committing, or waiting for data that will not
    come, with its locks. Returns whether it is over.
    """
    begin = time.monotonic()
    while connection.execute(_HOLDERS, {"key": key}).first() is not None:
        waited = time.monotonic() - begin
        if waited > PATIENCE:
            return False
        if waited > GRACE:
            connection.execute(_TERMINATE, {"key": key})
        time.sleep(POLL)
    return True
