"""Exactly once: which files of an append are in the target already, and are left out.

What decides is the content of a file, not its name. Before a load only files are hashed whose size the ledger knows; at
its end, when all digests are known for nothing, the ledger is asked again under a lock on the content, so that of two
runs at once one commits and the other finds it there. Whether the rows of an earlier load are still there says
`standing`. The modes that go by a key or replace never ask: doing it again is safe, and the accounts tell.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from harborctl.db.storable import storable
from harborctl.db.tables import chunks, files, loads
from harborctl.errors import StatementFailed, UsageError
from harborctl.load.ledger.mended import put_right
from harborctl.load.ledger.record import AT_WORK
from harborctl.model import ColumnOptions, CsvDialect, Earlier, FileResult, LayoutOptions, Mode, SourceFormat, Status
from harborctl.plain_text import masked_all
from harborctl.sources.batch import WithoutHeader
from harborctl.sources.files import content_of, digest_of, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from harborctl.db.catalog import Relation
    from harborctl.load.ledger.standing import Standing
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Source
    from harborctl.sources.files import SourceFile

DONE = (Status.LOADED, Status.LOADED_WITH_REJECTS)
UNFINISHED = (Status.RUNNING, Status.FAILED, Status.INTERRUPTED)

# Locks on content are this many for a target: a load of a thousand files must not fill the server's lock table.
BUCKETS = 64

IN, UNKNOWN, GONE = "in", "unknown", "gone"

# Loads of `told` have `xids`, the transactions that wrote their rows. What emptied the target after one is seen by
# these: see `standing`.
_VERDICT = """
    WITH emptying AS MATERIALIZED (
        SELECT id, snapshot::pg_snapshot AS snapshot, xid::text::xid8 AS xid,
               mode = 'replace' OR mode = 'sync' AND deleted > 0 AS empties
        FROM harborctl.loads
        WHERE target_oid = :oid AND ledger_oid = :ledger AND xid IS NOT NULL
          AND (mode = 'replace' OR mode = 'sync' AND deleted > 0 OR began_empty)
        UNION ALL
        SELECT NULL, CAST(:empty_in AS text)::pg_snapshot, NULL, false WHERE CAST(:empty_in AS text) IS NOT NULL
    ), told AS (
        SELECT loads.*,
               CASE WHEN xid IS NOT NULL THEN ARRAY[xid] ELSE (
                   SELECT array_agg((chunks.counters->>'xid')::bigint) FROM harborctl.chunks AS chunks
                   WHERE chunks.load_id = loads.id
               ) END AS xids
        FROM harborctl.loads AS loads
        WHERE (target_oid = :oid AND ledger_oid = :ledger)
           OR (ledger_oid <> :ledger AND target_schema = :schema AND target_table = :name)
    ), judged AS (
        SELECT told.*,
               CASE
                   WHEN ledger_oid <> :ledger AND CAST(:empty_in AS text) IS NOT NULL THEN 'gone'
                   WHEN ledger_oid <> :ledger THEN 'unknown'
                   WHEN EXISTS (
                       SELECT FROM emptying WHERE emptying.id IS DISTINCT FROM told.id AND (
                           SELECT bool_and(pg_visible_in_snapshot(one::text::xid8, emptying.snapshot))
                           FROM unnest(told.xids) AS one)
                   ) THEN 'gone'
                   WHEN NOT storage <@ CAST(:storage AS bigint[]) OR EXISTS (
                       SELECT FROM emptying WHERE emptying.id <> told.id AND empties
                          AND NOT pg_visible_in_snapshot(emptying.xid, told.snapshot::pg_snapshot)
                   ) THEN 'unknown'
                   ELSE 'in'
               END AS verdict
        FROM told
    )
"""

# As JSON a time does not depend on the session's DateStyle. What a load by key left aside is not in as the file has it.
_CANDIDATES = text(
    _VERDICT  # noqa: S608  # put together from two constants
    + """
    SELECT files.sha256, files.meaning, files.path, judged.verdict, judged.id::text AS id, judged.database_user,
           to_jsonb(judged.finished_at) AS finished_at, judged.host, judged.rejected, judged.reject_file
    FROM judged JOIN harborctl.files AS files ON files.load_id = judged.id
    WHERE files.sha256 = ANY(:digests) AND files.status = 'loaded' AND files.rows > 0 AND judged.verdict <> 'gone'
      AND judged.status IN ('loaded', 'loaded_with_rejects') AND judged.id <> CAST(:own AS uuid)
      AND (judged.mode IN ('append', 'replace') OR judged.skipped + judged.stale + judged.duplicates = 0)
    ORDER BY judged.finished_at DESC
    """
).bindparams(bindparam("digests", type_=ARRAY(files.c.sha256.type)), bindparam("storage", type_=ARRAY(BigInteger)))

_ONE_VERDICT = text(
    _VERDICT + "SELECT verdict FROM judged WHERE id = CAST(:id AS uuid)"  # noqa: S608  # likewise
).bindparams(bindparam("storage", type_=ARRAY(BigInteger)))


@dataclass(frozen=True, slots=True)
class Known:
    """A source that is in already, and the load that did it."""

    file: FileResult
    earlier: Earlier


class AlreadyLoaded(Exception):
    """Ends a load of which all is in: `left_out`, by the place among its sources."""

    def __init__(self, left_out: Mapping[int, Known]) -> None:
        super().__init__("all is in already")
        self.left_out = left_out


class Overtaken(Exception):
    """Ends an attempt: some of its files are in by now, and the next one leaves them out."""

    def __init__(self, known: Mapping[int, Known]) -> None:
        super().__init__(", ".join(each.file.path for each in known.values()))
        self.known = known


def asks(options: LoadOptions) -> bool:
    """Whether the ledger says what of this load is to be left out."""
    return options.ledger and options.mode is Mode.APPEND and not options.run.again


# -- what the same content means


# They decide whether a file goes in, and not what becomes of it.
_NO_MEANING = {"max_record_bytes"}


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
        **_own(options.layout, LayoutOptions()),
        "map": options.columns.renames,
        "set": options.columns.constants,
        "skip_columns": sorted(options.columns.skipped),
        "columns": [
            source.first_names if isinstance(source, WithoutHeader) else source.schema.names for source in sources
        ],
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, default=_plain).encode()).hexdigest()


def meaning_of(options: LoadOptions, source: Source) -> dict[str, Any]:
    """What makes rows of the content of a source, as JSON: only what is not as by default, so that an option which a
    later version brings along changes nothing for those who do not use it."""
    typed = source.format in {SourceFormat.PARQUET, SourceFormat.ARROW}
    dialect = {} if typed else _own(options.dialect, CsvDialect())
    if source.format is SourceFormat.TSV and "delimiter" not in dialect:
        dialect["delimiter"] = "\t"
    text_format = SourceFormat.CSV if source.format is SourceFormat.TSV else source.format
    meaning = {"format": text_format, **dialect, **_own(options.columns, ColumnOptions())}
    meaning |= _own(options.layout, LayoutOptions())
    if options.date_order:
        meaning["date_order"] = options.date_order
    plain: dict[str, Any] = masked_all(json.loads(json.dumps(meaning, default=_plain)))
    return plain


def _own(given: Any, default: Any) -> dict[str, Any]:
    """The fields that are not as by default."""
    names = (each.name for each in fields(given))
    return {
        name: getattr(given, name)
        for name in names
        if name not in _NO_MEANING and getattr(given, name) != getattr(default, name)
    }


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else str(value)


_OPTIONS = {
    "maps": "map",
    "extra": "extra-columns",
    "missing": "missing-columns",
    "constants": "set",
    "skipped": "skip-columns",
    "nulls": "null",
    "header": "no-header",
}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return ", ".join("--" + _OPTIONS.get(name, name).replace("_", "-") for name in names)


# -- what is in


def find_known(
    connection: Connection, options: LoadOptions, standing: Standing, sources: Sequence[Source],
    found: Sequence[SourceFile], own: str, *, thorough: bool = False,
) -> dict[int, Known]:  # fmt: skip
    """Before a load: its sources that are in, by their place. Files are hashed only if their size is known, or, if it
    is to be `thorough` about compressed ones too, if there is any other file.

    Raises:
        StatementFailed: nobody can know it, or the same content is in with another meaning.
    """
    if known := _known_as_a_whole(connection, options, standing, sources, found):
        return known
    if standing.ledger is None:
        return {}
    hashed = _worth_hashing(connection, standing, found, thorough=thorough)
    read = {place: _unread(found[place]) for place in hashed}
    meanings = {place: meaning_of(options, sources[place]) for place in read}
    return _known(connection, standing, read, meanings, own)


def refuse_twice(
    connection: Connection, options: LoadOptions, standing: Standing, sources: Sequence[Source],
    read: Sequence[FileResult], own: str,
) -> None:  # fmt: skip
    """At the end of a load, which must be rolled back if this raises. Who loads the same meanwhile waits here.

    Raises:
        Overtaken: some or all of it is in by now.
        StatementFailed: as `find_known`.
    """
    digests = [file.sha256 for file in read]
    for key in sorted({_lock_of(standing.target, digest) for digest in digests} if not options.dry_run else ()):
        connection.execute(select(func.pg_advisory_xact_lock(cast(key, BigInteger))))
    if standing.ledger is None:
        known = _of_old(connection, options, standing, sources, files.c.sha256, digests)
        found = dict.fromkeys(range(len(read)), known) if known else {}
        known_files = {place: _left_out(read[place], earlier) for place, earlier in found.items()}
    else:
        meanings = {place: meaning_of(options, source) for place, source in enumerate(sources)}
        known_files = _known(connection, standing, dict(enumerate(read)), meanings, own)
    if known_files:
        raise Overtaken(known_files)


def _lock_of(target: Relation, digest: str) -> int:
    bucket = int(digest[:8] or "0", 16) % BUCKETS
    return int.from_bytes(hashlib.sha256(f"{target.oid} {bucket}".encode()).digest()[:8], signed=True)


def _unread(file: SourceFile) -> FileResult:
    return FileResult(file.name, file.size or 0, 0, *content_of(file))


def _worth_hashing(
    connection: Connection, standing: Standing, found: Sequence[SourceFile], *, thorough: bool
) -> list[int]:
    here = or_(
        loads.c.target_oid == standing.target.oid,
        (loads.c.target_schema == standing.target.schema) & (loads.c.target_table == standing.target.name),
    )
    done = select(files.c.bytes, files.c.content_bytes).join(loads).where(here, files.c.status == Status.LOADED)
    like = any_(cast([file.size for file in found if file.size is not None], ARRAY(BigInteger)))
    rows = connection.execute(done.where(or_(files.c.bytes == like, files.c.content_bytes == like)).distinct()).all()
    on_disk, inside = {row.bytes for row in rows}, {row.content_bytes for row in rows}
    any_other = thorough and connection.execute(done.limit(1)).first() is not None

    def is_worth_it(file: SourceFile) -> bool:
        if file.path is None:
            return False
        return file.size in inside if file.compression is None else any_other or file.size in on_disk

    return [place for place, file in enumerate(found) if is_worth_it(file)]


def _known(
    connection: Connection, standing: Standing, read: Mapping[int, FileResult],
    meanings: Mapping[int, Mapping[str, Any]], own: str,
) -> dict[int, Known]:  # fmt: skip
    if not read:
        return {}
    meanings = {place: storable(connection, meaning) for place, meaning in meanings.items()}
    wanted = {"digests": sorted({file.sha256 for file in read.values()}), "own": own}
    rows = connection.execute(_CANDIDATES, _binds(standing) | wanted).all()
    known = {}
    for place, file in read.items():
        found = [
            row
            for row in rows
            if row.sha256 == file.sha256 and row.meaning.get("constants") == meanings[place].get("constants")
        ]
        if earlier := _judged(connection, standing, file, found, meanings[place]):
            known[place] = _left_out(file, earlier)
    return known


def _judged(
    connection: Connection, standing: Standing, file: FileResult, found: Sequence[Row[Any]], meaning: Mapping[str, Any]
) -> Earlier | None:
    """What loads of the same content say: the load that has put it in, if it is in."""
    label = standing.target.label
    alike = [row for row in found if row.meaning == meaning]
    vouching = [row for row in alike if row.verdict == IN]
    if vouching:
        told = [_earlier(connection, row) for row in vouching]
        return next((earlier for earlier in told if not earlier.pending), told[0])
    if alike:
        raise rewritten(label, alike[0], f"the rows of {file.path}")
    if found:
        row = found[0]
        raise StatementFailed(
            f"load {row.id} has put the content of {file.path} into {label} already, with another meaning:"
            f" {_differing(row.meaning, meaning)} {'differ' if ',' in _differing(row.meaning, meaning) else 'differs'}",
            code="same_content",
            hint="If it is to go in once more, with the meaning that it has now, say --again.",
        )
    return None


def rewritten(label: str, load: Any, what: str) -> StatementFailed:
    """Nobody knows whether what a load has put in is still there."""
    return StatementFailed(
        f"nobody knows whether {what} are still in {label}: load {load.id} put them there at {load.finished_at}, and"
        " the table was rewritten or emptied since",
        code="rewritten",
        hint="Look into the table. If they are not there, load them with --again.",
    )


def _left_out(file: FileResult, earlier: Earlier) -> Known:
    told = FileResult(file.path, file.bytes, 0, file.sha256, file.content_bytes, Status.ALREADY_LOADED, earlier.load_id)
    return Known(told, earlier)


def _earlier(connection: Connection, row: Any) -> Earlier:
    pending = bool(row.rejected) and not put_right(connection, row.id)
    return Earlier(row.id, row.finished_at, row.database_user, row.host, row.rejected, row.reject_file, pending)


def _binds(standing: Standing) -> dict[str, Any]:
    target = standing.target
    return {
        "oid": target.oid,
        "schema": target.schema,
        "name": target.name,
        "ledger": standing.ledger,
        "storage": list(standing.storage),
        "empty_in": standing.snapshot if standing.empty else None,
    }


# -- loads of older versions, which are known as a whole


def _known_as_a_whole(
    connection: Connection, options: LoadOptions, standing: Standing, sources: Sequence[Source],
    found: Sequence[SourceFile],
) -> dict[int, Known]:  # fmt: skip
    """All sources, if a load of an older version had the same ones, and nothing has emptied the target since."""
    sizes = [file.size for file in found]
    if any(file.path is None for file in found) or not _has_old(connection, standing):
        return {}
    if not _of_old(connection, options, standing, sources, files.c.bytes, sizes):
        return {}
    digests = [digest_of(file) for file in found]
    if not (earlier := _of_old(connection, options, standing, sources, files.c.sha256, digests)):
        return {}
    return {place: _left_out(_unread(file), earlier) for place, file in enumerate(found)}


def _has_old(connection: Connection, standing: Standing) -> bool:
    if standing.ledger is None:
        return True
    target = standing.target
    old = select(loads.c.id).where(
        loads.c.target_schema == target.schema,
        loads.c.target_table == target.name,
        loads.c.status.in_(DONE),
        loads.c.target_oid.is_(None),
    )
    return connection.execute(old.limit(1)).first() is not None


def _of_old(
    connection: Connection, options: LoadOptions, standing: Standing, sources: Sequence[Source],
    column: ColumnElement[Any], wanted: Sequence[Any],
) -> Earlier | None:  # fmt: skip
    """The newest of them whose files have these values in `column`."""
    if standing.empty:
        return None
    target = standing.target
    values = (
        select(func.array_agg(aggregate_order_by(column, files.c.position)))
        .where(files.c.load_id == loads.c.id)
        .scalar_subquery()
    )
    later = loads.alias("later")
    emptied = exists().where(
        later.c.target_schema == target.schema,
        later.c.target_table == target.name,
        later.c.status.in_(DONE),
        later.c.finished_at > loads.c.finished_at,
        or_(later.c.mode == Mode.REPLACE, (later.c.mode == Mode.SYNC) & (later.c.deleted > 0)),
    )
    query = (
        select(
            loads.c.id,
            func.to_jsonb(loads.c.finished_at).label("finished_at"),
            loads.c.database_user,
            loads.c.host,
            loads.c.rejected,
            loads.c.reject_file,
        )
        .where(
            loads.c.target_schema == target.schema,
            loads.c.target_table == target.name,
            loads.c.fingerprint == fingerprint(options, target, sources),
            loads.c.status.in_(DONE),
            values == list(wanted),
            ~emptied,
        )
        .order_by(loads.c.finished_at.desc())
        .limit(1)
    )
    if standing.ledger is not None:
        query = query.where(loads.c.target_oid.is_(None))
    row = connection.execute(query).one_or_none()
    return _earlier(connection, row) if row else None


# -- loads in chunks that were ended before they were done


def refuse_unfinished(connection: Connection, standing: Standing, sources: Sequence[Source]) -> None:
    """For a load that would not find out which rows are in.

    Raises:
        UsageError: a load of these files, in chunks, runs, or was ended after some of them.
    """
    paths = storable(connection, [source.name for source in sources])
    has_chunks = exists().where(chunks.c.load_id == loads.c.id, chunks.c.counters["path"].astext.in_(paths))
    runs = (
        (loads.c.status == Status.RUNNING)
        & loads.c.metadata["files"].has_any(cast(paths, ARRAY(Text)))
        & literal_column(f"({AT_WORK})", Boolean)
    )
    candidates = connection.execute(
        select(loads.c.id, runs.label("runs"))
        .where(
            loads.c.target_schema == standing.target.schema,
            loads.c.target_table == standing.target.name,
            loads.c.mode == Mode.APPEND,
            loads.c.status.in_(UNFINISHED),
            or_(has_chunks, runs),
        )
        .order_by(loads.c.started_at.desc())
    ).all()
    for load in candidates:
        if load.runs:
            raise UsageError(
                f"load {load.id} is putting the same files in, chunk by chunk",
                code="unfinished",
                hint="Run it again when that is done.",
            )
        if verdict_of(connection, standing, load.id) == GONE:
            continue
        raise UsageError(
            f"a part of this very load is in already, by load {load.id}, which was ended before it was done",
            code="unfinished",
            hint="Let it go on with the --commit-every or --jobs that it had; --again loads all of it, once more.",
        )


def await_ending(connection: Connection, target: Relation) -> None:
    """Wait until no load into the target is between its last look at the ledger and its commit. A load in chunks does
    so before its own look: it will not look again."""
    for key in sorted(_lock_of(target, f"{bucket:08x}") for bucket in range(BUCKETS)):
        connection.execute(select(func.pg_advisory_xact_lock(cast(key, BigInteger))))


@dataclass(frozen=True, slots=True)
class Begun:
    """A load in chunks that goes on, or begins.

    Attributes:
        files: what it is about, as it numbers them; none if it begins.
    """

    load_id: str
    files: Sequence[str] = ()


def find_begun(
    connection: Connection, options: LoadOptions, standing: Standing, sources: Sequence[Source], own: str
) -> Begun:
    """The load that did the same with sources of the same names, and was ended after some of its chunks; with --again
    only what this run has begun itself. If what it has put in is gone, or, in a mode that may do it again, if nobody
    knows: a new one.

    Raises:
        StatementFailed: of an append, nobody knows.
    """
    same = (
        loads.c.target_schema == standing.target.schema,
        loads.c.target_table == standing.target.name,
        loads.c.fingerprint.in_([fingerprint(options, standing.target, known) for known in ((), sources)]),
        loads.c.status.in_(UNFINISHED),
        loads.c.options["sources"] == cast(storable(connection, list(map(printable, options.sources))), JSONB),
    )
    is_it = loads.c.id == own if options.run.again else or_(loads.c.id == own, and_(*same))
    begun = connection.execute(
        select(
            loads.c.id, func.to_jsonb(loads.c.started_at).label("finished_at"), loads.c.metadata["files"].label("files")
        )
        .where(is_it, exists().where(chunks.c.load_id == loads.c.id))
        .order_by((loads.c.id == own).desc(), loads.c.started_at.desc())
        .limit(1)
    ).one_or_none()
    if begun is None:
        return Begun(own)
    verdict = verdict_of(connection, standing, begun.id)
    if verdict == UNKNOWN and options.mode is Mode.APPEND:
        raise rewritten(standing.target.label, begun, "the rows that are in")
    if verdict != IN:
        return Begun(str(uuid.uuid4()) if begun.id == own else own)
    # Loads of older versions are about all sources, in their order.
    return Begun(begun.id, begun.files or [source.name for source in sources])


def verdict_of(connection: Connection, standing: Standing, load_id: str) -> str:
    """Whether what a load has put in so far is still there."""
    if standing.empty:
        return GONE
    if standing.ledger is None:
        return IN
    found = connection.execute(_ONE_VERDICT, _binds(standing) | {"id": load_id}).scalar_one_or_none()
    return found or IN  # of an older version, of which nothing more is known
