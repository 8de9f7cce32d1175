"""The locks of a load, all held to the end of its transaction, and what needs the strongest of them.

Order: first the target's advisory lock, then the table. Who waits, waits before it has anything that others wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import psycopg
from psycopg import sql
from sqlalchemy import Integer, func, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translate
from harborctl.errors import AccessDenied
from harborctl.model import Mode

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.catalog import Relation, Target

# "harb" in ASCII: the first half of our advisory locks' keys, the second is the table's oid.
NAMESPACE = 0x68617262


def lock_target(connection: Connection, target: Relation, mode: Mode, *, truncates: bool) -> None:
    """Keep the target as it is until the load ends: its columns and indexes do not change under us.

    Of the loads that go by a key or replace only one runs at a time: two that met the same rows in different orders
    would each wait for the other.
    """
    if mode is not Mode.APPEND:
        # An oid has no sign, an advisory lock's key has.
        key = target.oid - 2**32 if target.oid >= 2**31 else target.oid
        connection.execute(select(func.pg_advisory_xact_lock(NAMESPACE, sql_cast(key, Integer))))
    if target.kind not in "rpv":
        return
    # At once as strong as it will have to be: two that want more of a lock that both have wait for each other.
    statement = sql.SQL("LOCK TABLE {} IN {} MODE").format(
        _identifier(target), sql.SQL("ACCESS EXCLUSIVE" if truncates else "ROW EXCLUSIVE")
    )
    try:
        with connection.begin_nested():
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


def _identifier(target: Relation | Target) -> sql.Identifier:
    return sql.Identifier(target.schema, target.name)


def _execute(connection: Connection, statement: sql.Composed) -> None:
    # By the driver itself: a percent sign in a name would be doubled once too often on the way through SQLAlchemy.
    cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection).execute(statement)
