"""Statistics: the planner's, brought up to date where a load has made them wrong; the server's own, of rows changed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from psycopg import sql
from sqlalchemy import text

from harborctl.db.catalog import PARTS
from harborctl.db.failures import translated
from harborctl.db.storage import Storage
from harborctl.errors import HarborctlError
from harborctl.model import Analyze

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection

    from harborctl.db.catalog import Relation

# The share of a table's rows at which autovacuum analyzes it, too (autovacuum_analyze_scale_factor).
CHANGED_SHARE = 0.1

# Rows of a partitioned table are counted where they are. Counts of earlier transactions may still be among them.
# https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-STATS-FUNCTIONS
_TOUCHED = text(
    PARTS  # noqa: S608  # put together from two constants
    + """
    SELECT coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_updated(part)), 0)::bigint AS updated,
           coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_deleted(part)), 0)::bigint AS deleted
    FROM parts
"""
)

_ROWS = text("SELECT greatest(reltuples, 0) FROM pg_catalog.pg_class WHERE oid = CAST(:oid AS oid)")


logger = logging.getLogger("harborctl")


@dataclass(frozen=True, slots=True)
class Touched:
    """How many rows of a table the server has changed for this session: also for its foreign keys and triggers."""

    updated: int
    deleted: int


def touched(connection: Connection, target: Relation) -> Touched:
    """What the server has counted so far. Only a difference of two counts, within one transaction, means anything."""
    row = connection.execute(_TOUCHED, target.own_parts).one()
    return Touched(row.updated, row.deleted)


def analyze(connection: Connection, *name: str) -> None:
    """ANALYZE a table, named with its schema or, a temporary one, without. Without the right the server skips it."""
    statement = sql.SQL("ANALYZE {}").format(sql.Identifier(*name))
    # By the driver itself: a percent sign in a name would be doubled once too often on the way through SQLAlchemy.
    driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
    driver.execute(statement)


def analyze_after(connection: Connection, target: Relation, changed: int, when: Analyze) -> None:
    """ANALYZE the target if `when` says so, in `auto` if more than a tenth of it is new or different. Tables of Citus
    are for `analyze_committed`: the transaction that has changed their rows cannot do it."""
    if target.storage is not Storage.SHARDS:
        _analyze_changed(connection, target, changed, when)


def analyze_committed(connection: Connection, target: Relation, changed: int, when: Analyze) -> None:
    """As `analyze_after`, for tables of Citus, after the COMMIT. It is too late for a failure, which is only told."""
    if target.storage is not Storage.SHARDS:
        return
    try:
        with translated(), connection.begin():
            _analyze_changed(connection, target, changed, when)
    except (HarborctlError, KeyboardInterrupt) as error:
        logger.warning("the rows are in, but ANALYZE %s failed: %s", target.label, str(error) or "interrupted")


def _analyze_changed(connection: Connection, target: Relation, changed: int, when: Analyze) -> None:
    if when is Analyze.NEVER or (when is Analyze.AUTO and not changed):
        return
    before = connection.execute(_ROWS, {"oid": target.oid}).scalar_one()
    if when is Analyze.ALWAYS or changed > CHANGED_SHARE * before:
        analyze(connection, target.schema, target.name)
