"""`harborctl run`: a job of `harborctl.toml`, as cron calls it: its loads, then SQL, then reports, and one summary."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.error_lines import tell_error
from harborctl.cli.invocation import Invocation, Summarized, command
from harborctl.cli.notify_options import MetricsOption, PingOption
from harborctl.errors import ExitCode, HarborctlError, UsageError
from harborctl.model import ErrorInfo, Lock
from harborctl.nearest import nearest_or_all
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from harborctl.config import Config
    from harborctl.jobs.file import Job
    from harborctl.jobs.notify import Outcome
    from harborctl.jobs.run import JobResult, LoadEnd, Step
    from harborctl.load.write.bad_row import Progress
    from harborctl.reports.find import Folder

EXAMPLES = """
[bold]Examples[/bold]

  harborctl run nightly

  harborctl run nightly --date 2026-03-01 --only orders --dry-run

  harborctl run nightly --check

  harborctl run nightly --keep-going --metrics-file /var/lib/node_exporter/harborctl.prom --ping https://hc-ping.com/…
"""

MISSING = "missing"
WIDE = 1000


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "run", epilog=EXAMPLES)(run)


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
    from harborctl.config import load_config
    from harborctl.jobs.file import find_job
    from harborctl.jobs.notify import Watchers, told
    from harborctl.jobs.run import JobOptions, check_reports, run_job

    config = load_config(invocation.connection.config)
    found = _only(find_job(config, job, _day(day)), only or [])
    folders = _report_folders(config) if found.reports else []
    check_reports(found, folders)
    if check:
        _print_check(invocation, found)
        return
    connection = replace(invocation.connection, name=invocation.connection.name or found.connection)
    options = JobOptions(dry_run, keep_going or found.keep_going, lock, folders)
    with told(Watchers(ping, metrics_file), job, invocation.note) as outcome:
        result = run_job(connection, found, options, _Watching(invocation, job, outcome))
        outcome.code = result.exit_code
        if result.held:
            invocation.note(f"skipped: {result.held.message}")
        with invocation.telling():
            _print(invocation, job, result)
    if result.error is not None:
        raise Summarized(result.error, is_told=any(part.error is result.error for part in result.parts))
    if outcome.code is not ExitCode.OK:
        raise typer.Exit(outcome.code)


@dataclass(frozen=True, slots=True)
class _Watching:
    """Tells people and collectors of logs how a job goes."""

    invocation: Invocation
    job: str
    outcome: Outcome

    def progress(self) -> AbstractContextManager[Progress]:
        """See `Listener`."""
        from harborctl.cli.progress import load_progress

        return load_progress(self.invocation)

    def load_ended(self, end: LoadEnd) -> None:
        """See `Listener`."""
        result = end.result
        if end.error:
            self._tell(end.error, end.name)
        if result is None:
            return
        self.outcome.add(result)
        self.invocation.event("load ended", job=self.job, name=end.name, **asdict(result))
        for note in result.notes:
            self.invocation.note(f"note: {end.name}: {note}")

    def step_ended(self, step: Step) -> None:
        """See `Listener`."""
        if step.error:
            self._tell(step.error, step.name)

    def _tell(self, error: HarborctlError, about: str) -> None:
        to = self.invocation
        tell_error(to.err, error, to.log_format, verbose=to.verbose, cause=error, about=about)


def _day(given: str | None) -> date:
    if given is None:
        return date.today()  # noqa: DTZ011  # the day that it is here
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise UsageError(f"--date {given} is not a date", hint="Write it as 2026-03-01.") from error


def _only(job: Job, names: list[str]) -> Job:
    known = [load.name for load in job.loads]
    for name in names:
        if name not in known:
            raise UsageError(
                f"job {job.name} has no load {name}", code="no_such_load", hint=nearest_or_all(name, known)
            )
    if not names:
        return job
    return replace(job, loads=tuple(load for load in job.loads if load.name in names), after=(), reports=())


def _report_folders(config: Config) -> list[Folder]:
    from harborctl.reports.find import report_folders

    return report_folders(config.reports)


def _print_check(invocation: Invocation, job: Job) -> None:
    names = [load.name for load in job.loads]
    if invocation.json:
        invocation.write(as_json({"job": job.name, "status": "valid", "loads": names}) + "\n")
    elif not invocation.quiet:
        invocation.write(said(f"job {job.name} is valid: {', '.join(names)}") + "\n")


def _print(invocation: Invocation, job: str, result: JobResult) -> None:
    if invocation.json:
        document = {
            "job": job,
            "status": result.status,
            "exit_code": int(result.exit_code),
            "seconds": round(result.seconds, 3),
            "loads": [_load_document(end) for end in result.loads],
            "steps": [_step_document(step) for step in result.steps],
            "error": _error_document(result.error),
        }
        invocation.write(as_json(document) + "\n")
    elif not invocation.quiet:
        _print_table(invocation, job, result)


def _load_document(end: LoadEnd) -> dict[str, Any]:
    told = asdict(end.result) if end.result else {"status": MISSING, "error": None}
    return {"name": end.name, **told}


def _step_document(step: Step) -> dict[str, Any]:
    what = {"sql": step.sql} if step.sql is not None else {"report": step.report, "output": step.output}
    return {**what, "status": _step_status(step), "error": _error_document(step.error)}


def _step_status(step: Step) -> str:
    return "failed" if step.error else "done"


def _error_document(error: HarborctlError | None) -> dict[str, Any] | None:
    return asdict(ErrorInfo.of(error)) if error else None


def _print_table(invocation: Invocation, job: str, result: JobResult) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("load", "status", *(name for name in ("read", "inserted", "updated", "rejected")), "s")
    for load in map(_load_document, result.loads):
        counts = [f"{load.get(name, 0):,}" for name in ("rows_read", "inserted", "updated", "rejected")]
        table.add_row(Text(said(load["name"])), str(load["status"]), *counts, f"{load.get('seconds', 0):.1f}")
    if not invocation.out.is_terminal:
        invocation.out.width = WIDE  # a log's line is one line
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    steps = "".join(said(f"{_step_status(step)}: {step.sql or step.output}") + "\n" for step in result.steps)
    invocation.write(f"job {said(job)}, {result.seconds:.1f} s\n{rendered.get()}{steps}")
