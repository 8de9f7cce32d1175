"""The ledger's rows of one load: with the data if it went in, on their own if it did not."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from harborctl.db.storable import storable
from harborctl.db.tables import files, loads
from harborctl.load.ledger.standing import storage_of
from harborctl.model import Status
from harborctl.plain_text import masked_all
from harborctl.sources.files import printable
from harborctl.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, ScalarSelect

    from harborctl.db.catalog import Relation
    from harborctl.load.ledger.standing import Standing
    from harborctl.model import FileResult, LoadOptions, LoadResult, MergeOptions, RejectOptions

# Of a row of `loads` that says `running`, whether it still does. Behind a pooler its session is another's by now, and
# the lock that its transactions have signed with tells; for a moment between two of them it does not. Of sessions of
# other users the server may keep the start to itself: then a process of this number is the one.
AT_WORK = """
    EXISTS (
        SELECT FROM pg_stat_get_activity(loads.backend_pid) AS backend
        WHERE backend.pid = loads.backend_pid AND coalesce(backend.backend_start = loads.backend_start, true)
    ) AND (
        NOT coalesce((loads.metadata->>'pooled')::boolean, false) OR EXISTS (
            SELECT FROM pg_locks AS held
            WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
              AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND held.classid::bigint << 32 | held.objid::bigint = hashtextextended(loads.id::text, 0)
        )
    )
"""

# What of a load's standing is about its beginning.
FOUND = ("target_oid", "ledger_oid", "snapshot", "began_empty")

COUNTERS = ("rows_read", "inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "deleted", "rejected")


def begin(
    connection: Connection,
    options: LoadOptions,
    load_id: str,
    target: Relation | tuple[str | None, str],
    started_at: datetime,
    fingerprint: str | None = None,
    chunked: tuple[Standing, Sequence[str]] | None = None,
) -> None:
    """Write down that a load runs, or runs again, in a transaction of its own: one that is killed leaves this row.

    Args:
        target: the table; schema and name of one that is to be made.
        chunked: of a load in chunks, where they go, and the files that it is about.
    """
    schema, name = target if isinstance(target, tuple) else (target.schema, target.name)
    driver: Any = connection.connection.driver_connection
    # A pooler makes up the number that it tells.
    pooled = func.jsonb_build_object("pooled", func.pg_backend_pid() != driver.info.backend_pid)
    known = _place() | ({"files": list(chunked[1])} if chunked else {})
    mine: dict[str, Any] = {
        "status": Status.RUNNING,
        "finished_at": None,
        "error": None,
        "host": storable(connection, socket.gethostname()),
        "backend_pid": func.pg_backend_pid(),
        "backend_start": _backend_start(),
    }
    statement = insert(loads).values(
        id=load_id,
        target_schema=schema,
        target_table=name,
        mode=options.mode,
        writer=options.writer,
        started_at=started_at,
        application_version=__version__,
        options=storable(connection, _options(options)),
        fingerprint=fingerprint,
        metadata=cast(storable(connection, known), JSONB).op("||")(pooled),
        **(_standing(chunked[0]) if chunked else {}),
        **mine,
    )
    mine["metadata"] = loads.c.metadata.op("||")(statement.excluded.metadata)
    connection.execute(statement.on_conflict_do_update(index_elements=[loads.c.id], set_=mine))


def finish(
    connection: Connection,
    options: LoadOptions,
    result: LoadResult,
    target: Relation | None,
    started_at: datetime,
    fingerprint: str | None = None,
    standing: Standing | None = None,
    meanings: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write down how a load ended, in the transaction of `connection`.

    Args:
        standing: the target as the load found it.
        meanings: of the files that were loaded, in order.
    """
    remembers = standing is not None and standing.ledger is not None
    is_in = result.status in {Status.LOADED, Status.LOADED_WITH_REJECTS}
    ended: dict[str, Any] = {
        "target_schema": target.schema if target else None,
        "target_table": target.name if target else result.table,
        "writer": result.writer,
        "status": result.status,
        **{name: getattr(result, name) for name in COUNTERS},
        "reject_file": result.reject_file,
        "finished_at": func.clock_timestamp(),
        "seconds": result.seconds,
        "error": asdict(result.error) if result.error else None,
    }
    if fingerprint:
        ended["fingerprint"] = fingerprint
    if standing is not None and remembers and is_in:
        ended |= _standing(standing) | {
            "xid": this_transaction(),
            "storage": list(storage_of(connection, standing.target)),
        }
    ended = storable(connection, ended)
    statement = insert(loads).values(
        id=result.load_id,
        mode=result.mode,
        started_at=started_at,
        host=storable(connection, socket.gethostname()),
        backend_pid=func.pg_backend_pid(),
        backend_start=_backend_start(),
        application_version=__version__,
        options=storable(connection, _options(options)),
        metadata=storable(connection, _place() | _metadata(result)),
        **ended,
    )
    ended["metadata"] = loads.c.metadata.op("||")(statement.excluded.metadata)
    # What a COMMIT whose answer was lost has settled stays.
    # A load in chunks has said before its first one what it found.
    ended |= {name: func.coalesce(loads.c[name], statement.excluded[name]) for name in FOUND if name in ended}
    statement = statement.on_conflict_do_update(
        index_elements=[loads.c.id], set_=ended, where=loads.c.status == Status.RUNNING
    )
    connection.execute(statement)
    if result.files:
        read = enumerate(result.files, start=1)
        waiting = iter(meanings)
        rows = [
            {"load_id": result.load_id, "position": position, "path": file.path, "bytes": file.bytes}
            | {"rows": file.rows, "sha256": file.sha256}
            | (_remembered(file, waiting) if remembers else {})
            for position, file in read
        ]
        connection.execute(insert(files), storable(connection, rows))


def _remembered(file: FileResult, meanings: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    is_own = file.status is Status.LOADED
    return {
        "content_bytes": file.content_bytes,
        "status": file.status,
        "loaded_by": file.load_id,
        "meaning": next(meanings, None) if is_own else None,
    }


def _standing(standing: Standing) -> dict[str, Any]:
    if standing.ledger is None:
        return {}
    return {
        "target_oid": standing.target.oid,
        "ledger_oid": standing.ledger,
        "storage": list(standing.storage),
        "snapshot": standing.snapshot,
        "began_empty": standing.empty,
    }


def this_transaction() -> ColumnElement[int]:
    """The number of the transaction that asks."""
    return cast(cast(func.pg_current_xact_id(), Text), BigInteger)


def _place() -> dict[str, object]:
    """Where paths begin."""
    return {"directory": printable(os.getcwd())}  # noqa: PTH109  # text


def _metadata(result: LoadResult) -> dict[str, object]:
    known: dict[str, object] = {}
    if result.attempts > 1:
        known |= {"attempts": result.attempts, "retried": [asdict(error) for error in result.retried]}
    if result.earlier:
        known["earlier"] = result.earlier.load_id
    return known


def status_of(connection: Connection, load_id: str) -> str | None:
    """What the ledger says of a load; None if it does not know it."""
    return connection.execute(select(loads.c.status).where(loads.c.id == load_id)).scalar_one_or_none()


def _backend_start() -> ScalarSelect[Any]:
    activity = func.pg_stat_get_activity(func.pg_backend_pid()).table_valued("backend_start")
    return select(func.max(activity.c.backend_start)).scalar_subquery()


def _options(options: LoadOptions) -> dict[str, object]:
    known = {
        "sources": [printable(source) for source in options.sources],
        "table": options.table,
        **_merge(options.merge),
        "format": options.format,
        "dialect": options.dialect.meaning(),
        **({"date_order": options.date_order} if options.date_order else {}),
        "map": options.columns.renames,
        "set": options.columns.constants,
        "skip_columns": sorted(options.columns.skipped),
        **_rejects(options.rejects),
    }
    hidden: dict[str, object] = masked_all(known)
    return hidden


def _rejects(options: RejectOptions) -> dict[str, object]:
    return {
        "on_error": options.on_error,
        "max_rejects": str(options.limit) if options.limit else None,
        "checks": list(options.checks),
        "expect_rows": str(options.expected) if options.expected else None,
    }


def _merge(options: MergeOptions) -> dict[str, object]:
    limit = options.max_delete
    return asdict(options) | {"max_delete": str(limit) if limit else None}
