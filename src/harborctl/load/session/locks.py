"""The locks of a load, all held to the end of its transaction, and what needs the strongest of them.

Order: first the target's advisory lock, then the table. Who waits, waits before it has anything that others wait for.
"""

from __future__ import annotations

import hashlib
import logging
from enum import Enum
from typing import TYPE_CHECKING, cast

import psycopg
from psycopg import sql
from sqlalchemy import Integer, func, select, text
from sqlalchemy import cast as sql_cast
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translate
from harborctl.db.storage import Storage, done_here, stay_here
from harborctl.errors import AccessDenied, LockHeld
from harborctl.model import Lock, Mode
from harborctl.sqlstate import LOCK_NOT_AVAILABLE

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.catalog import Relation, Target
    from harborctl.model import LoadOptions

# "harb" in ASCII: the first half of our advisory locks' keys, the second is the table's oid.
NAMESPACE = 0x68617262

# PostgreSQL 17 has brought transaction_timeout.
TRANSACTION_TIMEOUT_SINCE = 170000

# The driver reads times of only one DateStyle, and the session may have any.
TIME_FORM = "YYYY-MM-DD HH24:MI:SS OF"

_HOLDER = text("""
    SELECT locks.pid, activity.usename AS user, nullif(activity.application_name, '') AS application,
           coalesce(activity.client_hostname, host(activity.client_addr)) AS host,
           to_char(activity.xact_start, :form) AS since
    FROM pg_locks AS locks LEFT JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2
      AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND locks.classid = :namespace AND locks.objid = :oid
    LIMIT 1
""")


logger = logging.getLogger("harborctl")


def lock_target(
    connection: Connection, target: Relation, options: LoadOptions, *, truncates: bool, has_turn: bool = False
) -> bool:
    """Keep the target as it is until the load ends: its columns and indexes do not change under us.

    Of the loads that go by a key or replace only one runs at a time: two that met the same rows in different orders
    would each wait for the other. With `has_turn` this transaction is part of the one. Returns whether another load
    had to be waited for.

    Raises:
        LockHeld: another load runs, and the options say not to wait for it, or no longer.
    """
    waited = not has_turn and options.mode is not Mode.APPEND and take_turn(connection, target, options.run.lock)
    _lock_table(connection, target, _strength(options, truncates=truncates))
    return waited


def _strength(options: LoadOptions, *, truncates: bool) -> str:
    """The lock that the load needs. Of what others write while the target becomes equal to a file, something would be
    left, or gone, that no order of the two explains: they wait. Readers wait for TRUNCATE only."""
    if truncates:
        return "ACCESS EXCLUSIVE"
    becomes_equal = options.mode in {Mode.SYNC, Mode.REPLACE}
    return (
        "SHARE ROW EXCLUSIVE"
        if becomes_equal and not options.merge.no_lock and not options.dry_run
        else "ROW EXCLUSIVE"
    )


def take_turn(connection: Connection, target: Relation, lock: Lock) -> bool:
    """Take the target's advisory lock until this transaction ends. Returns whether it had to be waited for.

    Raises:
        LockHeld: another has it, and is not to be waited for, or no longer.
    """
    # An oid has no sign, an advisory lock's key has.
    signed = target.oid - 2**32 if target.oid >= 2**31 else target.oid
    return take_named(connection, NAMESPACE, signed, lock, f"another load into {target.schema}.{target.name} runs")


def take_by_name(connection: Connection, namespace: int, label: str, lock: Lock, reason: str) -> None:
    """As `take_named`, for what goes by a name."""
    number = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], signed=True)
    take_named(connection, namespace, number, lock, reason)


class Until(Enum):
    """The end of a lock."""

    TRANSACTION = "transaction"
    SESSION = "session"


def take_named(
    connection: Connection, namespace: int, number: int, lock: Lock, reason: str, until: Until = Until.TRANSACTION
) -> bool:
    """Take the advisory lock of two signed integers, as `take_turn`."""
    key = (namespace, sql_cast(number, Integer))
    in_session = until is Until.SESSION
    attempt = func.pg_try_advisory_lock(*key) if in_session else func.pg_try_advisory_xact_lock(*key)
    if connection.execute(select(attempt)).scalar_one():
        return False
    message = f"{reason}: {_holder(connection, namespace, number)}"
    if lock is not Lock.WAIT:
        raise LockHeld(message, hint="Run it again later, or let it wait with --lock wait.")
    logger.warning("waiting: %s", message)
    try:
        connection.execute(select(func.pg_advisory_lock(*key) if in_session else func.pg_advisory_xact_lock(*key)))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise LockHeld(message, hint="Run it again later, or raise --lock-timeout.") from error
    return True


def stay_idle(connection: Connection) -> None:
    """Let this transaction wait for others of ours as long as they take. It has no snapshot that VACUUM minds."""
    connection.execute(select(func.set_config("idle_in_transaction_session_timeout", "0", True)))


def stay_open(connection: Connection) -> None:
    """Let this transaction, which only holds locks, last as long as the work of others takes."""
    stay_idle(connection)
    driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
    if driver.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
        connection.execute(select(func.set_config("transaction_timeout", "0", True)))


def _holder(connection: Connection, namespace: int, number: int) -> str:
    """Who has the lock, as far as this user may know."""
    # pg_locks shows the two halves as oids, which have no sign.
    row = connection.execute(_HOLDER, {"namespace": namespace, "oid": number % 2**32, "form": TIME_FORM}).one_or_none()
    if row is None:
        return "it has ended just now"
    place = row.host or "this server's machine"
    since = f", since {row.since}" if row.since else ""
    return f"{row.application or 'a session'} of user {row.user} on {place}, process {row.pid}{since}"


def _lock_table(connection: Connection, target: Relation, strength: str) -> None:
    if target.storage is Storage.SHARDS:
        stay_here(connection)
    if target.kind not in "rpv":
        return
    # At once as strong as it will have to be: two that want more of a lock that both have wait for each other.
    statement = sql.SQL("LOCK TABLE {} IN {} MODE").format(_identifier(target), sql.SQL(strength))
    # Who alters a table of Citus does it through this server; who writes to it may come by another.
    is_everywhere = strength != "ROW EXCLUSIVE"
    try:
        with connection.begin_nested(), done_here(connection, Storage.OWN if is_everywhere else target.storage):
            _execute(connection, statement)
    except (DBAPIError, psycopg.Error) as error:
        # The right to write some columns does not give the right to lock; writing will tell whether there is enough.
        if not isinstance(translate(error), AccessDenied):
            raise


def truncate(connection: Connection, target: Target) -> None:
    """Remove all rows of the target itself. Readers wait from here to the end of the transaction.

    Raises:
        AccessDenied: the user may delete, but not truncate.
    """
    only = sql.SQL("ONLY " if target.has_children else "")
    try:
        _execute(connection, sql.SQL("TRUNCATE {}{}").format(only, _identifier(target)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise AccessDenied(
            f"{target.label} may not be truncated by this user", hint="--no-block does without: it needs only DELETE."
        ) from error


def _identifier(target: Relation) -> sql.Identifier:
    return sql.Identifier(target.schema, target.name)


def _execute(connection: Connection, statement: sql.Composed) -> None:
    # By the driver itself: a percent sign in a name would be doubled once too often on the way through SQLAlchemy.
    cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection).execute(statement)
