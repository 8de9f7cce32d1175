"""One load, from sources to commit: the whole of it is one transaction, its ledger row included."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harborctl.db.catalog import Relation, find_relation, find_target
from harborctl.db.failures import translated
from harborctl.db.migrations import ledger_installed, require_ledger
from harborctl.db.search_path import on_empty_path, take_users_path
from harborctl.db.statistics import analyze_after
from harborctl.errors import (
    BadRow,
    ConnectionFailed,
    HarborctlError,
    Interrupted,
    LockHeld,
    SourceChanged,
    SourceError,
    StatementFailed,
)
from harborctl.load.ledger import record
from harborctl.load.ledger.commit_outcome import ended_as
from harborctl.load.ledger.dedupe import (
    AlreadyLoaded,
    Known,
    Overtaken,
    asks,
    find_known,
    fingerprint,
    meaning_of,
    refuse_twice,
    refuse_unfinished,
)
from harborctl.load.ledger.standing import Standing, standing_of
from harborctl.load.merge.key_watch import UNIQUE_VIOLATION
from harborctl.load.modes import Outcome, carry_out
from harborctl.load.rejects.lookahead import further_bad_rows
from harborctl.load.rejects.spool import Rejects
from harborctl.load.run.chunk_rules import in_parts
from harborctl.load.run.prepare import locked_target, make_plans, start_progress, table_name
from harborctl.load.run.stream import stream_rows
from harborctl.load.session.backend import end_signed, new_key, sign
from harborctl.load.session.retry import may_pass, pause
from harborctl.model import (
    Earlier,
    ErrorInfo,
    FileResult,
    LoadOptions,
    LoadResult,
    Lock,
    Mode,
    Status,
    WriterName,
)
from harborctl.sources.files import check_unchanged, find_files
from harborctl.sources.open import open_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from harborctl.db.engine import Database
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.settle import Ending
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import Account
    from harborctl.sources.batch import Source
    from harborctl.sources.files import SourceFile

logger = logging.getLogger("harborctl")


def run_load(database: Database, options: LoadOptions, progress: Progress) -> LoadResult:
    """Load `options.sources` into one table, all or nothing; after a failure that may pass, anew.

    Raises:
        LoadFailed: with the error as its cause; nothing was committed, and the ledger says so where it can.
    """
    load = _load_of(database, options, progress)
    while True:
        try:
            load.wait()
            return load.run()
        except Overtaken as overtaken:
            load.leave_out_next(overtaken)
        except (HarborctlError, KeyboardInterrupt) as error:
            cause = load.cause_of(error)
            try:
                if settled := load.settled(cause):
                    return settled
            except HarborctlError as unknown:
                raise LoadFailed(load.failed(unknown), unknown) from error
            load.withdraw_rejects()
            if load.is_overtaken(cause):
                continue
            if not load.may_begin_anew(cause):
                from harborctl.load.run.locate_error import row_to_blame  # it builds on this module

                cause = row_to_blame(load, cause) or cause
                if isinstance(cause, BadRow) and load.plans:
                    cause.further = further_bad_rows(database.engine, options, load.found, load.plans, cause)
                    cause.hint = _with_way_on(cause, options)
                raise LoadFailed(load.failed(cause), cause) from error


def _with_way_on(error: BadRow, options: LoadOptions) -> str | None:
    """The hint, and that one bad row need not end the load. A file that is damaged cannot be read behind the damage."""
    if options.rejects.rejecting or error.code in {"bad_parquet", "bad_arrow"}:
        return error.hint
    return " ".join(filter(None, [error.hint, "--on-error reject loads the other rows, and puts bad ones aside."]))


def _load_of(database: Database, options: LoadOptions, progress: Progress) -> Attempt:
    notes: tuple[str, ...] = ()
    if options.run.jobs > 1 and options.mode is not Mode.APPEND:
        options = replace(options, run=replace(options.run, jobs=1))
        notes = (f"mode {options.mode} loads by one connection: --jobs is for appends",)
    if options.dry_run or not in_parts(options):
        return Attempt(database, options, progress, notes=notes)
    from harborctl.load.run.chunked import ChunkedLoad  # it builds on this module

    return ChunkedLoad(database, options, progress, notes=notes)


class LoadFailed(Exception):
    """A load that did not go in: its summary, and why."""

    def __init__(self, result: LoadResult, error: HarborctlError) -> None:
        super().__init__(str(error))
        self.result = result
        self.error = error


@dataclass(slots=True)
class Attempt:
    """What is known of a running load.

    Attributes:
        keys: what transactions of this attempt have signed with, the last one last.
        lost: the last attempt has lost a connection.
        left_out: sources that are in already, by their place among all; `sources` are the others.
        thorough: another run has been found to load the same: look well what of it is in.
        standing: the target before the first row; needed by the ledger.
    """

    database: Database
    options: LoadOptions
    progress: Progress
    load_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    start: float = field(default_factory=time.monotonic)
    target: Relation | None = None
    found: list[SourceFile] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    writer: WriterName = WriterName.AUTO
    ending: Ending | None = None
    rejects: Rejects | None = None
    plans: list[Plan] = field(default_factory=list)
    retried: list[ErrorInfo] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    connected: bool = False
    lost: bool = False
    # What COMMIT was sent for; whether it went through only its answer says, or the ledger.
    committing: LoadResult | None = None
    left_out: dict[int, Known] = field(default_factory=dict)
    thorough: bool = False
    needs_standing: bool = False
    standing: Standing | None = None
    notes: tuple[str, ...] = ()

    def run(self) -> LoadResult:
        """Carry it out and commit, or in a dry run roll back."""
        self.target, self.keys, self.writer = None, [], WriterName.AUTO
        self.ending, self.rejects, self.plans, self.left_out = None, None, [], {}
        with ExitStack() as stack:
            self.found = find_files(self.options.sources, self.options.format, self.options.layout)
            self.sources = open_sources(self.options, self.found)
            for source in self.sources:
                stack.callback(source.close)
            if self.options.rejects.rejecting:
                self.rejects = stack.enter_context(closing(Rejects()))
            with translated(), self.database.engine.connect() as connection:
                self.connected = True
                try:
                    self._begin(connection)
                    with connection.begin() as transaction:
                        result = self._load(connection)
                        if self.options.dry_run:
                            transaction.rollback()
                        else:
                            self.committing = result
                except (AlreadyLoaded, LockHeld) as reason:
                    return self.unneeded(connection, reason)
            self.committing = None
            return result

    @property
    def has_committed(self) -> bool:
        """Whether a part of it is in already."""
        return False

    @property
    def keeps_record(self) -> bool:
        """Whether the ledger is to know of this load."""
        return self.options.ledger and not self.options.dry_run

    def _begin(self, connection: Connection) -> None:
        """Leave out what the ledger knows, and say in it that this load runs, unless it need not."""
        if not self.options.ledger:
            return
        with connection.begin():
            if self.keeps_record:
                require_ledger(connection)
            elif not ledger_installed(connection):
                return
            self.sign(connection)
            self.needs_standing = True
            name = table_name(self.options, self.found, self.sources)
            if asks(self.options):
                self.target = target = find_target(connection, name)
                self.standing = standing_of(connection, target)
                self.leave_out(connection, self.standing)
                refuse_unfinished(connection, self.standing, self.sources)
            else:
                self.target = find_relation(connection, name)
            if self.keeps_record:
                record.begin(connection, self.options, self.load_id, self.target, self.started_at)

    def sign(self, connection: Connection) -> None:
        """Let the transaction of `connection` be known as one of this attempt."""
        self.keys.append(new_key())
        sign(connection, self.keys[-1])

    def leave_out(self, connection: Connection, standing: Standing) -> None:
        """Take what is in already from the sources.

        Raises:
            AlreadyLoaded: that is all of them.
        """
        self.left_out = find_known(
            connection, self.options, standing, self.sources, self.found, self.load_id, thorough=self.thorough
        )
        if len(self.left_out) == len(self.sources):
            raise AlreadyLoaded(self.left_out)
        # In place: who puts rejects aside has the same list.
        self.sources[:] = [one for place, one in enumerate(self.sources) if place not in self.left_out]
        self.found[:] = [one for place, one in enumerate(self.found) if place not in self.left_out]

    def leave_out_next(self, overtaken: Overtaken) -> None:
        """Another run has loaded some of the same meanwhile: begin anew without that."""
        self.thorough = True
        self.withdraw_rejects()
        if once := next((file for file in self.found if file.path is None), None):
            error = StatementFailed(
                f"{overtaken} is in already, which turned out when all was read, and {once.name} can be read only once",
                code="already_loaded",
                hint=f"Leave {overtaken} out.",
            )
            raise LoadFailed(self.failed(error), error) from overtaken

    def is_overtaken(self, error: HarborctlError) -> bool:
        """Whether a key is there already because another run has loaded the same meanwhile: then begin anew."""
        once = any(file.path is None for file in self.found)
        if error.code != UNIQUE_VIOLATION or not asks(self.options) or once:
            return False
        try:
            with translated(), self.database.engine.begin() as connection:
                name = table_name(self.options, self.found, self.sources)
                standing = standing_of(connection, find_target(connection, name))
                known = find_known(
                    connection, self.options, standing, self.sources, self.found, self.load_id, thorough=True
                )
        except HarborctlError:
            return False  # what the load ended with is what the user must hear of
        self.thorough = True
        return bool(known)

    def _load(self, connection: Connection) -> LoadResult:
        self.sign(connection)
        outcome = self.write(connection)
        account, target = outcome.account, self.plans[0].target
        if self.rejects is not None:
            account = replace(account, rows_read=account.rows_read + len(self.rejects))
        self.check_expected(account.rows_read)
        if self.ending and self.rejects is not None:
            self.progress.stage("rejects")
            self.ending.settle(self.rejects, account.rows_read)
        if self.options.dry_run:
            check_unchanged(self.found)
            return self._dry_result(connection, outcome, account)
        self.progress.stage("analyze")
        changed = account.inserted + account.updated + account.deleted
        analyze_after(connection, target, changed, self.options.analyze)
        status = Status.LOADED_WITH_REJECTS if self.rejects else Status.LOADED
        result = replace(self.summary(status), cascaded=outcome.cascaded)
        result = replace(result, **asdict(account), notes=(*result.notes, *outcome.notes))
        with on_empty_path(connection):
            self.refuse_twice(connection, result)
            if self.keeps_record:
                self.record(connection, result)
        self.progress.stage("commit")
        check_unchanged(self.found)
        return result

    def refuse_twice(self, connection: Connection, result: LoadResult) -> None:
        """See that none of it was loaded by another run meanwhile."""
        if not asks(self.options) or self.standing is None:
            return
        places = [place for place, file in enumerate(result.files) if file.status is Status.LOADED]
        own = [result.files[place] for place in places]
        refuse_unfinished(connection, self.standing, self.sources)
        try:
            refuse_twice(connection, self.options, self.standing, self.sources, own, self.load_id)
        except Overtaken as overtaken:
            if len(overtaken.known) < len(own):
                raise
            self.left_out |= {places[number]: known for number, known in overtaken.known.items()}
            raise AlreadyLoaded(self.left_out) from overtaken

    def record(self, connection: Connection, result: LoadResult) -> None:
        """Write down how the load ended, and what it has put in."""
        is_old = self.standing is not None and self.standing.ledger is None
        mark = fingerprint(self.options, self.target, self.sources) if self.target and is_old else None
        meanings = [meaning_of(self.options, source) for source in self.sources]
        record.finish(connection, self.options, result, self.target, self.started_at, mark, self.standing, meanings)

    def write(self, connection: Connection) -> Outcome:
        """Put the rows of `sources` into the target, in the transaction of `connection`."""
        options = self.options
        name = table_name(options, self.found, self.sources)
        self.target = target = locked_target(connection, name, options)
        if self.needs_standing:
            self.standing = standing_of(connection, target)  # now that nobody else empties it
        self.plans = make_plans(connection, target, self.sources, options)
        # From here to the COMMIT: what the table does by itself finds what it would find without us.
        take_users_path(connection)
        if self.rejects is not None:
            from harborctl.load.rejects.settle import Ending  # 10 ms, with what it imports; few loads need it

            self.ending = Ending(options, self.sources, self.plans)
        start_progress(self.progress, self.sources)
        rows = stream_rows(self.sources, self.plans, options, self.rejects, self.progress)
        self.writer = rows.plan.writer
        return carry_out(connection, rows, options, self.rejects, self.progress)

    def check_expected(self, rows_read: int) -> None:
        """Before the commit.

        Raises:
            StatementFailed: the sources hold fewer or more rows than they should.
        """
        expected = self.options.rejects.expected
        if expected is not None and rows_read not in expected:
            raise StatementFailed(
                f"{rows_read:,} rows were read, and {expected} were expected",
                code="unexpected_rows",
                hint="Look whether the source is complete; --expect-rows says how many there may be.",
            )

    # -- how it ended

    def unneeded(self, connection: Connection, reason: AlreadyLoaded | LockHeld) -> LoadResult:
        """A load that has nothing to do, or is not to wait until it may; else `reason` is raised again."""
        if isinstance(reason, AlreadyLoaded):
            self.withdraw_rejects()
            self.ending = None
            latest = max((known.earlier for known in self.left_out.values()), key=lambda earlier: earlier.finished_at)
            result = replace(self.summary(Status.ALREADY_LOADED), earlier=latest)
        elif self.options.run.lock is Lock.SKIP:
            result = replace(self.summary(Status.LOCKED), notes=(reason.message,))
        else:
            raise reason
        if self.keeps_record:
            with connection.begin():
                record.finish(connection, self.options, result, self.target, self.started_at, standing=self.standing)
        return result

    def settled(self, error: HarborctlError) -> LoadResult | None:
        """The result after all, if COMMIT was sent, its answer did not come, and it did go through.

        Raises:
            ConnectionFailed: nobody can be asked.
        """
        result, self.committing = self.committing, None
        if result is None or not isinstance(error, (ConnectionFailed, Interrupted)):
            return None
        status = ended_as(self.database.engine, self.load_id, self.keys[-1]) if self.keeps_record else None
        if status is None:
            raise ConnectionFailed(
                "the connection was lost during COMMIT: whether the load is in is not known",
                code="commit_unknown",
                hint="Run it again: what is in is not loaded twice."
                if self.keeps_record
                else "Look into the table. With a ledger harborctl could tell.",
            )
        note = "the connection was lost during COMMIT; the ledger says that the load is in"
        return replace(result, notes=(*result.notes, note)) if status == result.status else None

    def withdraw_rejects(self) -> None:
        """Nothing was committed: a reject file that says otherwise goes away."""
        if self.ending:
            self.ending.failed()

    def cause_of(self, error: HarborctlError | KeyboardInterrupt) -> HarborctlError:
        """What to tell of a failure. What seems wrong with a row may be so because somebody writes to the file."""
        if not isinstance(error, HarborctlError):
            return Interrupted("interrupted; nothing was committed")
        if isinstance(error, (BadRow, SourceError)):
            try:
                check_unchanged(self.found)
            except SourceChanged as changed:
                return changed
        return error

    def may_begin_anew(self, error: HarborctlError) -> bool:
        """Whether another attempt is left and worth it; the failed one is noted then."""
        if len(self.retried) >= self.options.run.retries or not may_pass(error, was_connected=self.connected):
            return False
        if once := next((file for file in self.found if file.path is None), None):
            name = "standard input" if once.once is None else once.name
            why = f"It was not tried again: {name} is read only once."
            error.hint = " ".join(filter(None, [error.hint, why]))
            return False
        self.retried.append(ErrorInfo.of(error))
        self.lost = isinstance(error, ConnectionFailed)
        return True

    def wait(self) -> None:
        """Before each attempt but the first: give the trouble time to pass, and see the old transaction gone."""
        if not self.retried:
            return
        seconds = pause(len(self.retried))
        attempts = f"attempt {len(self.retried)} of {self.options.run.retries + 1}"
        logger.warning("%s failed: %s; again in %.1f s", attempts, self.retried[-1].message, seconds)
        time.sleep(seconds)
        if self.lost:
            self.database.engine.dispose()  # of other sessions of the same server
            with translated(), self.database.engine.begin() as connection:
                for key in self.keys:
                    end_signed(connection, key)

    def _dry_result(self, connection: Connection, outcome: Outcome, account: Account) -> LoadResult:
        # A COMMIT would check what is deferred.
        connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        notes, plan = outcome.notes, self.plans[0]
        if account.inserted + account.updated:
            sequences = [c.sequence for c in plan.target.columns if c.sequence and c.name not in plan.names]
            notes += tuple(
                f"the numbers that this dry run took from the sequence {sequence} are lost: sequences do not roll back"
                for sequence in sequences
            )
        changes = sorted(outcome.changes, key=lambda change: ("inserted", "updated", "deleted").index(change.kind))
        result = replace(self.summary(Status.DRY_RUN), cascaded=outcome.cascaded)
        with on_empty_path(connection):
            self.refuse_twice(connection, result)
        return replace(result, **asdict(account), changes=tuple(changes), notes=(*result.notes, *notes))

    def summary(self, status: Status) -> LoadResult:
        """What there is to say of any load that ends so."""
        seconds = time.monotonic() - self.start
        is_read = status in {Status.LOADED, Status.LOADED_WITH_REJECTS, Status.DRY_RUN}
        files = tuple(self._with_left_out(self.read_files() if is_read else ()))
        if not is_read and status is not Status.ALREADY_LOADED:
            files = ()
        pending = {known.earlier for known in self.left_out.values() if known.earlier.pending}
        rows = sum(file.rows for file in files)
        return LoadResult(
            status=status,
            load_id=self.load_id,
            table=self.target.label if self.target else self.options.table or Path(self.options.sources[0]).name,
            mode=self.options.mode,
            writer=self.writer if self.writer is not WriterName.AUTO else self.options.writer,
            files=files,
            seconds=round(seconds, 3),
            rows_per_second=round(rows / seconds),
            database=self.database.url,
            notes=(*self.notes, *map(_pending_note, pending), *_equal_notes(files)),
            pending_rejects=sum(earlier.rejected for earlier in pending),
            attempts=len(self.retried) + 1,
            retried=tuple(self.retried),
            **(self.ending.summary() if self.ending else {}),
        )

    def _with_left_out(self, read: Sequence[FileResult]) -> Iterator[FileResult]:
        """All files in load order, each with the load that has put it in."""
        own = iter(read)
        for place in range(len(read) + len(self.left_out)):
            known = self.left_out.get(place)
            yield known.file if known else replace(next(own), load_id=self.load_id)

    def read_files(self) -> tuple[FileResult, ...]:
        """The sources, all of them read to their ends."""
        malformed = self.rejects.malformed if self.rejects is not None else {}
        files = (source.result() for source in self.sources)
        return tuple(replace(file, rows=file.rows + malformed.get(place, 0)) for place, file in enumerate(files))

    def failed(self, error: HarborctlError) -> LoadResult:
        """The summary of a load that `error` ended, recorded in a transaction of its own if the database is there."""
        status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
        result = replace(
            self.summary(status), error=ErrorInfo.of(error), errors=tuple(map(ErrorInfo.of, error.further))
        )
        if self.keeps_record:
            try:
                with self.database.engine.begin() as connection:
                    if ledger_installed(connection):
                        record.finish(connection, self.options, result, self.target, self.started_at)
            except (DBAPIError, HarborctlError):
                pass  # what made the load fail is what the user must hear of; the ledger could not be reached
        return result


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
