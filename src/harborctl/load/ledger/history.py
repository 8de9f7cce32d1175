"""What the ledger says of past loads. A load whose row still says `running`, and which is not at work, is `lost`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from harborctl.db.catalog import split_name
from harborctl.db.failures import translated
from harborctl.db.migrations import require_ledger
from harborctl.errors import UsageError
from harborctl.load.ledger.record import AT_WORK

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine

STATUSES = (
    "running",
    "lost",
    "loaded",
    "loaded_with_rejects",
    "already_loaded",
    "locked",
    "interrupted",
    "failed",
)

_LOADS = f"""
    WITH told AS (
        SELECT loads.*, concat_ws('.', target_schema, target_table) AS "table",
               CASE WHEN status = 'running' AND NOT ({AT_WORK}) THEN 'lost' ELSE status END AS status_now
        FROM harborctl.loads AS loads
    )
"""  # noqa: S608  # of a constant

_LIST = text(
    _LOADS  # noqa: S608  # put together from two constants
    + """
    SELECT id::text AS load_id, started_at, finished_at, "table", mode, status_now AS status, rows_read, inserted,
           updated, unchanged, skipped, stale, duplicates, deleted, rejected, seconds, database_user AS "user", host,
           error->>'message' AS error
    FROM told
    WHERE (CAST(:schema AS text) IS NULL OR target_schema = :schema)
      AND (CAST(:name AS text) IS NULL OR target_table = :name)
      AND (CAST(:status AS text) IS NULL OR status_now = :status)
      AND (CAST(:since AS timestamptz) IS NULL OR started_at >= :since)
    ORDER BY started_at DESC, id LIMIT :limit
    """
)

_ONE = text(
    _LOADS  # noqa: S608  # put together from two constants
    + """
    SELECT to_jsonb(told) - '{id,target_schema,target_table,status,status_now}'::text[]
           - '{target_oid,ledger_oid,storage,snapshot,began_empty,xid}'::text[]
           || jsonb_build_object('load_id', id, 'status', status_now) AS load,
           (SELECT coalesce(jsonb_agg(to_jsonb(files) - 'load_id' ORDER BY position), '[]') FROM harborctl.files
            WHERE load_id = told.id) AS files,
           (SELECT coalesce(jsonb_agg(to_jsonb(chunks) - 'load_id' ORDER BY number), '[]') FROM harborctl.chunks
            WHERE load_id = told.id) AS chunks
    FROM told WHERE starts_with(id::text, :id) LIMIT 2
    """
)


def past_loads(
    engine: Engine, *, table: str | None, status: str | None, since: datetime | None, limit: int
) -> list[dict[str, Any]]:
    """The newest loads, newest first."""
    schema, name = split_name(table) if table else (None, None)
    wanted = {"schema": schema, "name": name, "status": status, "since": since, "limit": limit}
    with translated(), engine.begin() as connection:
        require_ledger(connection)
        connection.execute(text("SET LOCAL datestyle = ISO"))  # the driver reads no other
        return [dict(row) for row in connection.execute(_LIST, wanted).mappings()]


def one_load(engine: Engine, load_id: str) -> dict[str, Any]:
    """One load in full, with its files and chunks; the beginning of its id is enough.

    Raises:
        UsageError: there is none, or there are several.
    """
    with translated(), engine.begin() as connection:
        require_ledger(connection)
        found = connection.execute(_ONE, {"id": load_id.lower()}).all()
    if len(found) != 1:
        how_many = "several loads begin with" if found else "there is no load"
        raise UsageError(f"{how_many} {load_id}", code="no_such_load", hint="`harborctl history` lists them.")
    load: dict[str, Any] = found[0].load
    return {**load, "files": found[0].files, "chunks": found[0].chunks}
