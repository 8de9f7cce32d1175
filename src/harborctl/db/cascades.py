"""What foreign keys take along when rows of a table are deleted: rows of other tables, counted by the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import column, func, literal_column, select, table, text

from harborctl.db.search_path import on_empty_path
from harborctl.db.storage import hypertables

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.catalog import Relation

# Tables that deletions spread to, by actions that do something (`c` CASCADE, `n` SET NULL, `d` SET DEFAULT), over any
# number of steps. Partitions count as the table that they are of, and so do a partition's siblings.
_COUNTED = text("""
    WITH RECURSIVE own (oid) AS (
        SELECT CAST(:oid AS oid)
      UNION
        SELECT relid::oid FROM pg_catalog.pg_partition_tree(CAST(CAST(:oid AS oid) AS regclass))
      UNION
        SELECT inhrelid FROM pg_catalog.pg_inherits
        WHERE inhparent = CAST(:oid AS oid) AND inhparent = ANY (CAST(:hypertables AS oid[]))
    ), reached (oid) AS (
        SELECT oid FROM own
      UNION
        SELECT part.oid
        FROM reached
        JOIN pg_catalog.pg_constraint AS reference
          ON reference.confrelid = reached.oid AND reference.contype = 'f' AND reference.confdeltype IN ('c', 'n', 'd')
        CROSS JOIN LATERAL (
            SELECT reference.conrelid
          UNION
            SELECT relid::oid FROM pg_catalog.pg_partition_tree(reference.conrelid)
          UNION
            SELECT inhrelid FROM pg_catalog.pg_inherits
            WHERE inhparent = reference.conrelid AND inhparent = ANY (CAST(:hypertables AS oid[]))
        ) AS part (oid)
    ), counted AS (
        SELECT coalesce(pg_catalog.pg_partition_root(oid)::oid,
                        (SELECT inhparent FROM pg_catalog.pg_inherits
                         WHERE inhrelid = oid AND inhparent = ANY (CAST(:hypertables AS oid[]))), oid) AS root,
               pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_deleted(oid))::bigint AS deleted,
               pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_updated(oid))::bigint AS updated
        FROM reached WHERE oid NOT IN (SELECT oid FROM own) GROUP BY 1
    )
    SELECT namespace.nspname AS schema, class.relname AS name, coalesce(deleted, 0) AS deleted,
           coalesce(updated, 0) AS updated,
           pg_catalog.has_table_privilege(class.oid, 'SELECT') AS readable
    FROM counted JOIN pg_catalog.pg_class AS class ON class.oid = counted.root
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
    ORDER BY 1, 2
""")


@dataclass(frozen=True, slots=True)
class Along:
    """Rows of another table that the server has deleted and updated so far in this transaction.

    Attributes:
        readable: this user may count its rows.
    """

    schema: str
    name: str
    deleted: int
    updated: int
    readable: bool

    @property
    def label(self) -> str:
        """`schema.name`, for people."""
        return f"{self.schema}.{self.name}"


def taken_along(connection: Connection, target: Relation) -> tuple[Along, ...]:
    """The tables to which foreign keys spread a deletion from the target, with what is counted of them so far."""
    with on_empty_path(connection):
        return tuple(
            Along(*row)
            for row in connection.execute(_COUNTED, {"oid": target.oid, "hypertables": hypertables(connection)})
        )


def taken_since(connection: Connection, target: Relation, before: tuple[Along, ...]) -> tuple[Along, ...]:
    """What has happened to these tables since `before`; only those to which something has."""
    if not before:
        return ()
    known = {each.label: each for each in before}
    found = []
    for each in taken_along(connection, target):
        earlier = known.get(each.label)
        deleted = each.deleted - (earlier.deleted if earlier else 0)
        updated = each.updated - (earlier.updated if earlier else 0)
        if deleted or updated:
            found.append(Along(each.schema, each.name, deleted, updated, each.readable))
    return tuple(found)


def counts_rows(connection: Connection) -> bool:
    """Whether the server counts what transactions do."""
    return bool(connection.execute(select(func.current_setting("track_counts") == "on")).scalar_one())


def rows_before(connection: Connection, along: Along) -> int:
    """How many rows the table had before these were deleted; of one that cannot be read only these."""
    if not along.readable:
        return along.deleted
    rows = select(func.count(literal_column("*"))).select_from(table(along.name, column("ctid"), schema=along.schema))
    return connection.execute(rows).scalar_one() + along.deleted
