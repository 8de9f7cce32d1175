"""One load, from sources to commit: the whole of it is one transaction, its ledger row included."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harborctl.db.catalog import Target, find_target
from harborctl.db.failures import translated
from harborctl.db.migrations import ledger_installed
from harborctl.db.statistics import analyze_after
from harborctl.errors import HarborctlError, Interrupted, TargetError, UsageError
from harborctl.load import ledger
from harborctl.load.convert import Session
from harborctl.load.copy_writer import write_copy
from harborctl.load.merge import Account, upsert
from harborctl.load.plan import Plan, make_plan
from harborctl.load.rows import Written
from harborctl.load.staging import create_staging
from harborctl.load.values_writer import write_values
from harborctl.model import ErrorInfo, LoadOptions, LoadResult, Mode, Status, WriterName
from harborctl.sources import open_sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

    from harborctl.db.engine import Database
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

    def run(self) -> LoadResult:
        """Carry it out and commit."""
        with ExitStack() as stack:
            self.sources = open_sources(self.options)
            for source in self.sources:
                stack.callback(source.close)
            with translated(), self.database.engine.begin() as connection:
                return self._load(connection)

    def _load(self, connection: Connection) -> LoadResult:
        if self.options.ledger and not ledger_installed(connection):
            raise UsageError(
                "this database has no ledger yet",
                code="no_ledger",
                hint="Run `harborctl migrate up ledger` once, or load with --no-ledger.",
            )
        self.target = find_target(connection, self._table_name())
        session = _session(connection)
        plans = [make_plan(source, self.target, self.options, session) for source in self.sources]
        _check_same_columns(self.sources, plans)
        # Triggers may raise notices by the row. Nobody reads them here, and the driver, which does not read while it
        # sends COPY data, would wait forever for a server that waits for its reader.
        connection.execute(text("SET LOCAL client_min_messages = error"))
        self._start_progress()
        account = self._write(connection, plans)
        self.progress.stage("analyze")
        analyze_after(connection, self.target, account.inserted + account.updated, self.options.analyze)
        result = replace(self._summary(Status.LOADED), **asdict(account))
        if self.options.ledger:
            ledger.record(connection, self.options, result, self.target, self.started_at)
        self.progress.stage("commit")
        return result

    def _write(self, connection: Connection, plans: list[Plan]) -> Account:
        table = plans[0].target.table()
        if self.options.mode is Mode.APPEND:
            written = self._write_sources(connection, table, plans)
            return Account(written.sent, inserted=written.inserted, skipped=written.sent - written.inserted)
        staging = create_staging(connection, plans[0])
        written = self._write_sources(connection, staging, plans)
        self.progress.stage("merge")
        return upsert(connection, staging, table, plans[0], written.sent)

    def _write_sources(self, connection: Connection, table: Table, plans: list[Plan]) -> Written:
        written = Written()
        bytes_before = 0
        for source, plan in zip(self.sources, plans, strict=True):
            batches = self._choose_writer(self._watched(source, plan, bytes_before))
            if self.writer is WriterName.VALUES:
                written += write_values(connection, table, plan, batches, self.progress, self.options.batch_size)
            else:
                written += write_copy(connection, table, plan, batches, self.progress)
            bytes_before += source.position()
        return written

    def _choose_writer(self, batches: Iterator[Batch]) -> Iterable[Batch]:
        if self.writer is not WriterName.AUTO:
            return batches
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

    def _watched(self, source: Source, plan: Plan, bytes_before: int) -> Iterator[Batch]:
        for batch in source.batches(plan.positions, plan.direct_types):
            self.progress.bytes_read(bytes_before + source.position())
            yield batch

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

    def _summary(self, status: Status) -> LoadResult:
        seconds = time.monotonic() - self.start
        files = tuple(source.result() for source in self.sources) if status is Status.LOADED else ()
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
        )

    def failed(self, error: HarborctlError) -> LoadResult:
        """The summary of a load that `error` ended, recorded in a transaction of its own if the database is there."""
        status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
        result = replace(self._summary(status), error=ErrorInfo.of(error))
        if self.options.ledger:
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
