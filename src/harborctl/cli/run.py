"""`harborctl run`: a job of `harborctl.toml`, as cron calls it: its loads, then SQL, then reports, and one summary."""

from __future__ import annotations

import time
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, Summarized, command
from harborctl.cli.outcome import MetricsOption, Outcome, PingOption, told
from harborctl.errors import ExitCode, HarborctlError, Interrupted, LockHeld, SourceError, UsageError
from harborctl.model import ErrorInfo, Lock, Status
from harborctl.plain_text import as_json, masked, said, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harborctl.cli.job_file import Job, JobLoad, JobReport
    from harborctl.db.engine import Database

EXAMPLES = """
[bold]Examples[/bold]

  harborctl run nightly

  harborctl run nightly --date 2026-03-01 --only orders --dry-run

  harborctl run nightly --check

  harborctl run nightly --keep-going --metrics-file /var/lib/node_exporter/harborctl.prom --ping https://hc-ping.com/…
"""

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
NO_TRANSACTION = {"25001", "2D000"}

MISSING = "missing"
WIDE = 1000


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "run", epilog=EXAMPLES)(run)


@dataclass(slots=True)
class _Course:
    """How a job went so far."""

    job: Job
    outcome: Outcome
    dry_run: bool
    keep_going: bool
    loads: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    error: HarborctlError | None = None

    def note(self, error: HarborctlError) -> None:
        """Something failed; of several failures the worst counts."""
        if self.error is None or SEVERITY.index(error.exit_code) > SEVERITY.index(self.error.exit_code):
            self.error = error

    @property
    def goes_on(self) -> bool:
        """Whether the next part is to be begun."""
        return self.error is None or (self.keep_going and not isinstance(self.error, Interrupted))


def run(
    invocation: Invocation,
    *,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job of harborctl.toml.")],
    keep_going: Annotated[bool, typer.Option("--keep-going", help="After a failure go on with what follows.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Only this load; repeatable. No SQL, no reports.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Roll every load back; no SQL, no reports.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the file, without connecting.")] = False,
    day: Annotated[
        str | None, typer.Option("--date", metavar="D", help="For {date} in sources. \\[default: today]")
    ] = None,
    lock: Annotated[
        Lock, typer.Option("--lock", help="While this job runs elsewhere: wait, fail (exit 5), or skip (exit 0).")
    ] = Lock.WAIT,
    metrics_file: MetricsOption = None,
    ping: PingOption = None,
) -> None:
    """Run a job: several loads, then SQL, then reports. It ends with the worst exit code of its parts."""
    from harborctl.cli.job_file import find_job
    from harborctl.config import load_config

    config = load_config(invocation.connection.config)
    found = _only(find_job(config, job, _day(day)), only or [])
    _check_reports(invocation, found)
    if check:
        _print_check(invocation, found)
        return
    name = invocation.connection.name or found.connection
    invocation = replace(invocation, connection=replace(invocation.connection, name=name))
    with told(invocation, ping, metrics_file, job) as outcome:
        course = _Course(found, outcome, dry_run, keep_going or found.keep_going)
        start = time.monotonic()
        held = _run_locked(invocation, course, lock)
        with invocation.telling():
            _print(invocation, course, held, time.monotonic() - start)
        if course.error is not None:
            raise Summarized(course.error)
    if outcome.code is not ExitCode.OK:
        raise typer.Exit(outcome.code)


def _day(given: str | None) -> date:
    if given is None:
        return date.today()  # the day that it is here
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise UsageError(f"--date {given} is not a date", hint="Write it as 2026-03-01.") from error


def _only(job: Job, names: list[str]) -> Job:
    from harborctl.config import nearest

    known = [load.name for load in job.loads]
    for name in names:
        if name not in known:
            raise UsageError(f"job {job.name} has no load {name}", code="no_such_load", hint=nearest(name, known))
    if not names:
        return job
    return replace(job, loads=tuple(load for load in job.loads if load.name in names), after=(), reports=())


def _check_reports(invocation: Invocation, job: Job) -> None:
    if not job.reports:
        return
    from harborctl.config import load_config
    from harborctl.reports.find import find_report, report_folders
    from harborctl.reports.formats import format_of
    from harborctl.reports.moments import local_now
    from harborctl.reports.report import bind

    folders = report_folders(load_config(invocation.connection.config).reports)
    for wanted in job.reports:
        bind(find_report(wanted.report, folders), list(wanted.parameters), local_now())
        format_of(wanted.output)


def _print_check(invocation: Invocation, job: Job) -> None:
    names = [load.name for load in job.loads]
    if invocation.json:
        invocation.write(as_json({"job": job.name, "status": "valid", "loads": names}) + "\n")
    elif not invocation.quiet:
        invocation.write(visible(f"job {job.name} is valid: {', '.join(names)}") + "\n")


def _run_locked(invocation: Invocation, course: _Course, lock: Lock) -> bool:
    """Run the job alone. Returns whether it was skipped, because it runs elsewhere."""
    from harborctl.db.engine import open_database

    try:
        with open_database(invocation.connection) as database, _alone(database, course, lock):
            _run_parts(invocation, course, database)
    except LockHeld as held:
        if lock is Lock.SKIP:
            invocation.note(f"skipped: {held.message}")
            return True
        course.note(held)
    except KeyboardInterrupt:
        course.note(Interrupted("interrupted"))
    except HarborctlError as error:
        course.note(error)
    return False


@contextmanager
def _alone(database: Database, course: _Course, lock: Lock) -> Iterator[None]:
    """Of one job only one run at a time in one database: appends take no locks of their own."""
    if course.dry_run:
        yield
        return
    from harborctl.load.locks import job_lock

    number = zlib.crc32(course.job.name.encode()) - 2**31
    with job_lock(database.engine, number, course.job.name, lock):
        yield


def _run_parts(invocation: Invocation, course: _Course, database: Database) -> None:
    for load in course.job.loads:
        if course.goes_on:
            _run_load(invocation, course, database, load)
    if course.dry_run:
        return
    for sql in course.job.after:
        if course.goes_on:
            _run_step(course, {"sql": masked(sql)}, lambda sql=sql: _execute(database, sql))
    for wanted in course.job.reports:
        if course.goes_on:
            described = {"report": wanted.report, "output": str(wanted.output)}
            _run_step(course, described, lambda wanted=wanted: _write_report(invocation, database, wanted))


def _run_load(invocation: Invocation, course: _Course, database: Database, load: JobLoad) -> None:
    from harborctl.cli.progress import load_progress
    from harborctl.load.run import LoadFailed, run_load

    if load.missing_ok and not _is_there(load):
        course.loads.append({"name": load.name, "status": MISSING, "error": None})
        return
    options = replace(load.options, dry_run=load.options.dry_run or course.dry_run)
    try:
        with load_progress(invocation) as progress:
            result = run_load(database, options, progress)
    except LoadFailed as failure:
        result = failure.result
        course.note(failure.error)
        invocation.complain(f"error: {load.name}: {failure.error.message}")
    course.outcome.add(result)
    invocation.event("load ended", job=course.job.name, name=load.name, **asdict(result))
    course.loads.append({"name": load.name, **asdict(result)})
    for note in result.notes:
        invocation.note(f"note: {load.name}: {note}")
    if result.lacks_rows:
        course.outcome.code = ExitCode.REJECTS


def _is_there(load: JobLoad) -> bool:
    from harborctl.sources.files import find_files

    try:
        find_files(load.options.sources, load.options.format)
    except SourceError as error:
        return error.code != "no_such_file"
    return True


def _run_step(course: _Course, described: dict[str, Any], step: Any) -> None:
    try:
        step()
    except HarborctlError as error:
        course.note(error)
        course.steps.append({**described, "status": Status.FAILED, "error": asdict(ErrorInfo.of(error))})
    else:
        course.steps.append({**described, "status": "done", "error": None})


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


def _write_report(invocation: Invocation, database: Database, wanted: JobReport) -> None:
    from harborctl.config import load_config
    from harborctl.reports.find import find_report, report_folders
    from harborctl.reports.formats import format_of
    from harborctl.reports.moments import local_now
    from harborctl.reports.output import file_output
    from harborctl.reports.render import Layout
    from harborctl.reports.report import bind
    from harborctl.reports.run import RunOptions, run_report
    from harborctl.reports.write import write

    found = find_report(wanted.report, report_folders(load_config(invocation.connection.config).reports))
    values = bind(found, list(wanted.parameters), local_now())
    layout = Layout(title=found.title, description=found.description)
    with file_output(wanted.output) as stream, run_report(database.engine, found, values, RunOptions()) as result:
        write(result, format_of(wanted.output), layout, None, stream)


def _print(invocation: Invocation, course: _Course, skipped: bool, seconds: float) -> None:
    code = course.error.exit_code if course.error else course.outcome.code
    status = "locked" if skipped else "done" if course.error is None else Status.FAILED.value
    if invocation.json:
        document = {
            "job": course.job.name,
            "status": status,
            "exit_code": int(code),
            "seconds": round(seconds, 3),
            "loads": course.loads,
            "steps": course.steps,
            "error": asdict(ErrorInfo.of(course.error)) if course.error else None,
        }
        invocation.write(as_json(document) + "\n")
    elif not invocation.quiet:
        _print_table(invocation, course, seconds)


def _print_table(invocation: Invocation, course: _Course, seconds: float) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("load", "status", *(name for name in ("read", "inserted", "updated", "rejected")), "s")
    for load in course.loads:
        counts = [f"{load.get(name, 0):,}" for name in ("rows_read", "inserted", "updated", "rejected")]
        table.add_row(Text(visible(load["name"])), str(load["status"]), *counts, f"{load.get('seconds', 0):.1f}")
    if not invocation.out.is_terminal:
        invocation.out.width = WIDE  # a log's line is one line
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    steps = "".join(said(f"{step['status']}: {step.get('sql') or step['output']}") + "\n" for step in course.steps)
    invocation.write(f"job {visible(course.job.name)}, {seconds:.1f} s\n{rendered.get()}{steps}")
