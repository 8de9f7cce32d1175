"""Whether the rows that a load rejected were put right: its reject file was loaded later, and all of it went in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from harborctl.db.tables import files, loads
from harborctl.model import Status

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Reject files of reject files.
DEEPEST = 10


def put_right(connection: Connection, load_id: str, depth: int = 0) -> bool:
    """Whether the reject file of this load, and of what rejected rows of it again, is in."""
    where = loads.c.metadata["directory"].astext.label("directory")
    about = select(loads.c.target_schema, loads.c.target_table, loads.c.reject_file, loads.c.finished_at, where)
    load = connection.execute(about.where(loads.c.id == load_id)).one()
    if not load.reject_file or depth == DEEPEST:
        return False
    name = os.path.basename(load.reject_file)  # noqa: PTH119  # text, of whatever system
    later = connection.execute(
        select(loads.c.id, loads.c.status, files.c.path, where)
        .join(files)
        .where(
            loads.c.target_schema == load.target_schema,
            loads.c.target_table == load.target_table,
            loads.c.status.in_((Status.LOADED, Status.LOADED_WITH_REJECTS)),
            loads.c.finished_at > load.finished_at,
            func.right(files.c.path, len(name)) == name,
        )
        .order_by(loads.c.finished_at.desc())
    ).all()
    place = _place(load.directory, load.reject_file)
    return any(
        row.status == Status.LOADED or put_right(connection, row.id, depth + 1)
        for row in later
        if _place(row.directory, row.path) == place
    )


def _place(directory: str | None, path: str) -> str:
    return os.path.normpath(os.path.join(directory or "", path))  # noqa: PTH118  # may be of another machine
