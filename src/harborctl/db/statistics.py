"""Planner statistics: brought up to date where a load has made them wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from psycopg import sql
from sqlalchemy import text

from harborctl.model import Analyze

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Table

    from harborctl.db.catalog import Target

# The share of a table's rows at which autovacuum analyzes it, too (autovacuum_analyze_scale_factor).
CHANGED_SHARE = 0.1

_ROWS = text("SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = :oid")


def analyze(connection: Connection, table: Table) -> None:
    """ANALYZE a table. Without the right to it the server skips it."""
    statement = sql.SQL("ANALYZE {}").format(sql.Identifier(*filter(None, (table.schema, table.name))))
    # By the driver itself: a percent sign in a name would be doubled once too often on the way through SQLAlchemy.
    driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
    driver.execute(statement)


def analyze_after(connection: Connection, target: Target, changed: int, when: Analyze) -> None:
    """ANALYZE the target if `when` says so, in `auto` if more than a tenth of it is new or different."""
    if when is Analyze.NEVER or (when is Analyze.AUTO and not changed):
        return
    before = connection.execute(_ROWS, {"oid": target.oid}).scalar_one()
    if when is Analyze.ALWAYS or changed > CHANGED_SHARE * before:
        analyze(connection, target.table())
