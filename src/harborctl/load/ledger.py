"""The ledger's rows of one load: with the data if it went in, on their own if it did not."""

from __future__ import annotations

import socket
from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select

from harborctl import __version__
from harborctl.db.tables import files, loads

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from harborctl.db.catalog import Target
    from harborctl.model import ErrorInfo, LoadOptions, LoadResult, MergeOptions, RejectOptions

COUNTERS = ("rows_read", "inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "deleted", "rejected")


def record(
    connection: Connection, options: LoadOptions, result: LoadResult, target: Target | None, started_at: datetime
) -> None:
    """Write down how a load ended, in the transaction of `connection`."""
    connection.execute(
        insert(loads).values(
            id=result.load_id,
            target_schema=target.schema if target else None,
            target_table=target.name if target else result.table,
            mode=result.mode,
            writer=result.writer,
            status=result.status,
            **{name: getattr(result, name) for name in COUNTERS},
            reject_file=result.reject_file,
            started_at=started_at,
            finished_at=func.clock_timestamp(),
            seconds=result.seconds,
            host=socket.gethostname(),
            backend_pid=func.pg_backend_pid(),
            backend_start=select(func.max(_backend_start())).scalar_subquery(),
            application_version=__version__,
            options=_options(options),
            error=_storable(result.error) if result.error else None,
        )
    )
    for position, file in enumerate(result.files, start=1):
        connection.execute(insert(files).values(load_id=result.load_id, position=position, **asdict(file)))


def _backend_start() -> object:
    activity = func.pg_stat_get_activity(func.pg_backend_pid()).table_valued("backend_start")
    return activity.c.backend_start


def _storable(error: ErrorInfo) -> dict[str, object]:
    """The error as jsonb can hold it: a value may have a NUL in it, which jsonb cannot."""
    return {name: item.replace("\0", "\\0") if isinstance(item, str) else item for name, item in asdict(error).items()}


def _options(options: LoadOptions) -> dict[str, object]:
    return {
        "sources": list(options.sources),
        "table": options.table,
        **_merge(options.merge),
        "format": options.format,
        "dialect": asdict(options.dialect),
        "map": options.columns.renames,
        "set": options.columns.constants,
        "skip_columns": sorted(options.columns.skipped),
        **_rejects(options.rejects),
    }


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
