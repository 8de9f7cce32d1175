"""Runs a job: its loads, then its SQL, then its reports, alone among the runs of this job in one database.

It says nothing to people: a listener hears of each load, and the result tells the rest.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from harborctl.errors import ExitCode, HarborctlError, Interrupted, LockHeld, SourceError, UsageError
from harborctl.model import ErrorInfo, Lock
from harborctl.plain_text import masked
from harborctl.sqlstate import ACTIVE_SQL_TRANSACTION, INVALID_TRANSACTION_TERMINATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from harborctl.db.engine import Database
    from harborctl.jobs.file import Job, JobLoad, JobReport
    from harborctl.jobs.lock import JobLock
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import ConnectionOptions, LoadResult
    from harborctl.reports.find import Folder

logger = logging.getLogger("harborctl")

# The worse, the further behind. A job ends with the worst of its parts.
SEVERITY = (
    ExitCode.OK,
    ExitCode.REJECTS,
    ExitCode.LOCKED,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.NO_CONNECTION,
    ExitCode.INTERRUPTED,
)

# What a statement says that may have no transaction around it, or ends it.
NO_TRANSACTION = {ACTIVE_SQL_TRANSACTION, INVALID_TRANSACTION_TERMINATION}


class JobStatus(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job is to be run.

    Attributes:
        dry_run: every load is rolled back; no SQL, no reports.
        keep_going: after a failure go on with what follows.
        report_folders: where reports are looked for.
    """

    dry_run: bool = False
    keep_going: bool = False
    lock: Lock = Lock.WAIT
    report_folders: list[Folder] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LoadEnd:
    """How one load of a job ended; without a result there was no file, and that is no failure."""

    name: str
    result: LoadResult | None
    error: HarborctlError | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A statement or a report of a job, by its place there. `output` is the file that a report went into."""

    name: str
    sql: str | None = None
    report: str | None = None
    output: str | None = None
    error: HarborctlError | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job did.

    Attributes:
        error: the worst one.
        held: where the job runs already and `--lock skip` was said, who says so.
    """

    loads: tuple[LoadEnd, ...]
    steps: tuple[Step, ...]
    error: HarborctlError | None
    held: LockHeld | None
    seconds: float

    @property
    def parts(self) -> tuple[LoadEnd | Step, ...]:
        """All that was begun."""
        return (*self.loads, *self.steps)

    @property
    def status(self) -> JobStatus:
        """The whole in one word."""
        if self.held:
            return JobStatus.LOCKED
        return JobStatus.FAILED if self.error else JobStatus.DONE

    @property
    def exit_code(self) -> ExitCode:
        """The worst of its parts."""
        if self.error:
            return self.error.exit_code
        return ExitCode.REJECTS if any(end.result and end.result.lacks_rows for end in self.loads) else ExitCode.OK


class Listener(Protocol):
    """Who hears how a job goes."""

    def progress(self) -> AbstractContextManager[Progress]:
        """Shows how far the load is that begins."""

    def load_ended(self, end: LoadEnd) -> None:
        """A load has ended."""

    def step_ended(self, step: Step) -> None:
        """A statement or a report has ended."""


def run_job(connection: ConnectionOptions, job: Job, options: JobOptions, listener: Listener) -> JobResult:
    """Run `job` alone: another run of it in this database is waited for, or as `options.lock` says. What fails is told
    by the result; only a bug of ours is raised."""
    from harborctl.db.engine import open_database

    course, held, start = _Course(options.keep_going), None, time.monotonic()
    try:
        with open_database(connection) as database, _alone(database, job, options) as lock:
            _run_parts(_Run(job, options, database, listener, course), lock)
    except LockHeld as error:
        if options.lock is Lock.SKIP and error.code == LockHeld.default_code:
            held = error
        else:
            course.note(error)
            if course.error is not error:
                logger.warning("%s", error.message)
    except KeyboardInterrupt:
        course.note(Interrupted("interrupted"))
    except HarborctlError as error:
        course.note(error)
    return JobResult(tuple(course.loads), tuple(course.steps), course.error, held, time.monotonic() - start)


def check_reports(job: Job, folders: list[Folder]) -> None:
    """Look for the reports of `job`, and whether they take its parameters.

    Raises:
        UsageError: they are not there, or do not.
    """
    if not job.reports:
        return
    from harborctl.reports.find import find_report
    from harborctl.reports.formats import format_of
    from harborctl.reports.moments import local_now
    from harborctl.reports.report import bind

    for wanted in job.reports:
        try:
            bind(find_report(wanted.report, folders), list(wanted.parameters), local_now())
            format_of(wanted.output)
        except UsageError as error:
            raise wanted.place.wrong(f"is wrong: {error.message}", code=error.code, hint=error.hint) from error


@dataclass(slots=True)
class _Course:
    """How a job went so far."""

    keep_going: bool
    loads: list[LoadEnd] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    error: HarborctlError | None = None

    def note(self, error: HarborctlError) -> None:
        """Something failed; of several failures the worst counts."""
        if self.error is None or SEVERITY.index(error.exit_code) > SEVERITY.index(self.error.exit_code):
            self.error = error

    @property
    def goes_on(self) -> bool:
        """Whether the next part is to be begun."""
        return self.error is None or (self.keep_going and not isinstance(self.error, Interrupted))


@dataclass(frozen=True, slots=True)
class _Run:
    """A job that is running."""

    job: Job
    options: JobOptions
    database: Database
    listener: Listener
    course: _Course


@contextmanager
def _alone(database: Database, job: Job, options: JobOptions) -> Iterator[JobLock | None]:
    """Without another run of the job; a dry run does not mind them."""
    if options.dry_run:
        yield None
        return
    from harborctl.jobs.lock import job_lock

    with job_lock(database.engine, job.name, options.lock) as lock:
        yield lock


def _run_parts(run: _Run, lock: JobLock | None) -> None:
    for part in _parts(run):
        if run.course.goes_on:
            if lock is not None:
                lock.keep()
            part()


def _parts(run: _Run) -> Iterator[Callable[[], None]]:
    for load in run.job.loads:
        yield partial(_run_load, run, load)
    if run.options.dry_run:
        return
    for number, sql in enumerate(run.job.after):
        yield partial(_run_step, run, Step(f"after[{number}]", sql=masked(sql)), partial(_execute, run.database, sql))
    for wanted in run.job.reports:
        step = Step(f"report {wanted.report}", report=wanted.report, output=str(wanted.output))
        yield partial(_run_step, run, step, partial(_write_report, run, wanted))


def _run_load(run: _Run, load: JobLoad) -> None:
    from harborctl.jobs.file import in_words_of_the_file
    from harborctl.load.run.loader import LoadFailed, run_load

    if load.missing_ok and not _is_there(load):
        run.course.loads.append(LoadEnd(load.name, None))
        return
    options = replace(load.options, dry_run=load.options.dry_run or run.options.dry_run)
    try:
        with run.listener.progress() as progress:
            end = LoadEnd(load.name, run_load(run.database, options, progress))
    except LoadFailed as failure:
        error = failure.error
        error.message = in_words_of_the_file(error.message)
        error.hint = in_words_of_the_file(error.hint) if error.hint else None
        end = LoadEnd(load.name, replace(failure.result, error=ErrorInfo.of(error)), error)
        run.course.note(error)
    run.course.loads.append(end)
    run.listener.load_ended(end)


def _is_there(load: JobLoad) -> bool:
    from harborctl.sources.files import find_files

    try:
        find_files(load.options.sources, load.options.format, load.options.layout)
    except SourceError as error:
        return error.code != "no_such_file"
    return True


def _run_step(run: _Run, step: Step, do: Callable[[], None]) -> None:
    try:
        do()
    except HarborctlError as error:
        step = replace(step, error=error)
        run.course.note(error)
    run.course.steps.append(step)
    run.listener.step_ended(step)


def _execute(database: Database, sql: str) -> None:
    from sqlalchemy import select
    from sqlalchemy.exc import DBAPIError

    from harborctl.db.engine import timeouts
    from harborctl.db.failures import translated
    from harborctl.db.search_path import on_users_path

    as_written = {"no_parameters": True}
    limits = timeouts(database.options, for_session=True) if database.options else []
    with translated():
        if limits:
            try:
                with database.engine.begin() as connection, on_users_path(connection):
                    connection.exec_driver_sql(sql, execution_options=as_written)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in NO_TRANSACTION:
                    raise
            else:
                return
        # Each commits on its own, as in psql: VACUUM and REFRESH … CONCURRENTLY may have no transaction around them.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if limits:
                connection.execute(select(*limits))
            try:
                connection.exec_driver_sql(sql, execution_options=as_written)
            finally:
                # A pooler would give the session to others as it is.
                if limits and not connection.invalidated:
                    connection.exec_driver_sql("RESET statement_timeout; RESET lock_timeout")


def _write_report(run: _Run, wanted: JobReport) -> None:
    from harborctl.reports.find import find_report
    from harborctl.reports.formats import format_of
    from harborctl.reports.moments import local_now
    from harborctl.reports.output import file_output
    from harborctl.reports.render import Layout
    from harborctl.reports.report import bind
    from harborctl.reports.run import RunOptions, run_report
    from harborctl.reports.write import write

    found = find_report(wanted.report, run.options.report_folders)
    values = bind(found, list(wanted.parameters), local_now())
    layout = Layout(title=found.title, description=found.description)
    with file_output(wanted.output) as stream, run_report(run.database.engine, found, values, RunOptions()) as result:
        write(result, format_of(wanted.output), layout, None, stream)
