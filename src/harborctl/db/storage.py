"""Where the rows of a table are, if not in the table itself: TimescaleDB keeps them in chunks, Citus in shards.

PostgreSQL's own catalogs do not tell: chunks look like tables that inherit from another one, and a table with shards
looks like an empty one.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import text

from harborctl.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Row


class Storage(StrEnum):
    """What holds a table's rows.

    - `own`: its files, or those of its partitions, or of the tables behind a view
    - `chunks`: it is a hypertable of TimescaleDB. Its chunks are partitions in all but name.
    - `shards`: Citus keeps them in other tables, most of them on other servers
    """

    OWN = "own"
    CHUNKS = "chunks"
    SHARDS = "shards"


# Two items of a SELECT list. Anybody may call a schema _timescaledb_catalog; only the extension makes this one where it
# is installed. In pg_catalog nobody but a superuser makes a table.
EXTENSIONS = """
    EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'timescaledb') AS timescaledb,
    pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL AS citus
"""
_KNOWN = "harborctl_extensions"

_HYPERTABLES = text("""
    SELECT class.oid FROM _timescaledb_catalog.hypertable AS hypertable
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.nspname = hypertable.schema_name
    JOIN pg_catalog.pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = hypertable.table_name
""")
_COMPRESSED = text("""
    SELECT class.oid, coalesce(size.numrows_pre_compression, 0) AS rows
    FROM _timescaledb_catalog.compression_chunk_size AS size
    JOIN _timescaledb_catalog.chunk AS chunk ON chunk.id = size.chunk_id
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.nspname = chunk.schema_name
    JOIN pg_catalog.pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = chunk.table_name
""")
_SHARDED = text("SELECT logicalrelid::oid FROM pg_catalog.pg_dist_partition")
_DIVIDED_BY = text("""
    SELECT CASE WHEN partmethod = 'h' THEN pg_catalog.column_to_column_name(logicalrelid, partkey) END
    FROM pg_catalog.pg_dist_partition WHERE logicalrelid = CAST(CAST(:oid AS oid) AS regclass)
""")
_READS_APART = text("SELECT pg_catalog.set_config('citus.select_opens_transaction_block', 'off', true)")
_PROPAGATES = text("SELECT pg_catalog.current_setting('citus.enable_ddl_propagation')")
_PROPAGATE = text("SELECT pg_catalog.set_config('citus.enable_ddl_propagation', :value, true)")
_GROUP = text("SELECT groupid FROM pg_catalog.pg_dist_local_group")


def remember_extensions(connection: Connection, found: Row[*tuple[Any, ...]]) -> None:
    """Spare the question after a query that had `EXTENSIONS`."""
    connection.info[_KNOWN] = {"timescaledb": found.timescaledb, "citus": found.citus}


def _has(connection: Connection, extension: str) -> bool:
    """Whether the database has this extension. Asked once in a session."""
    if _KNOWN not in connection.info:
        remember_extensions(connection, connection.execute(text("SELECT" + EXTENSIONS)).one())
    return bool(connection.info[_KNOWN][extension])


def hypertables(connection: Connection) -> list[int]:
    """The oids of all hypertables; what inherits from one is a chunk."""
    return list(connection.execute(_HYPERTABLES).scalars()) if _has(connection, "timescaledb") else []


def compressed_rows(connection: Connection) -> Mapping[int, int]:
    """The oids of all chunks that are compressed, and how many rows each had then. Their files do not hold these."""
    if not _has(connection, "timescaledb"):
        return {}
    return {row.oid: row.rows for row in connection.execute(_COMPRESSED)}


def sharded(connection: Connection) -> frozenset[int]:
    """The oids of all tables of which Citus keeps the rows."""
    return frozenset(connection.execute(_SHARDED).scalars()) if _has(connection, "citus") else frozenset()


def kept_in(connection: Connection, oid: int) -> Storage:
    """What holds the rows of the table with this oid."""
    if oid in hypertables(connection):
        return Storage.CHUNKS
    return Storage.SHARDS if oid in sharded(connection) else Storage.OWN


def divided_by(connection: Connection, oid: int) -> str | None:
    """The column by whose values Citus divides this table, which it keeps; None for one that is not divided."""
    return cast("str | None", connection.execute(_DIVIDED_BY, {"oid": oid}).scalar_one())


def stay_here(connection: Connection) -> None:
    """For this transaction: what only reads opens no transaction on other servers of Citus. Each savepoint would be one
    on all servers that take part; so there are none as long as rows are staged."""
    connection.execute(_READS_APART)


@contextmanager
def done_here(connection: Connection, storage: Storage) -> Iterator[None]:
    """LOCK and DDL of this block are of this server only, also where a table of Citus is the target."""
    if storage is not Storage.SHARDS:
        yield
        return
    before = connection.execute(_PROPAGATES).scalar_one()
    connection.execute(_PROPAGATE, {"value": "off"})
    yield
    connection.execute(_PROPAGATE, {"value": before})  # an error ends it, with its savepoint or transaction


def is_worker(connection: Connection) -> bool:
    """Whether this server is a worker of a Citus cluster, of which the coordinator is group 0."""
    return _has(connection, "citus") and any(connection.execute(_GROUP).scalars())


def require_coordinator(connection: Connection) -> None:
    """See that rows may be loaded by this server.

    Raises:
        TargetError: it is a worker of Citus. Locks and ledger of the loads that the coordinator carries out are there.
    """
    if is_worker(connection):
        raise TargetError(
            "this server is a worker of a Citus cluster: its locks and its ledger know nothing of other loads",
            code="citus_worker",
            hint="Name the coordinator of the cluster.",
        )
