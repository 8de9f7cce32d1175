"""Indexes after rows: of a table that nobody can see rows of, what an index costs row by row is saved.

Indexes and the constraints behind them are dropped, and built again when the rows are in, in the load's transaction: a
load that fails leaves them as they were. What cannot be built again exactly as it was stays, and so does what others
depend on. Source: `pg_get_indexdef`, which pg_dump goes by, too.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import text

from harborctl.db.search_path import on_empty_path
from harborctl.model import RebuildIndexes
from harborctl.sqlstate import DEPENDENT_OBJECTS_STILL_EXIST, LOCK_NOT_AVAILABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from harborctl.db.catalog import Target
    from harborctl.model import LoadOptions

# Of a table that holds more than this, and perhaps no row, nobody wants to wait for the answer.
MOST_TO_LOOK_AT = 64 * 1024 * 1024

# For the build of an index; 64 MB is the server's default. One backend, or one and its workers, use it for one index at
# a time.
BUILD_MEMORY = "256MB"

# `deferred`: how many constraints are checked at COMMIT.
_TABLE = text("""
    SELECT pg_catalog.pg_has_role(class.relowner, 'USAGE') AS is_owner,
           NOT class.relispartition AND class.relkind = 'r' AND class.relpersistence IN ('p', 'u')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS trigger
                           WHERE trigger.tgrelid = class.oid AND NOT trigger.tgisinternal)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger AS event WHERE event.evtenabled <> 'D')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension AS extension WHERE extension.extname = 'citus')
               AS is_plain,
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint AS con
            WHERE con.conrelid = class.oid AND con.condeferred) AS deferred,
           pg_catalog.pg_relation_size(class.oid) AS size
    FROM pg_catalog.pg_class AS class WHERE class.oid = :oid
""")

# A function of a user's may find other tables by its search path, which is not the one that an index is built under.
# Columns of an index have statistics targets of their own if they are expressions.
_INDEXES = text("""
    SELECT class.oid AS oid, class.relname AS name, namespace.nspname AS schema,
           pg_catalog.pg_get_indexdef(class.oid) AS definition,
           space.spcname AS tablespace, index.indisclustered AS clustered, index.indisreplident AS identity,
           pg_catalog.obj_description(class.oid, 'pg_class') AS comment,
           con.conname AS constraint_name, con.contype AS constraint_type,
           con.condeferrable AS is_deferrable, con.condeferred AS is_deferred,
           pg_catalog.pg_get_constraintdef(con.oid) AS constraint_definition,
           pg_catalog.obj_description(con.oid, 'pg_constraint') AS constraint_comment,
           class.reloptions IS NOT NULL AS has_options,
           ARRAY(SELECT attribute.attnum::pg_catalog.int4 FROM pg_catalog.pg_attribute AS attribute
                 WHERE attribute.attrelid = class.oid AND attribute.attstattarget >= 0 ORDER BY attribute.attnum)
               AS measured,
           ARRAY(SELECT attribute.attstattarget::pg_catalog.int4 FROM pg_catalog.pg_attribute AS attribute
                 WHERE attribute.attrelid = class.oid AND attribute.attstattarget >= 0 ORDER BY attribute.attnum)
               AS targets
    FROM pg_catalog.pg_index AS index
    JOIN pg_catalog.pg_class AS class ON class.oid = index.indexrelid
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
    LEFT JOIN pg_catalog.pg_tablespace AS space ON space.oid = class.reltablespace
    LEFT JOIN pg_catalog.pg_constraint AS con
        ON con.conindid = class.oid AND con.contype IN ('p', 'u', 'x') AND con.conrelid = index.indrelid
    WHERE index.indrelid = :oid AND index.indisvalid AND index.indisready AND index.indislive
      AND NOT class.relispartition
      AND (con.conname IS NULL OR con.conname = class.relname)
      AND pg_catalog.to_jsonb(con) ->> 'conperiod' IS DISTINCT FROM 'true'
      AND coalesce(con.conislocal AND con.coninhcount = 0, true)
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend AS depend
          WHERE (depend.classid, depend.objid) IN (
                    ('pg_catalog.pg_class'::pg_catalog.regclass, class.oid),
                    ('pg_catalog.pg_constraint'::pg_catalog.regclass, con.oid))
            AND (depend.deptype IN ('e', 'x')
                 OR depend.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
      )
    ORDER BY class.oid
""")


@dataclass(frozen=True, slots=True)
class _Dropped:
    """An index that was dropped, as the catalog had it."""

    row: Any

    def statements(self, table: sql.Identifier) -> Iterator[sql.Composable]:
        """What makes it anew."""
        row = self.row
        name, qualified = sql.Identifier(row.name), sql.Identifier(row.schema, row.name)
        yield sql.SQL("SET LOCAL default_tablespace = {}").format(sql.Literal(row.tablespace or ""))
        alter = sql.SQL("ALTER TABLE {} ").format(table)
        if row.constraint_type == "x":
            yield alter + sql.SQL("ADD CONSTRAINT {} ").format(name) + sql.SQL(row.constraint_definition)
        else:
            yield sql.SQL(row.definition)
        if row.constraint_type in ("p", "u"):
            kind = sql.SQL("PRIMARY KEY" if row.constraint_type == "p" else "UNIQUE")
            when = " DEFERRABLE INITIALLY DEFERRED" if row.is_deferred else " DEFERRABLE" if row.is_deferrable else ""
            yield alter + sql.SQL("ADD CONSTRAINT {} {} USING INDEX {}{}").format(name, kind, name, sql.SQL(when))
        for number, target in zip(row.measured, row.targets, strict=True):
            statement = sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}")
            yield statement.format(qualified, sql.Literal(number), sql.Literal(target))
        if row.comment is not None:
            yield sql.SQL("COMMENT ON INDEX {} IS {}").format(qualified, sql.Literal(row.comment))
        if row.constraint_comment is not None:
            comment = sql.Literal(row.constraint_comment)
            yield sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(name, table, comment)
        if row.clustered:
            yield alter + sql.SQL("CLUSTER ON {}").format(name)
        if row.identity:
            yield alter + sql.SQL("REPLICA IDENTITY USING INDEX {}").format(name)


@contextmanager
def built_afterwards(connection: Connection, target: Target, options: LoadOptions, *, emptied: bool) -> Iterator[None]:
    """Let the block fill a table that has no rows without its indexes, and build them behind it.

    The block works as always where the table has rows that it keeps, is in use, or is not a plain one of this user's.

    Args:
        connection: in the load's transaction.
        target: the table.
        options: whether it is wanted.
        emptied: its rows go, and the lock for that is held. The block empties it: COPY may freeze rows only where no
            savepoint was rolled back since TRUNCATE.
    """
    table = sql.Identifier(target.schema, target.name)
    with on_empty_path(connection):
        found = _candidates(connection, target, options, emptied=emptied)
        dropped = [each for each in found if _drop(connection, table, each)]
    yield
    if not dropped:
        return
    execute = _executed(connection)
    with on_empty_path(connection):
        execute(_MEMORY)
        for each in dropped:
            for statement in each.statements(table):
                execute(statement)


# More than the user has set it to, never less.
_MEMORY = sql.SQL("""
    SELECT pg_catalog.set_config('maintenance_work_mem', {memory}, true)
    WHERE pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))
        < pg_catalog.pg_size_bytes({memory})
""").format(memory=sql.Literal(BUILD_MEMORY))


def _candidates(connection: Connection, target: Target, options: LoadOptions, *, emptied: bool) -> list[_Dropped]:
    """The indexes to be dropped, if nobody else can see the table; none if it is to keep them."""
    wanted = options.rebuild_indexes
    if wanted is RebuildIndexes.NEVER or options.dry_run:
        return []
    table = connection.execute(_TABLE, {"oid": target.oid}).one_or_none()
    if table is None or not table.is_owner or not table.is_plain:
        return []
    found = _indexes(connection, target)
    # The server builds no index while checks wait for the COMMIT: a constraint that has some would have to go, too.
    if not found or sum(each.row.is_deferred or False for each in found) != table.deferred:
        return []
    if wanted is RebuildIndexes.ALWAYS and not emptied:
        _executed(connection)(_lock(target, wait=True))
    elif not emptied and not (table.size <= MOST_TO_LOOK_AT and _locked_and_empty(connection, target)):
        return []
    return found


def _lock(target: Target, *, wait: bool) -> sql.Composable:
    statement = sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE{}")
    return statement.format(sql.Identifier(target.schema, target.name), sql.SQL("" if wait else " NOWAIT"))


def _locked_and_empty(connection: Connection, target: Target) -> bool:
    """Whether the table has no rows, and nobody else is about to change that."""
    execute = _executed(connection)
    found = sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(sql.Identifier(target.schema, target.name))
    if _first(execute(found)):  # before a lock that would make others wait
        return False
    try:
        with connection.begin_nested() as attempt:
            execute(_lock(target, wait=False))
            is_empty = not _first(execute(found))
            if not is_empty:
                attempt.rollback()  # and with it the lock
            return is_empty
    except psycopg.Error as error:
        if error.sqlstate != LOCK_NOT_AVAILABLE:
            raise
        return False


def _first(cursor: psycopg.Cursor[tuple[object, ...]]) -> object:
    row = cursor.fetchone()
    return row[0] if row else None


def _indexes(connection: Connection, target: Target) -> list[_Dropped]:
    rows = connection.execute(_INDEXES, {"oid": target.oid}).all()
    # `ADD CONSTRAINT … EXCLUDE` takes neither storage parameters nor a tablespace as the catalog writes it.
    return [_Dropped(row) for row in rows if row.constraint_type != "x" or not (row.has_options or row.tablespace)]


def _drop(connection: Connection, table: sql.Identifier, index: _Dropped) -> bool:
    """Whether it could be dropped: nothing else depends on it."""
    row = index.row
    if row.constraint_name is not None:
        statement = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(row.constraint_name))
    else:
        statement = sql.SQL("DROP INDEX {}").format(sql.Identifier(row.schema, row.name))
    driver = _driver(connection)
    try:
        # The driver releases the savepoint also where it rolls back. SQLAlchemy would leave it open, and COPY FREEZE
        # refuses a table that was truncated outside of an open savepoint.
        with driver.transaction():
            driver.execute(statement)
    except psycopg.Error as error:
        if error.sqlstate != DEPENDENT_OBJECTS_STILL_EXIST:
            raise
        return False
    return True


def _executed(connection: Connection) -> Any:
    """The driver's own `execute`: a percent sign in a name would be doubled on the way through SQLAlchemy."""
    return _driver(connection).execute


def _driver(connection: Connection) -> psycopg.Connection[tuple[object, ...]]:
    return cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
