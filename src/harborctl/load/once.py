"""Exactly once: whether the ledger holds a load of the same content into the same target, done in the same way.

What decides is the content, not the name of a file. Before a load files are hashed only if sizes agree; at its end,
when the digests are known for nothing, the ledger is asked again under a lock on the content, so that of two runs at
once one commits and the other finds it there.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, cast, exists, func, select
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from harborctl.db.storable import storable
from harborctl.db.tables import chunks, files, loads
from harborctl.errors import UsageError
from harborctl.model import Earlier, Mode, Status
from harborctl.sources.batch import WithoutHeader
from harborctl.sources.files import digest_of, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from harborctl.db.catalog import Relation
    from harborctl.model import FileResult, LoadOptions
    from harborctl.sources.batch import Source
    from harborctl.sources.files import SourceFile

DONE = (Status.LOADED, Status.LOADED_WITH_REJECTS)


class AlreadyLoaded(Exception):
    """Ends a load whose content is in."""

    def __init__(self, earlier: Earlier) -> None:
        super().__init__(earlier.load_id)
        self.earlier = earlier


def fingerprint(options: LoadOptions, target: Relation, sources: Sequence[Source]) -> str:
    """A digest of all that decides what becomes of given content: target, mode, mapping, dialect.

    The target goes by its oid too: a table that was dropped and made anew holds nothing of earlier loads.
    """
    merge = options.merge
    meaning = {
        "target": [target.schema, target.name, target.oid],
        "mode": options.mode,
        "key": merge.key,
        "newest_by": merge.newest_by,
        "on_duplicate": merge.on_duplicate,
        "keep": sorted(merge.keep),
        "touch": merge.touch,
        "format": options.format,
        "dialect": options.dialect.meaning(),
        **({"date_order": options.date_order} if options.date_order else {}),
        "map": options.columns.renames,
        "set": options.columns.constants,
        "skip_columns": sorted(options.columns.skipped),
        "columns": [
            source.first_names if isinstance(source, WithoutHeader) else source.schema.names for source in sources
        ],
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def refuse_known(
    connection: Connection,
    options: LoadOptions,
    target: Relation,
    sources: Sequence[Source],
    found: Sequence[SourceFile],
) -> None:
    """Before a load. Hashes the files only if the ledger holds a load with files of the same sizes.

    Raises:
        AlreadyLoaded: the ledger has one with the same content.
    """
    sizes = [source.size for source in sources]
    if options.run.again or None in sizes:
        return
    mark = fingerprint(options, target, sources)
    if _earlier(connection, options.mode, target, mark, files.c.bytes, sizes):
        _refuse(connection, options, target, mark, [digest_of(file) for file in found])


def refuse_unfinished(
    connection: Connection, options: LoadOptions, target: Relation, sources: Sequence[Source]
) -> None:
    """Before a load that would not find out which rows are in.

    Raises:
        UsageError: a load of the same files, in chunks, was ended after some of them.
    """
    if options.run.again:
        return
    if load_id := unfinished(connection, options, target, fingerprint(options, target, sources)):
        raise UsageError(
            f"a part of this very load is in already, by load {load_id}, which was ended before it was done",
            code="unfinished",
            hint="Let it go on with the --commit-every or --jobs that it had; --again loads all of it, once more.",
        )


def unfinished(connection: Connection, options: LoadOptions, target: Relation, mark: str) -> str | None:
    """The load that did the same with files of the same names, and was ended after some of its chunks."""
    if options.run.again:
        return None
    return connection.execute(
        select(loads.c.id)
        .where(
            loads.c.target_schema == target.schema,
            loads.c.target_table == target.name,
            loads.c.fingerprint == mark,
            loads.c.status.in_((Status.RUNNING, Status.FAILED, Status.INTERRUPTED)),
            loads.c.options["sources"] == cast(storable(connection, list(map(printable, options.sources))), JSONB),
            exists().where(chunks.c.load_id == loads.c.id),
        )
        .order_by(loads.c.started_at.desc())
        .limit(1)
    ).scalar_one_or_none()


def refuse_twice(
    connection: Connection,
    options: LoadOptions,
    target: Relation,
    sources: Sequence[Source],
    read: Sequence[FileResult],
) -> str:
    """At the end of a load, which must be rolled back if this raises. Who loads the same meanwhile waits here.

    Returns the fingerprint under which the load is to be recorded.

    Raises:
        AlreadyLoaded: another has loaded the same content by now.
    """
    mark = fingerprint(options, target, sources)
    if options.run.again:
        return mark
    digests = [file.sha256 for file in read]
    content = hashlib.sha256(" ".join([mark, *digests]).encode()).digest()
    key = int.from_bytes(content[:8], signed=True)
    connection.execute(select(func.pg_advisory_xact_lock(cast(key, BigInteger))))
    _refuse(connection, options, target, mark, digests)
    return mark


def _refuse(connection: Connection, options: LoadOptions, target: Relation, mark: str, digests: Sequence[str]) -> None:
    if found := _earlier(connection, options.mode, target, mark, files.c.sha256, digests):
        raise AlreadyLoaded(found)


def _earlier(
    connection: Connection, mode: Mode, target: Relation, mark: str, column: ColumnElement[Any], wanted: Sequence[Any]
) -> Earlier | None:
    """The newest load whose files have these values in `column`.

    Of the modes that overwrite only the last load into the target counts: after another one, the same file does
    something again.
    """
    values = (
        select(func.array_agg(aggregate_order_by(column, files.c.position)))
        .where(files.c.load_id == loads.c.id)
        .scalar_subquery()
    )
    query = (
        # As JSON a time does not depend on the session's DateStyle.
        select(
            loads.c.id,
            func.to_jsonb(loads.c.finished_at).label("finished_at"),
            loads.c.database_user,
            loads.c.host,
            loads.c.rejected,
        )
        .where(
            loads.c.target_schema == target.schema,
            loads.c.target_table == target.name,
            loads.c.fingerprint == mark,
            loads.c.status.in_(DONE),
            values == list(wanted),
        )
        .order_by(loads.c.finished_at.desc())
        .limit(1)
    )
    if mode not in {Mode.APPEND, Mode.IGNORE}:
        later = loads.alias("later")
        changed = later.c.inserted + later.c.updated + later.c.deleted > 0
        query = query.where(
            ~exists().where(
                later.c.target_schema == target.schema,
                later.c.target_table == target.name,
                later.c.status.in_(DONE),
                later.c.finished_at > loads.c.finished_at,
                changed,
            )
        )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Earlier(row.id, row.finished_at, row.database_user, row.host, row.rejected)
