"""`harborctl load`: options → one load → its summary."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from harborctl.cli.changes import print_changes
from harborctl.cli.invocation import Invocation, Summarized, command
from harborctl.cli.notify_options import MetricsOption, PingOption
from harborctl.errors import ExitCode
from harborctl.model import LoadOptions, LoadResult, Status
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from harborctl.errors import HarborctlError
    from harborctl.jobs.notify import Outcome

# Files that a summary for people names as already loaded: a folder may hold a year of them.
LEFT_OUT_SHOWN = 5

EXAMPLES = """
[bold]Examples[/bold]

  harborctl load people.csv --create --key id

  harborctl load products.csv -t harbor.products

  harborctl load 'feeds/variants_*.csv' -t harbor.variants --mode upsert --key sku

  harborctl load stock.csv -t harbor.stock --mode upsert --newest-by counted_at --touch updated_at

  harborctl load people.csv -t people --mode ignore --key 'lower(email)'

  harborctl load rates.csv -t rates --mode replace --no-block

  harborctl load orders.parquet -t shop.orders --map order_date=ordered_on --set source=web

  harborctl load catalog.csv -t harbor.products --mode sync --key sku --max-delete 5% --dry-run

  harborctl load orders.csv -t shop.orders --on-error reject --max-rejects 1% --check 'price_cents >= 0'

  harborctl load big.csv -t big --commit-every 1000000

  harborctl load big.parquet -t big --jobs 4 --retries 5

  zcat big.csv.gz | harborctl load - -t big --delimiter ';' --null NULL --json
"""


# What nine of ten loads need.
USUAL = (
    "table", "mode", "key", "create", "dry_run", "format", "on_error", "map", "set", "delimiter", "url",
)  # fmt: skip
FEW_EXAMPLES = """
[bold]Examples[/bold]

  harborctl load people.csv --create --key id

  harborctl load 'feeds/*.csv' -t harbor.variants --mode upsert --key sku --on-error reject
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "load", table=LoadOptions, usual=USUAL, examples=FEW_EXAMPLES, epilog=EXAMPLES)(load)


def load(
    invocation: Invocation,
    *,
    metrics_file: MetricsOption = None,
    ping: PingOption = None,
    **given: Any,
) -> None:
    """Load files into one table, all or nothing.

    Columns are matched by name. Columns that the file lacks get their default. One bad row and nothing is committed.
    """
    from harborctl.jobs.notify import Watchers, told
    from harborctl.load.options import load_options

    options = load_options(**given)
    with told(Watchers(ping, metrics_file), "load", invocation.note) as outcome:
        failure = _run(invocation, options, outcome)
    if failure is not None:
        raise Summarized(failure)
    if outcome.code is not ExitCode.OK:
        raise typer.Exit(outcome.code)


def _run(invocation: Invocation, options: LoadOptions, outcome: Outcome) -> HarborctlError | None:
    """Load, and print the summary. Returns why the load failed, if it did."""
    from harborctl.cli.progress import load_progress
    from harborctl.db.engine import open_database
    from harborctl.load.run.loader import LoadFailed, run_load

    with open_database(invocation.connection) as database:
        try:
            with load_progress(invocation) as progress:
                result = run_load(database, options, progress)
        except LoadFailed as failure:
            outcome.add(failure.result)
            invocation.event("load ended", **asdict(failure.result))
            with invocation.telling():
                if invocation.json:
                    print_json(invocation, failure.result)
                elif not invocation.quiet:
                    print_reasons(invocation, failure.result)
            outcome.code = failure.error.exit_code
            return failure.error
    outcome.add(result)
    invocation.event("load ended", **asdict(result))
    with invocation.telling():
        if invocation.json:
            print_json(invocation, result)
        elif not invocation.quiet:
            print_summary(invocation, result)
            print_reasons(invocation, result)
            print_changes(invocation, result.changes)
    for note in result.notes:
        invocation.note(f"note: {note}")
    if result.lacks_rows:
        outcome.code = ExitCode.REJECTS
    return None


def print_json(invocation: Invocation, result: LoadResult) -> None:
    """The summary as one JSON document on stdout."""
    invocation.write(as_json(asdict(result)) + "\n")


def print_summary(invocation: Invocation, result: LoadResult) -> None:
    """The summary for people on stdout: what became of the rows, zeros left out."""
    from rich.table import Table

    if result.status is Status.LOCKED:
        invocation.write(said(f"{result.table}: skipped, its lock is held, in {result.database}") + "\n")
        return
    if earlier := result.earlier:
        place = f" on {earlier.host}" if earlier.host else ""
        rejected = f", which rejected {earlier.rejected:,} rows" if earlier.rejected else ""
        text = (
            f"{result.table}: already loaded at {earlier.finished_at} by load {earlier.load_id}"
            f" ({earlier.user}{place}){rejected}, into {result.database}; --again loads it once more"
        )
        invocation.write(said(text) + "\n")
        return
    left_out = [file for file in result.files if file.status is Status.ALREADY_LOADED]
    sources = ", ".join(file.path for file in result.files if file not in left_out)
    table = Table()
    table.add_column(result.mode.value + (", rolled back" if result.status is Status.DRY_RUN else ""))
    table.add_column("rows", justify="right")
    counters = ("inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "deleted", "rejected")
    for name in counters:
        if count := getattr(result, name):
            table.add_row(name, f"{count:,}")
    table.add_row("read", f"{result.rows_read:,}", style="bold")
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    speed = f"{result.seconds:.1f} s, {result.rows_per_second:,} rows/s by {result.writer}"
    head, foot = said(f"{result.table} ← {sources}"), said(f"{speed}, into {result.database}")
    known = [said(f"already loaded: {file.path}, by load {file.load_id}") for file in left_out[:LEFT_OUT_SHOWN]]
    if len(left_out) > LEFT_OUT_SHOWN:
        known.append(f"already loaded: {len(left_out) - LEFT_OUT_SHOWN:,} more, see --json")
    made = "\n".join(map(said, result.created.split("\n"))) + "\n\n" if result.created else ""
    invocation.write(f"{made}{head}\n{rendered.get()}" + "".join(f"{line}\n" for line in (*known, foot)))


def print_reasons(invocation: Invocation, result: LoadResult) -> None:
    """Why rows were rejected, and where they are, for people on stdout: a line for each reason, the first row named."""
    if not result.reject_reasons:
        return
    width = max(len(f"{reason.count:,}") for reason in result.reject_reasons)
    lines = ["rejected:"]
    for reason in result.reject_reasons:
        column = f" column {reason.column}:" if reason.column else ""
        place = f"{reason.file}, line {reason.line}"
        lines.append(f"  {reason.count:>{width},} x {reason.code}{column} {reason.message} (first: {place})")
    if result.reject_file:
        lines.append(f"The rejected rows are in {result.reject_file}.")
    invocation.write("".join(said(line) + "\n" for line in lines))
