"""Transactions that change stock, and what is tried again.

READ COMMITTED, whatever the database says: whoever waited for a row must see what the other has made of it. The
setting tells the triggers on `variants` that the transaction writes its movements itself.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import func, select

from harborctl.db.failures import translated
from harborctl.db.migrations import require_harbor
from harborctl.errors import ConnectionFailed, HarborctlError, TooFewSessions
from harborctl.sqlstate import (
    ADMIN_SHUTDOWN,
    CANNOT_CONNECT_NOW,
    CRASH_SHUTDOWN,
    DEADLOCK_DETECTED,
    LOCK_NOT_AVAILABLE,
    SERIALIZATION_FAILURE,
    TOO_MANY_CONNECTIONS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    Warn = Callable[[str], None]

T = TypeVar("T")

RETRIES = 4
# Seconds before the second attempt; doubled each time. Four retries wait up to 15 seconds: a server's restart.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# Deadlocks, serialization failures, lock timeouts: others, such as loads, lock in an order of their own.
_IN_THE_WAY = {DEADLOCK_DETECTED, SERIALIZATION_FAILURE, LOCK_NOT_AVAILABLE}
# The server starts or stops, or has no session left. One that cannot be reached at all is more often a wrong address.
_NOT_READY = {ADMIN_SHUTDOWN, CRASH_SHUTDOWN, CANNOT_CONNECT_NOW, TOO_MANY_CONNECTIONS}

_WRITTEN = select(func.set_config("harbor.stock_movements", "written", True))


def check_database(engine: Engine, warn: Warn) -> None:
    """See that Harbor's tables are there, and as this version needs them; wait for a server that starts.

    Raises:
        UsageError: they are not.
    """

    def check() -> None:
        with translated(), engine.connect() as connection:
            require_harbor(connection)

    tried_again(check, warn, passes=lambda error: error.code in _NOT_READY)


@contextmanager
def changing_stock(engine: Engine) -> Iterator[Connection]:
    """One transaction that changes stock: committed at the end of the block, rolled back if an error leaves it."""
    committed = engine.execution_options(isolation_level="READ COMMITTED")
    with translated(), committed.begin() as connection:
        connection.execute(_WRITTEN)
        yield connection


def may_pass(error: HarborctlError) -> bool:
    """Whether it is worth to try again: the connection was lost, or another transaction was in the way."""
    if isinstance(error, TooFewSessions):
        return False
    return isinstance(error, ConnectionFailed) or error.code in _IN_THE_WAY


def tried_again(
    work: Callable[[], T],
    warn: Warn,
    *,
    sleep: Callable[[float], None] = time.sleep,
    passes: Callable[[HarborctlError], bool] = may_pass,
) -> T:
    """Do `work`, and do it again after what passes by itself. It must be such that twice is as good as once."""
    for failures in range(1, RETRIES + 1):
        try:
            return work()
        except HarborctlError as error:
            if not passes(error):
                raise
            seconds = pause(failures)
            warn(f"{error.message}: trying again in {seconds:.1f} s")
            sleep(seconds)
    return work()


def pause(failures: int) -> float:
    """Seconds to wait after so many failures; at random, lest those that failed together meet again."""
    longest: float = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
