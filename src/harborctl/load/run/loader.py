"""A load from begin to end: attempts at it, until one goes in or is not worth another."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from harborctl.db.catalog import find_target
from harborctl.db.failures import translated
from harborctl.errors import (
    BadRow,
    ConnectionFailed,
    HarborctlError,
    Interrupted,
    SourceChanged,
    SourceError,
    StatementFailed,
    TargetError,
)
from harborctl.load.ledger.commit_outcome import ended_as
from harborctl.load.ledger.dedupe import Overtaken, asks, find_known
from harborctl.load.ledger.standing import standing_of
from harborctl.load.rejects.lookahead import further_bad_rows
from harborctl.load.run.chunk_rules import in_parts
from harborctl.load.run.context import Attempt, Context, Failure
from harborctl.load.run.creation import NotOfSample, way_to_make_it
from harborctl.load.run.locate_error import row_to_blame
from harborctl.load.run.prepare import settle_dialect, table_name
from harborctl.load.run.summary import failed
from harborctl.load.run.transaction import load_in_transaction
from harborctl.load.session.backend import end_signed
from harborctl.load.session.retry import may_pass, pause
from harborctl.model import ErrorInfo, LoadOptions, LoadResult, Mode
from harborctl.sources.files import check_unchanged, find_files
from harborctl.sqlstate import UNDEFINED_TABLE, UNIQUE_VIOLATION

if TYPE_CHECKING:
    from harborctl.db.engine import Database
    from harborctl.load.write.bad_row import Progress

logger = logging.getLogger("harborctl")


class LoadFailed(Exception):
    """A load that did not go in: its summary, and why."""

    def __init__(self, result: LoadResult, error: HarborctlError) -> None:
        super().__init__(str(error))
        self.result = result
        self.error = error


def run_load(database: Database, options: LoadOptions, progress: Progress) -> LoadResult:
    """Load `options.sources` into one table, all or nothing; after a failure that may pass, anew.

    Raises:
        LoadFailed: with the error as its cause; nothing was committed, and the ledger says so where it can.
    """
    context = Context(database, options, progress)
    if options.run.jobs > 1 and options.mode is not Mode.APPEND:
        note = f"mode {options.mode} loads by one connection: --jobs is for appends"
        context = replace(context, options=replace(options, run=replace(options.run, jobs=1)), notes=(note,))
    at: Context | Failure | LoadResult = context
    while not isinstance(at, LoadResult):
        at = _load(at) if isinstance(at, Context) else _after(at)
    return at


def _after(failure: Failure) -> LoadResult | Context | Failure:
    """What follows a failed attempt: a result after all, another attempt, or the end.

    Raises:
        LoadFailed: the end.
    """
    if isinstance(failure.error, NotOfSample):
        if failure.attempt.ending:
            failure.attempt.ending.failed()
        return replace(failure.attempt.context, samples=False)
    attempt, error = failure.attempt, _cause(failure)
    try:
        if settled := _settled(attempt, error):
            return settled
        if attempt.ending:
            attempt.ending.failed()
        if _is_overtaken(failure, error):
            return replace(attempt.context, thorough=True)
        if _may_begin_anew(attempt, error):
            context = replace(attempt.context, retried=(*attempt.context.retried, ErrorInfo.of(error)))
            return _waited(replace(attempt, context=context), error) or context
        blamed = row_to_blame(attempt, error) or error
        if isinstance(blamed, BadRow):
            _tell_way_on(attempt, blamed)
        raise LoadFailed(failed(attempt, blamed), blamed) from failure.error
    except KeyboardInterrupt as stopped:  # while the failure was looked into, and written down
        if attempt.ending:
            attempt.ending.failed()
        interrupted = Interrupted("interrupted; nothing was committed")
        raise LoadFailed(failed(attempt, interrupted), interrupted) from stopped


def _load(context: Context) -> LoadResult | Failure:
    """One attempt."""
    try:
        context = _with_dialect(context)
    except (HarborctlError, KeyboardInterrupt) as error:
        return Failure(Attempt(context), error)
    if context.options.dry_run or not in_parts(context.options):
        return load_in_transaction(context)
    from harborctl.load.run.chunked import load_in_chunks  # with it come threads and processes; few loads need them

    return load_in_chunks(context)


def _with_dialect(context: Context) -> Context:
    """How the sources are written, if that is to be found out, from here on as if it had been said."""
    options = context.options
    if not options.detect:
        return context
    options, note = settle_dialect(options, find_files(options.sources, options.format, options.layout))
    return replace(context, options=options, notes=(*context.notes, note))


def _cause(failure: Failure) -> HarborctlError:
    """What to tell of a failure. What seems wrong with a row may be so because somebody writes to the file."""
    error, attempt = failure.error, failure.attempt
    if isinstance(error, Overtaken):
        once = attempt.read_once
        return StatementFailed(
            f"{error} is in already, which turned out when all was read,"
            f" and {once.name if once else 'it'} can be read only once",
            code="already_loaded",
            hint=f"Leave {error} out.",
        )
    if not isinstance(error, HarborctlError):
        return Interrupted("interrupted; nothing was committed")
    if attempt.target is None and isinstance(error, TargetError) and error.code == UNDEFINED_TABLE:
        error.hint = " ".join(filter(None, [error.hint, way_to_make_it(attempt.context.options)]))
    if isinstance(error, (BadRow, SourceError)):
        try:
            check_unchanged(attempt.found)
        except SourceChanged as changed:
            return changed
    return error


def _settled(attempt: Attempt, error: HarborctlError) -> LoadResult | None:
    """The result after all, if COMMIT was sent, its answer did not come, and it did go through.

    Raises:
        LoadFailed: nobody can be asked.
    """
    context, result = attempt.context, attempt.committing
    if result is None or not isinstance(error, (ConnectionFailed, Interrupted)):
        return None
    try:
        status = ended_as(context.database.engine, context.load_id, attempt.keys[-1]) if context.keeps_record else None
    except KeyboardInterrupt:  # of somebody who does not wait for the answer
        status = None
    if status is None:
        unknown = ConnectionFailed(
            "the connection was lost during COMMIT: whether the load is in is not known",
            code="commit_unknown",
            hint="Run it again: what is in is not loaded twice."
            if context.keeps_record
            else "Look into the table. With a ledger harborctl could tell.",
        )
        raise LoadFailed(failed(attempt, unknown), unknown) from error
    note = "the connection was lost during COMMIT; the ledger says that the load is in"
    return replace(result, notes=(*result.notes, note)) if status == result.status else None


def _is_overtaken(failure: Failure, error: HarborctlError) -> bool:
    """Whether another run has loaded some of the same meanwhile, be it that a key is there already because of that:
    then begin anew without it."""
    attempt, context = failure.attempt, failure.attempt.context
    if attempt.read_once or isinstance(failure.error, Overtaken):
        return not attempt.read_once
    if error.code != UNIQUE_VIOLATION or not asks(context.options):
        return False
    try:
        with translated(), context.database.engine.begin() as connection:
            target = find_target(connection, table_name(context.options, attempt.sources))
            known = find_known(
                connection,
                context.options,
                standing_of(connection, target),
                attempt.sources,
                attempt.found,
                context.load_id,
                thorough=True,
            )
    except HarborctlError:
        return False  # what the load ended with is what the user must hear of
    return bool(known)


def _may_begin_anew(attempt: Attempt, error: HarborctlError) -> bool:
    """Whether another attempt is left and worth it."""
    context = attempt.context
    is_left = len(context.retried) < context.options.run.retries
    if not is_left or not may_pass(error, was_connected=context.was_connected):
        return False
    if once := attempt.read_once:
        name = "standard input" if once.once is None else once.name
        why = f"It was not tried again: {name} is read only once."
        error.hint = " ".join(filter(None, [error.hint, why]))
    return not once


def _waited(attempt: Attempt, error: HarborctlError) -> Failure | None:
    """Before another attempt: give the trouble time to pass, and see the old transactions gone."""
    database, retried, options = attempt.context.database, attempt.context.retried, attempt.context.options
    seconds = pause(len(retried))
    attempts = f"attempt {len(retried)} of {options.run.retries + 1}"
    try:
        logger.warning("%s failed: %s; again in %.1f s", attempts, retried[-1].message, seconds)
        time.sleep(seconds)
        if isinstance(error, ConnectionFailed):
            database.engine.dispose()  # of other sessions of the same server
            with translated(), database.engine.begin() as connection:
                for key in attempt.keys:
                    end_signed(connection, key)
    except (HarborctlError, KeyboardInterrupt) as trouble:
        return Failure(replace(attempt, committing=None), trouble)
    return None


def _tell_way_on(attempt: Attempt, error: BadRow) -> None:
    """Name other bad rows with it, and say that one need not end the load. Behind damage a file cannot be read."""
    options = attempt.context.options
    if not attempt.plans:
        return
    engine = attempt.context.database.engine
    error.further = further_bad_rows(engine, options, attempt.found, attempt.plans, error)
    if not options.rejects.rejecting and error.code not in {"bad_parquet", "bad_arrow"}:
        way_on = "--on-error reject loads the other rows, and puts bad ones aside."
        error.hint = " ".join(filter(None, [error.hint, way_on]))
