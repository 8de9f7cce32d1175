"""What is told of a load, however it ends, and the ledger's row of one that has nothing to do or has failed."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translated
from harborctl.db.migrations import ledger_installed
from harborctl.errors import HarborctlError, Interrupted
from harborctl.load.ledger import record
from harborctl.load.ledger.chunks import committed, total
from harborctl.load.ledger.dedupe import AlreadyLoaded
from harborctl.load.session.backend import end_signed
from harborctl.model import ErrorInfo, FileResult, LoadResult, Lock, Status, WriterName
from harborctl.plain_text import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from harborctl.errors import LockHeld
    from harborctl.load.ledger.chunks import Chunk
    from harborctl.load.run.context import Attempt
    from harborctl.model import Earlier


_HAS_WRITTEN = {Status.LOADED, Status.LOADED_WITH_REJECTS, Status.DRY_RUN}


def summary(attempt: Attempt, status: Status, read: Sequence[FileResult] = ()) -> LoadResult:
    """What there is to say of any load that ends so; `read` are the files that were read to their ends."""
    context, options = attempt.context, attempt.context.options
    seconds = time.monotonic() - context.start
    files = tuple(_with_left_out(attempt, read)) if read or status is Status.ALREADY_LOADED else ()
    pending = {known.earlier for known in attempt.left_out.values() if known.earlier.pending}
    rows = sum(file.rows for file in files)
    writer = attempt.plans[0].writer if attempt.plans else WriterName.AUTO
    result = LoadResult(
        status=status,
        load_id=context.load_id,
        table=attempt.target.label if attempt.target else masked(options.table or Path(options.sources[0]).name),
        mode=options.mode,
        writer=writer if writer is not WriterName.AUTO else options.writer,
        files=files,
        seconds=round(seconds, 3),
        rows_per_second=round(rows / seconds),
        database=context.database.url,
        notes=(*context.notes, *_added_notes(attempt, status), *map(_pending_note, pending), *_equal_notes(files)),
        pending_rejects=sum(earlier.rejected for earlier in pending),
        attempts=len(context.retried) + 1,
        retried=context.retried,
        created=attempt.creation.statement if attempt.creation and status in _HAS_WRITTEN else None,
        **(attempt.ending.summary() if attempt.ending else {}),
    )
    if attempt.chunks is None:
        return result
    rejected = sum(chunk.rejected for chunk in attempt.chunks)
    return replace(result, chunks=len(attempt.chunks), rejected=rejected, **asdict(total(attempt.chunks)))


def _with_left_out(attempt: Attempt, read: Sequence[FileResult]) -> Iterator[FileResult]:
    """All files in load order, each with the load that has put it in."""
    own = iter(read)
    for place in range(len(read) + len(attempt.left_out)):
        known = attempt.left_out.get(place)
        yield known.file if known else replace(next(own), load_id=attempt.context.load_id)


def _added_notes(attempt: Attempt, status: Status) -> list[str]:
    return [f"added column {name} {kind}" for name, kind in attempt.additions] if status in _HAS_WRITTEN else []


def _pending_note(earlier: Earlier) -> str:
    return (
        f"{earlier.rejected:,} rows that load {earlier.load_id} rejected were never put right:"
        f" mend {earlier.reject_file}, and load it"
    )


def _equal_notes(files: Sequence[FileResult]) -> Iterator[str]:
    """What is said of files of one load that have the same rows."""
    first: dict[str, str] = {}
    for file in files:
        if file.status is Status.LOADED and file.rows and file.sha256:
            if file.sha256 in first:
                yield f"{file.path} has the same content as {first[file.sha256]}: its rows are in as well"
            first.setdefault(file.sha256, file.path)


def what_is_in(chunks: Sequence[Chunk]) -> str:
    """The committed chunks, for people."""
    count = len(chunks)
    return f"{sum(chunk.rows for chunk in chunks):,} rows in {count} chunk{'s' * (count > 1)}"


def unneeded(connection: Connection, attempt: Attempt, reason: AlreadyLoaded | LockHeld) -> LoadResult:
    """A load that has nothing to do, or is not to wait until it may; else `reason` is raised again."""
    context, options = attempt.context, attempt.context.options
    if isinstance(reason, AlreadyLoaded):
        if attempt.ending:
            attempt.ending.failed()
        latest = max((known.earlier for known in reason.left_out.values()), key=lambda earlier: earlier.finished_at)
        attempt = replace(attempt, left_out=reason.left_out, ending=None)
        result = replace(summary(attempt, Status.ALREADY_LOADED), earlier=latest)
    elif options.run.lock is Lock.SKIP:
        result = replace(summary(attempt, Status.LOCKED), notes=(reason.message,))
    else:
        raise reason
    if context.keeps_record:
        with connection.begin():
            record.finish(connection, options, result, attempt.target, context.started_at, standing=attempt.standing)
    return result


def _with_committed(attempt: Attempt) -> Attempt:
    """With all chunks that are in: where the answer to a COMMIT was lost, the ledger knows."""
    context = attempt.context
    if attempt.chunks is None or not context.was_connected:
        return attempt
    try:
        with translated(), context.database.engine.begin() as connection:
            for key in attempt.keys:
                end_signed(connection, key)
            return replace(attempt, chunks=tuple(committed(connection, context.load_id)))
    except HarborctlError:
        return attempt  # what made the load fail is what the user must hear of


def failed(attempt: Attempt, error: HarborctlError) -> LoadResult:
    """The summary of a load that `error` ended, recorded in a transaction of its own if the database is there."""
    attempt = _with_committed(attempt)
    if attempt.chunks:
        goes_on = f"{what_is_in(attempt.chunks)} are committed: a rerun goes on there."
        error.hint = f"{error.hint} {goes_on}" if error.hint else goes_on
        error.message = error.message.removesuffix("; nothing was committed")
        error.hint = error.hint.replace("Nothing was committed. ", "")
    context, options = attempt.context, attempt.context.options
    status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
    further = tuple(map(ErrorInfo.of, error.further))
    result = replace(summary(attempt, status), error=ErrorInfo.of(error), errors=further)
    if context.keeps_record:
        try:
            with context.database.engine.begin() as connection:
                if ledger_installed(connection):
                    record.finish(connection, options, result, attempt.target, context.started_at)
        except (DBAPIError, HarborctlError):
            pass  # what made the load fail is what the user must hear of; the ledger could not be reached
    return result
