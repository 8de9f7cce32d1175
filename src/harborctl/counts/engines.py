"""Where rows are elsewhere: tables that Citus spreads over other servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harborctl.counts.result import Basis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.db.relations import Relation


def has_citus(connection: Connection) -> bool:
    """Whether tables may be spread by Citus."""
    return bool(connection.execute(text("SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL")).scalar_one())


_DISTRIBUTED = text("SELECT logicalrelid::oid FROM pg_catalog.pg_dist_partition WHERE logicalrelid::oid = ANY(:oids)")


# `%s` becomes the shard's name. As `_from_catalog`; a shard that was never analyzed answers nothing.
_ON_SHARD = """
    SELECT CASE WHEN relpages > 0
                THEN reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::bigint)
                WHEN pg_relation_size(oid) = 0 THEN 0 END
    FROM pg_class WHERE oid = '%s'::regclass
"""


_SHARDS = text("""
    SELECT sum(nullif(shard.result, '')::float8) AS rows,
           bool_and(shard.success AND nullif(shard.result, '') IS NOT NULL) AS known
    FROM run_command_on_shards(CAST(CAST(:oid AS oid) AS regclass), :command) AS shard
""")


def distributed(connection: Connection, relation: Relation, parts: Sequence[Any]) -> frozenset[int]:
    """Those of the table and its parts that Citus keeps on other servers."""
    oids = [relation.oid, *(part.oid for part in parts)]
    return frozenset(connection.execute(_DISTRIBUTED, {"oids": oids}).scalars())


def rows_on_shards(connection: Connection, part: Any) -> tuple[float, Basis] | None:
    """The rows of a spread table, as ANALYZE last saw its shards; None if they cannot be asked."""
    try:
        with connection.begin_nested():
            shards = connection.execute(_SHARDS, {"oid": part.oid, "command": _ON_SHARD}).one()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None  # not allowed, or a worker is away: the planner still has an answer
    return (shards.rows, Basis.SHARDS) if shards.known else None
