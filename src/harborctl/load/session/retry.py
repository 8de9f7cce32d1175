"""Which failures pass by themselves, and how long to wait for that. By class and SQLSTATE; what is unknown does not."""

from __future__ import annotations

import random

from harborctl import sqlstate
from harborctl.errors import ConnectionFailed, HarborctlError, TooFewSessions

# Deadlock, serialization failure, lock timeout: another transaction was in the way.
_IN_THE_WAY = {sqlstate.DEADLOCK_DETECTED, sqlstate.SERIALIZATION_FAILURE, sqlstate.LOCK_NOT_AVAILABLE}

# The server starts or stops, or has no session left.
_NOT_READY = {
    sqlstate.ADMIN_SHUTDOWN,
    sqlstate.CRASH_SHUTDOWN,
    sqlstate.CANNOT_CONNECT_NOW,
    sqlstate.TOO_MANY_CONNECTIONS,
}

# Seconds before the second attempt; doubled each time. Three retries wait 7 seconds, which a server's restart takes.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


def may_pass(error: HarborctlError, *, was_connected: bool) -> bool:
    """Whether it is worth to begin anew.

    A server that could not be reached in the first place is more often a wrong address than a restart: only after
    there was a connection, or if the server itself says that it starts, is it tried again.
    """
    if isinstance(error, TooFewSessions):
        return False
    if isinstance(error, ConnectionFailed):
        return was_connected or error.code in _NOT_READY
    return error.code in _IN_THE_WAY  # also of a BadRow: whatever fails in mid-COPY has a row that it is blamed on


def pause(failures: int) -> float:
    """Seconds to wait after so many failures; at random, lest those that failed together meet again."""
    longest: float = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
