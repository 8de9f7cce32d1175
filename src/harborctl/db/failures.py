"""What the database says, in our words: the one place that turns its errors into those of `harborctl.errors`.

It goes by class and SQLSTATE, never by a message's text: that differs between versions and is translated by the server.
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from harborctl import sqlstate
from harborctl.errors import (
    AccessDenied,
    ConnectionFailed,
    HarborctlError,
    StatementFailed,
    TargetError,
    TooFewSessions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECK_LOGIN = "Check the user's name and password; the password may stand in the URL, PGPASSWORD or ~/.pgpass."
_CHECK_RUNS = "Check that the server runs, and run the command again."
_CHECK_SERVER = "Check the host and the port, and that the server runs and lets this machine in."

# Why a server turns a session away.
_REFUSALS = {
    "28P01": _CHECK_LOGIN,
    sqlstate.INVALID_AUTHORIZATION_SPECIFICATION: _CHECK_LOGIN,
    sqlstate.INVALID_CATALOG_NAME: "Check the database's name; createdb makes a new one.",
    sqlstate.INSUFFICIENT_PRIVILEGE: "Ask the database's owner to GRANT CONNECT to this user.",
    sqlstate.TOO_MANY_CONNECTIONS: "Too many sessions are open: try again later,"
    " or raise the server's max_connections.",
    sqlstate.CANNOT_CONNECT_NOW: "The server is starting or stopping: try again in a moment.",
}

# Why a handshake of TLS failed. libpq has no codes for these: a hint is the most that is taken from its text, which it
# does not translate in the wheels of psycopg.
_TLS = {
    "root certificate file": "Name the file of the authority that signed the server's certificate by sslrootcert=FILE;"
    " sslrootcert=system takes the system's.",
    "certificate verify failed": "The authority in sslrootcert did not sign the server's certificate, or it has"
    " expired: name the right file by sslrootcert=FILE.",
    "does not match host name": "Name the host as its certificate does; hostaddr=ADDRESS says besides where it is."
    " sslmode=verify-ca does not look at the name.",
    "has group or world access": "chmod 600 the file of the key.",
    "key values mismatch": "sslcert and sslkey are to name a certificate and its own key.",
    "private key": "Name the file of the client's key by sslkey=FILE; without a client's certificate none is needed.",
    "load system root": "Name the file of the authority by sslrootcert=FILE.",
    "certificate file": "Name the file of the client's certificate by sslcert=FILE.",
    "certificate required": "This server asks for a client's certificate: name it and its key by sslcert and sslkey.",
    "unknown ca": "The server does not know who signed the client's certificate in sslcert.",
    "does not support SSL": "The server has no TLS: turn it on there (ssl = on), or, if nobody else can listen on the"
    " way, say sslmode=prefer.",
}

# The server ends the session, or the network did. Class 08 says so too.
_LOST = {sqlstate.ADMIN_SHUTDOWN, sqlstate.CRASH_SHUTDOWN, sqlstate.CANNOT_CONNECT_NOW, "57P05", "25P03", "25P04"}

_HINTS = {
    sqlstate.UNIQUE_VIOLATION: "Another row has this value; where it is the row's key, --mode upsert updates that row.",
    sqlstate.READ_ONLY_SQL_TRANSACTION: "This server takes no writes: name the primary, not a standby.",
    sqlstate.SERIALIZATION_FAILURE: "Another transaction changed the same rows: run it again.",
    sqlstate.DEADLOCK_DETECTED: "Another transaction and this one waited for each other: run it again.",
    sqlstate.INSUFFICIENT_PRIVILEGE: "Ask the owner to GRANT this privilege to the database user.",
    sqlstate.DISK_FULL: "The server's disk is full: make room there, and run it again.",
    sqlstate.OUT_OF_MEMORY: "The server is out of memory: try again later, or with smaller batches.",
    sqlstate.LOCK_NOT_AVAILABLE: "Another session holds the lock: try again later, or raise --lock-timeout.",
    sqlstate.QUERY_CANCELED: "It took longer than statement_timeout (--statement-timeout raises it),"
    " or somebody cancelled it.",
}


# Shards are counted from 102008 on. https://docs.citusdata.com/en/stable/develop/api_metadata.html
_SHARD = re.compile(r'_\d{6,}"')
_VIOLATIONS = {
    "violates unique constraint": sqlstate.UNIQUE_VIOLATION,
    "violates exclusion constraint": sqlstate.EXCLUSION_VIOLATION,
    "violates foreign key constraint": sqlstate.FOREIGN_KEY_VIOLATION,
    "violates check constraint": sqlstate.CHECK_VIOLATION,
    "violates not-null constraint": sqlstate.NOT_NULL_VIOLATION,
}


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the database leave this block as errors of ours."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        raise translate(error) from error
    except PendingRollbackError as error:  # of a statement in a transaction whose connection was lost before
        raise ConnectionFailed(
            "the connection to the database was lost", code="connection_lost", hint=_CHECK_RUNS
        ) from error
    except PoolTimeout as error:
        raise TooFewSessions(
            "no session of the pool became free in time",
            hint="Raise --pool-size or --max-overflow, or wait longer by --pool-timeout.",
        ) from error


def translate(error: Exception) -> HarborctlError:
    """The error of ours that says what `error` (of SQLAlchemy or psycopg) means."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return StatementFailed(_one_line(cause))
    if cause.pgconn is not None:
        return refused(cause)
    state = cause.sqlstate
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if state is None and isinstance(cause, psycopg.OperationalError):
        lost = True
    if lost or state in _LOST or (state or "").startswith("08"):
        return ConnectionFailed(
            f"the connection to the database was lost: {_words(cause)}",
            code=state or "connection_lost",
            hint=_CHECK_RUNS,
        )
    kind: type[HarborctlError] = StatementFailed
    if state == sqlstate.INSUFFICIENT_PRIVILEGE:
        kind = AccessDenied
    elif state in {sqlstate.UNDEFINED_TABLE, sqlstate.INVALID_SCHEMA_NAME}:
        kind = TargetError
    return kind(
        _words(cause),
        code=state,
        hint=_HINTS.get(state or "") or cause.diag.message_hint,
        column=cause.diag.column_name,
    )


def of_shard(failure: HarborctlError) -> HarborctlError:
    """The same of the table, where Citus tells of a shard: without the shard's number behind names, and with the code
    that is lost when a COPY fails on another server. Its words are all that tells then."""
    failure.message = _SHARD.sub('"', failure.message)
    if failure.code == sqlstate.INTERNAL_ERROR:
        found = next((code for words, code in _VIOLATIONS.items() if words in failure.message), failure.code)
        failure.code, failure.hint = found, failure.hint or _HINTS.get(found)
    return failure


def refused(error: psycopg.Error, state: str | None = None) -> ConnectionFailed:
    """What it means that psycopg could not connect.

    Args:
        error: what psycopg raised. It carries no SQLSTATE, for libpq gives none.
        state: the SQLSTATE, if `refusal_state` found it out.
    """
    asked_for_password = error.pgconn is not None and (error.pgconn.needs_password or error.pgconn.used_password)
    words = _words(error)
    tls = next((hint for part, hint in _TLS.items() if state is None and part in words), None)
    hint = _REFUSALS.get(state or "") or tls or (_CHECK_LOGIN if asked_for_password else _CHECK_SERVER)
    return ConnectionFailed(f"no connection to the database: {words}", code=state, hint=hint)


def refusal_state(conninfo: str, patience: float = 5.0) -> str | None:
    """The SQLSTATE with which the server refuses a session, by asking it again; None if it does not say.

    libpq hands a refusal on as text only. Its trace of the protocol has the SQLSTATE in a field of its own; that trace
    is for Linux only, and goes to memory because a password can be in it. The server counts a second attempt.
    """
    if sys.platform != "linux":
        return None
    with open(os.memfd_create("harborctl-trace"), "w+b", buffering=0) as trace:  # noqa: PTH123  # a descriptor
        session = pq.PGconn.connect_start(conninfo.encode())
        try:
            session.trace(os.dup(trace.fileno()))
            _finish_connecting(session, time.monotonic() + patience)
            session.untrace()  # writes what libpq has kept back
        finally:
            session.finish()
        trace.seek(0)
        refusals = re.findall(rb'\tErrorResponse\t S "[A-Z]+" V "[A-Z]+" C "(\w{5})"', trace.read())
    return refusals[-1].decode() if refusals else None


def _finish_connecting(session: pq.abc.PGconn, deadline: float) -> None:
    while session.status != pq.ConnStatus.BAD and (left := deadline - time.monotonic()) > 0:
        match session.connect_poll():
            case pq.PollingStatus.READING:
                select.select([session.socket], [], [], left)
            case pq.PollingStatus.WRITING:
                select.select([], [session.socket], [], left)
            case _:
                return


def _words(error: psycopg.Error) -> str:
    """The server's message and its detail, else the client library's message."""
    diagnostic = error.diag
    if diagnostic.message_primary:
        parts = (diagnostic.message_primary, diagnostic.message_detail)
        return ": ".join(part.rstrip(".") for part in parts if part)
    if error.pgconn is not None and error.pgconn.error_message:
        return _one_line(error.pgconn.error_message.decode(errors="replace"))
    return _one_line(error)


def _one_line(message: object) -> str:
    # libpq indents what is advice.
    return " ".join(" ".join(line for line in str(message).splitlines() if not line.startswith("\t")).split())
