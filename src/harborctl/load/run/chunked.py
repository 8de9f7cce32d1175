"""Loads in chunks: `--commit-every` commits each with its ledger row, `--jobs` loads several at once.

One connection holds the load's locks from begin to end, and commits last, with the ledger's row. The chunks are loaded
by workers. Each worker needs a session, and so does the holder; the ledger is written before the workers begin. With
`--jobs` alone all chunks are written before the first is committed: only a crash between the first COMMIT and the last
leaves a part of the load behind. Whatever is left behind, the next run finds in the ledger, and loads what is missing.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, cast, func, select

from harborctl.db.catalog import described
from harborctl.db.failures import translated
from harborctl.db.migrations import require_ledger
from harborctl.db.relations import quoted
from harborctl.db.sessions import require_sessions
from harborctl.db.statistics import analyze_after, analyze_committed
from harborctl.db.storable import storable
from harborctl.db.storage import require_coordinator
from harborctl.errors import HarborctlError, LockHeld, UsageError
from harborctl.load.ledger import dedupe, record
from harborctl.load.ledger.chunks import check_same, committed, missing, next_number, total
from harborctl.load.ledger.dedupe import AlreadyLoaded
from harborctl.load.ledger.standing import standing_of
from harborctl.load.modes import check_target
from harborctl.load.rejects.ledger_spool import forget
from harborctl.load.run.chunk_rules import check_parts, refuse_read_once, refuse_references
from harborctl.load.run.context import Attempt, Failure
from harborctl.load.run.creation import require_table
from harborctl.load.run.drive import Handing, WorkersMeet, load_splits
from harborctl.load.run.prepare import ending_of, make_plans, start_progress, table_name
from harborctl.load.run.summary import summary, unneeded, what_is_in
from harborctl.load.run.workers import WorkOrder
from harborctl.load.session.backend import new_key, sign
from harborctl.load.session.locks import stay_open, take_named, take_turn
from harborctl.model import FileResult, LoadOptions, LoadResult, Mode, Status, WriterName
from harborctl.sources.files import content_of, find_files
from harborctl.sources.open import open_file, refuse_strange_options
from harborctl.sources.splits import divisible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.db.catalog import Target
    from harborctl.load.ledger.chunks import Chunk
    from harborctl.load.ledger.standing import Standing
    from harborctl.load.run.context import Context
    from harborctl.sources.batch import Source
    from harborctl.sources.files import SourceFile
    from harborctl.sources.splits import Divisible

# "hrbc" in ASCII: beside the targets' locks, those of loads in chunks, by fingerprint.
NAMESPACE = 0x68726263

logger = logging.getLogger("harborctl")


def load_in_chunks(context: Context) -> LoadResult | Failure:
    """Load what is missing, chunk by chunk."""
    try:
        check_parts(context.options)
        _require_sessions(context)
    except (HarborctlError, KeyboardInterrupt) as error:
        return Failure(Attempt(context, chunks=()), error)
    ended = _load(context)
    if isinstance(ended, Failure) and isinstance(ended.error, WorkersMeet):
        logger.warning("%s; going on by one connection", ended.error)
        ended = _load(_by_one_connection(ended.attempt.context, str(ended.error)))
    return ended


def _require_sessions(context: Context) -> None:
    """With fewer than this the load would wait for itself."""
    if context.retried:
        return  # they were there
    run = context.options.run
    option = f"--jobs {run.jobs}" if run.jobs > 1 else "--commit-every"
    hint = "Without --commit-every and --jobs a load needs one."
    with translated():
        require_sessions(context.database.engine, run.jobs + 1, f"a load with {option}", hint)


def _by_one_connection(context: Context, why: str) -> Context:
    options = replace(context.options, run=replace(context.options.run, jobs=1))
    return replace(context, options=options, notes=(*context.notes, f"loaded by one connection: {why}"))


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a load, by the numbers under which the ledger knows them.

    Attributes:
        contents: of each, the digest of what is in it, where it is known before the load, and the size.
        skip: of a load that goes on, those that another load has put in meanwhile.
    """

    files: tuple[Divisible, ...]
    contents: tuple[tuple[str, int], ...]
    skip: frozenset[int]


def _load(context: Context) -> LoadResult | Failure:
    """One attempt, by so many connections."""
    engine, progress, options = context.database.engine, context.progress, context.options
    attempt = Attempt(context, keys=(new_key(), new_key()), chunks=())
    done: list[Chunk] = []
    try:
        attempt = replace(attempt, found=find_files(options.sources, options.format, options.layout))
        sources, opened = _opened(options, attempt.found)
        attempt = replace(attempt, sources=sources)
        with translated(), engine.connect() as connection:
            attempt = replace(attempt, context=replace(context, was_connected=True))
            try:
                with connection.begin():
                    with engine.connect() as books:
                        target = _found_target(books, attempt)
                        attempt = replace(attempt, target=target)
                        attempt = replace(attempt, context=_checked(attempt.context, target, len(opened)))
                        options = attempt.context.options
                        mark = dedupe.fingerprint(options, target, ())
                        _take_locks(connection, attempt, target, mark)
                        with books.begin():
                            standing = _standing(books, attempt, target, mark)
                            attempt = replace(attempt, standing=standing)
                            attempt, files = _laid_out(books, attempt, standing, opened)
                            done += attempt.chunks or ()
                            sign(connection, new_key(), attempt.context.load_id)
                            _record_begin(books, attempt, standing, files, mark)
                        with books.begin():
                            attempt = replace(attempt, plans=make_plans(books, target, attempt.sources, options))
                        if options.run.jobs > 1:
                            books.invalidate()  # the workers of other processes need the session
                    if done:
                        logger.warning("going on with load %s: %s are in", attempt.context.load_id, what_is_in(done))
                    start_progress(progress, attempt.sources)
                    splits = missing(tuple(done), files.files, options.run, files.skip)
                    first = next(splits, None)
                    splits = chain([first] if first else [], splits)
                    handing = Handing(splits, next_number(connection, attempt.context.load_id), progress)
                    attempt = replace(attempt, ending=ending_of(attempt, complete=first is None))
                    order = _work_order(attempt, target, files, mark)
                    digests = load_splits(attempt, connection, order, handing, done)
                    attempt = replace(attempt, chunks=tuple(done))
                    result = _finish(connection, attempt, target, files, digests)
                    attempt = replace(attempt, committing=result)
                analyze_committed(connection, target, total(done).changed, attempt.context.options.analyze)
            except (AlreadyLoaded, LockHeld) as reason:
                return unneeded(connection, attempt, reason)
    except (HarborctlError, WorkersMeet, KeyboardInterrupt) as error:
        return Failure(replace(attempt, chunks=tuple(done)), error)
    return result


def _opened(options: LoadOptions, found: Sequence[SourceFile]) -> tuple[list[Source], list[Divisible]]:
    """The sources, of which only the start is read here, and how each may be cut. They are closed again: of a thousand
    files not all can be open at once.

    Raises:
        UsageError: one cannot be read in splits.
    """
    refuse_strange_options(options.dialect, found)
    sources, files = [], []
    for file in found:
        if file.path is None:  # a glob has found it
            refuse_read_once(options, file.name)
        with closing(open_file(file, options.dialect)) as source:
            sources.append(source)
            files.append(divisible(file, source, options.dialect))
    if options.run.commit_every and (whole := [each for each in files if each.is_whole]):
        raise UsageError(
            f"--commit-every needs files that can be entered in the middle, which {whole[0].file.name} is not",
            code="not_divisible",
            hint="That are uncompressed UTF-8 CSV files with a header, and Parquet files.",
        )
    return sources, files


def _found_target(books: Connection, attempt: Attempt) -> Target:
    options = attempt.context.options
    with books.begin():
        require_ledger(books, keeps_rejects=options.rejects.rejecting)
        relation = require_table(books, table_name(options, attempt.sources), options)
        require_coordinator(books)
        return described(books, relation)


def _checked(context: Context, target: Target, files: int) -> Context:
    """What can be loaded so, by one connection where several cannot.

    Raises:
        TargetError, UsageError: it cannot be loaded in chunks.
    """
    options = context.options
    check_target(target, options.mode)
    if target.refers_to_itself and options.rejects.rejecting:
        refuse_references(options, target.label, files)
    if target.refers_to_itself and options.run.jobs > 1:
        return _by_one_connection(context, f"rows of {target.label} refer to others, which only it would see")
    return context


def _key(mark: str) -> int:
    """What stands for loads that do the same, among locks."""
    return int.from_bytes(bytes.fromhex(mark)[:8], signed=True)


def _take_locks(connection: Connection, attempt: Attempt, target: Target, mark: str) -> None:
    """Keep the same load out, and, in modes that go by a key, all others into the target."""
    options = attempt.context.options
    sign(connection, attempt.keys[-1])
    stay_open(connection)
    reason = f"the same load into {target.label} runs"
    take_named(connection, NAMESPACE, _key(mark) >> 32, options.run.lock, reason)
    if options.mode is not Mode.APPEND:
        take_turn(connection, target, options.run.lock)


def _standing(books: Connection, attempt: Attempt, target: Target, mark: str) -> Standing:
    """The target when nothing of this load is on its way any more."""
    # What a killed run has left is over when this lock can be had.
    books.execute(select(func.pg_advisory_xact_lock(cast(_key(mark), BigInteger))))
    if dedupe.asks(attempt.context.options):
        dedupe.await_ending(books, target)
    return standing_of(books, target)


def _laid_out(
    books: Connection, attempt: Attempt, standing: Standing, opened: Sequence[Divisible]
) -> tuple[Attempt, _Files]:
    """Leave out what is in by other loads, and see what is in by this one. The files of a load that goes on keep their
    numbers, by which the ledger knows its chunks; files that have come since go behind them.

    Raises:
        AlreadyLoaded: all is in.
        UsageError: what is in is not what stands in the files.
    """
    context, sources, found = attempt.context, attempt.sources, attempt.found
    begun = dedupe.find_begun(books, context.options, standing, sources, context.load_id)
    known: dict[int, dedupe.Known] = {}
    if dedupe.asks(context.options):
        known = dedupe.find_known(books, context.options, standing, sources, found, begun.load_id, thorough=True)
    if len(known) == len(sources):
        raise AlreadyLoaded(known)
    waiting = list(range(len(sources)))
    names: list[str] = storable(books, [source.name for source in sources])
    order = []
    for name in begun.files:
        place = next((place for place in waiting if names[place] == name), None)
        if place is None:
            break
        order.append(place)
        waiting.remove(place)
    order += [place for place in waiting if place not in known]
    skip = frozenset(number for number, place in enumerate(order) if place in known)
    files = tuple(opened[place] for place in order)
    done = committed(books, begun.load_id)
    contents = tuple(("", each.file.size or 0) if each.quote is not None else content_of(each.file) for each in files)
    check_same(done, files, [digest for digest, _ in contents])
    attempt = replace(
        attempt,
        context=replace(context, load_id=begun.load_id),
        sources=[sources[place] for place in order],
        found=[found[place] for place in order],
        left_out=known,
        chunks=tuple(done),
    )
    return attempt, _Files(files, contents, skip)


def _record_begin(books: Connection, attempt: Attempt, standing: Standing, files: _Files, mark: str) -> None:
    """Say that this load runs, or runs again."""
    context, chunked = attempt.context, (standing, [each.file.name for each in files.files])
    record.begin(books, context.options, context.load_id, standing.target, context.started_at, mark, chunked)


def _work_order(attempt: Attempt, target: Target, files: _Files, mark: str) -> WorkOrder:
    options = attempt.context.options
    name = quoted(target.schema, target.name)
    return WorkOrder(
        replace(options, table=name, run=replace(options.run, jobs=1, commit_every=None)),
        attempt.context.load_id,
        files.files,
        tuple(digest for digest, _ in files.contents),
        _key(mark),
        attempt.keys[0],
        hashes=options.run.commit_every is not None,
    )


def _finish(
    connection: Connection, attempt: Attempt, target: Target, files: _Files, digests: Sequence[str]
) -> LoadResult:
    """What comes between the last chunk and the last COMMIT."""
    context, options, chunks = attempt.context, attempt.context.options, attempt.chunks or ()
    context.progress.stage("analyze")
    account = total(chunks)
    analyze_after(connection, target, account.changed, options.analyze)
    read = [
        FileResult(
            each.file.name,
            attempt.sources[number].size or 0,
            sum(chunk.rows for chunk in chunks if chunk.split.file == number),
            digests[number],
            files.contents[number][1],
        )
        for number, each in enumerate(files.files)
        if number not in files.skip
    ]
    rejected = any(chunk.rejected for chunk in chunks)
    result = summary(attempt, Status.LOADED_WITH_REJECTS if rejected else Status.LOADED, read)
    is_values = options.writer is WriterName.VALUES
    result = replace(result, writer=WriterName.VALUES if is_values else WriterName.COPY)
    if rejected and not forget(connection, context.load_id):
        note = "its rejected rows stay in harborctl.rejects, too: this user may not delete there"
        result = replace(result, notes=(*result.notes, note))
    own = [source for number, source in enumerate(attempt.sources) if number not in files.skip]
    meanings = [dedupe.meaning_of(options, source) for source in own]
    record.finish(connection, options, result, target, context.started_at, None, attempt.standing, meanings)
    return result
