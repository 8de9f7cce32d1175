"""One load, from sources to commit: the whole of it is one transaction, its ledger row included."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harborctl.db.catalog import Target, described, find_relation, find_target
from harborctl.db.failures import translated
from harborctl.db.migrations import ledger_installed
from harborctl.db.statistics import analyze_after
from harborctl.errors import BadRow, HarborctlError, Interrupted, StatementFailed, TargetError, UsageError
from harborctl.load import ledger
from harborctl.load.careful import write_carefully
from harborctl.load.changes import sent
from harborctl.load.convert import Session
from harborctl.load.copy_writer import write_copy
from harborctl.load.ending import Ending
from harborctl.load.further import further_bad_rows
from harborctl.load.locks import lock_target
from harborctl.load.modes import Work, carry_out, check_target, truncates
from harborctl.load.plan import Plan, make_plan
from harborctl.load.rows import Written
from harborctl.load.values_writer import write_values
from harborctl.load.watch import KeyWatch, Places
from harborctl.model import Change, ErrorInfo, LoadOptions, LoadResult, OnDuplicate, Status, WriterName
from harborctl.sources import open_sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

    from harborctl.db.engine import Database
    from harborctl.load.merge import Account
    from harborctl.load.rows import Progress
    from harborctl.sources.batch import Batch, Source

# A source that ends within these rows goes through `values` when nobody chose: its round trips cost less than a COPY
# and a second thread would.
SMALL_LOAD_ROWS = 2000


def run_load(database: Database, options: LoadOptions, progress: Progress) -> LoadResult:
    """Load `options.sources` into one table, all or nothing.

    Raises:
        LoadFailed: with the error as its cause; nothing was committed, and the ledger says so where it can.
    """
    load = _Load(database, options, progress)
    try:
        return load.run()
    except (HarborctlError, KeyboardInterrupt) as error:
        cause = error if isinstance(error, HarborctlError) else Interrupted("interrupted; nothing was committed")
        if load.ending:
            load.ending.failed(cause)
        if isinstance(cause, BadRow) and load.plans:
            cause.further = further_bad_rows(database.engine, options, load.plans, cause)
        raise LoadFailed(load.failed(cause), cause) from error


class LoadFailed(Exception):
    """A load that did not go in: its summary, and why."""

    def __init__(self, result: LoadResult, error: HarborctlError) -> None:
        super().__init__(str(error))
        self.result = result
        self.error = error


@dataclass(slots=True)
class _Load:
    """What is known of a running load."""

    database: Database
    options: LoadOptions
    progress: Progress
    load_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    start: float = field(default_factory=time.monotonic)
    target: Target | None = None
    sources: list[Source] = field(default_factory=list)
    writer: WriterName = WriterName.AUTO
    ending: Ending | None = None
    plans: list[Plan] = field(default_factory=list)

    def run(self) -> LoadResult:
        """Carry it out and commit, or in a dry run roll back."""
        with ExitStack() as stack:
            self.sources = open_sources(self.options)
            if self.options.rejects.rejecting:
                self.ending = stack.enter_context(Ending(self.options, self.sources))
            for source in self.sources:
                stack.callback(source.close)
            with translated(), self.database.engine.connect() as connection, connection.begin() as transaction:
                result = self._load(connection)
                if self.options.dry_run:
                    transaction.rollback()
            return result

    def _load(self, connection: Connection) -> LoadResult:
        if self.options.ledger and not self.options.dry_run and not ledger_installed(connection):
            raise UsageError(
                "this database has no ledger yet",
                code="no_ledger",
                hint="Run `harborctl migrate up ledger` once, or load with --no-ledger.",
            )
        self.target = self._locked_target(connection)
        session = _session(connection)
        plans = [make_plan(source, self.target, self.options, session) for source in self.sources]
        _check_same_columns(self.sources, plans)
        self.plans = plans
        if self.ending:
            self.ending.prepare(plans)
        # Triggers may raise notices by the row. Nobody reads them here, and the driver, which does not read while it
        # sends COPY data, would wait forever for a server that waits for its reader.
        connection.execute(text("SET LOCAL client_min_messages = error"))
        self._start_progress()
        work = self._work(connection, plans, session)
        account = carry_out(work)
        if self.ending:
            account = replace(account, rows_read=account.rows_read + self.ending.rejected)
        self._check_expected(account)
        if self.ending:
            self.progress.stage("rejects")
            self.ending.settle(account.rows_read, dry_run=self.options.dry_run)
        if self.options.dry_run:
            return self._dry_result(connection, work, account)
        self.progress.stage("analyze")
        changed = account.inserted + account.updated + account.deleted
        analyze_after(connection, self.target, changed, self.options.analyze)
        has_rejects = self.ending is not None and self.ending.rejected
        status = Status.LOADED_WITH_REJECTS if has_rejects else Status.LOADED
        result = replace(self._summary(status), **asdict(account), notes=tuple(work.notes))
        if self.options.ledger:
            ledger.record(connection, self.options, result, self.target, self.started_at)
        self.progress.stage("commit")
        return result

    def _locked_target(self, connection: Connection) -> Target:
        """The target as it is once nobody can change it any more."""
        found = find_relation(connection, self._table_name())
        if truncates(self.options):  # readers shall not wait for what will be refused
            check_target(described(connection, found), self.options.mode)
        lock_target(connection, found, self.options.mode, truncates=truncates(self.options))
        locked = find_target(connection, self._table_name())
        check_target(locked, self.options.mode)
        return locked

    def _check_expected(self, account: Account) -> None:
        expected = self.options.rejects.expected
        if expected is not None and account.rows_read not in expected:
            raise StatementFailed(
                f"{account.rows_read:,} rows were read, and {expected} were expected",
                code="unexpected_rows",
                hint="Look whether the source is complete; --expect-rows says how many there may be.",
            )

    def _work(self, connection: Connection, plans: list[Plan], session: Session) -> Work:
        plan = plans[0]
        rejects = self.ending.rejects if self.ending else None
        watch, places, changes = KeyWatch(plan, refuses=rejects is None), Places(), list[Change]()
        keeps_places = (
            rejects is None
            and plan.merge is not None
            and (not plan.merge.key.is_plain or self.options.merge.on_duplicate is OnDuplicate.ERROR)
        )
        bytes_before = 0

        def watched(number: int, source: Source, plan: Plan) -> Iterator[Batch]:
            nonlocal bytes_before
            malformed = rejects.taker(number) if rejects is not None else None
            for batch in source.batches(plan.positions, plan.direct_types, malformed):
                self.progress.bytes_read(bytes_before + source.position())
                watch.see(plan, batch)
                if keeps_places:
                    places.see(batch)
                if self.options.dry_run and not plan.mode.by_key and not any(c.kind == "inserted" for c in changes):
                    with suppress(BadRow):
                        changes.extend(sent(plan, batch))
                yield batch
            bytes_before += source.position()

        streams = [watched(n, source, plan) for n, (source, plan) in enumerate(zip(self.sources, plans, strict=True))]
        first = self._choose_writer(streams[0])

        def write(table: Table, *, freeze: bool = False, number: str | None = None) -> Written:
            written = Written()
            if work.careful:
                return write_carefully(work, table, [first, *streams[1:]], plans, session, number)
            for batches, plan in zip([first, *streams[1:]], plans, strict=True):
                if self.writer is WriterName.VALUES:
                    written += write_values(connection, table, plan, batches, self.progress, self.options.batch_size)
                else:
                    written += write_copy(connection, table, plan, batches, self.progress, freeze=freeze)
            return written

        work = Work(connection, self.options, plan, self.writer, write, watch, places, self.progress, changes, rejects)
        return work

    def _choose_writer(self, batches: Iterator[Batch]) -> Iterable[Batch]:
        if self.options.writer is not WriterName.AUTO or len(self.sources) > 1:
            self.writer = WriterName.VALUES if self.options.writer is WriterName.VALUES else WriterName.COPY
            return batches
        taken: list[Batch] = []
        rows = 0
        for batch in batches:
            taken.append(batch)
            rows += batch.records.num_rows
            if rows > SMALL_LOAD_ROWS:
                self.writer = WriterName.COPY
                return chain(taken, batches)
        self.writer = WriterName.VALUES
        return taken

    def _start_progress(self) -> None:
        sizes = [source.size for source in self.sources]
        self.progress.start(None if None in sizes else sum(size or 0 for size in sizes))

    def _table_name(self) -> str:
        if self.options.table:
            return self.options.table
        names = {source.name for source in self.sources}
        path = Path(self.sources[0].name)
        if len(names) > 1 or self.options.sources == ("-",):
            raise UsageError("which table?", code="no_table", hint="Say --table [SCHEMA.]TABLE.")
        return '"' + path.name.split(".")[0].replace('"', '""') + '"'

    # -- how it ended

    def _dry_result(self, connection: Connection, work: Work, account: Account) -> LoadResult:
        # A COMMIT would check what is deferred.
        connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        notes = tuple(work.notes)
        if account.inserted + account.updated:
            sequences = [c.sequence for c in work.plan.target.columns if c.sequence and c.name not in work.plan.names]
            notes += tuple(
                f"the numbers that this dry run took from the sequence {sequence} are lost: sequences do not roll back"
                for sequence in sequences
            )
        changes = sorted(work.changes, key=lambda change: ("inserted", "updated", "deleted").index(change.kind))
        return replace(self._summary(Status.DRY_RUN), **asdict(account), changes=tuple(changes), notes=notes)

    def _summary(self, status: Status) -> LoadResult:
        seconds = time.monotonic() - self.start
        is_read = status in {Status.LOADED, Status.LOADED_WITH_REJECTS, Status.DRY_RUN}
        files = tuple(source.result() for source in self.sources) if is_read else ()
        if self.ending:
            files = self.ending.counted(files)
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
            **(self.ending.summary() if self.ending else {}),
        )

    def failed(self, error: HarborctlError) -> LoadResult:
        """The summary of a load that `error` ended, recorded in a transaction of its own if the database is there."""
        status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
        result = replace(
            self._summary(status), error=ErrorInfo.of(error), errors=tuple(map(ErrorInfo.of, error.further))
        )
        if self.options.ledger and not self.options.dry_run:
            try:
                with self.database.engine.begin() as connection:
                    if ledger_installed(connection):
                        ledger.record(connection, self.options, result, self.target, self.started_at)
            except (DBAPIError, HarborctlError):
                pass  # what made the load fail is what the user must hear of; the ledger could not be reached
        return result


def _session(connection: Connection) -> Session:
    zone = connection.execute(text("SELECT current_setting('TimeZone')")).scalar_one()
    return Session(zone in {"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"})


def _check_same_columns(sources: list[Source], plans: list[Plan]) -> None:
    for source, plan in zip(sources, plans, strict=True):
        if set(plan.names) != set(plans[0].names):
            different = sorted(set(plan.names) ^ set(plans[0].names))
            raise TargetError(
                f"{source.name} and {sources[0].name} do not have the same columns: {', '.join(different)}",
                code="columns_differ",
                hint="Load them one by one.",
            )
