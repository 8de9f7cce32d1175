"""`harborctl count`: tables → how many rows each has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from datetime import datetime

    from harborctl.counts.result import Counting, TableCount

EXAMPLES = """
[bold]Examples[/bold]

  harborctl count harbor.variants

  harborctl count 'harbor.*' --exact

  harborctl count harbor.stock_reservations --where "state = 'active'"

  harborctl count harbor.stock_reservations --sample 1

  harborctl count '"Odd Name".orders' --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "count", epilog=EXAMPLES)(count)


def count(
    invocation: Invocation,
    *,
    tables: Annotated[
        list[str],
        typer.Argument(metavar="[SCHEMA.]TABLE...", help="Tables or views; * and ? match several, as in 'harbor.*'."),
    ],
    exact: Annotated[
        bool, typer.Option("--exact", help="Count every row, which takes as long as reading the table.")
    ] = False,
    sample: Annotated[
        float | None,
        typer.Option("--sample", metavar="PERCENT", help="Count on some of the pages; gives a 95 % interval."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Only rows that meet this condition; the planner estimates them."),
    ] = None,
) -> None:
    """Say how many rows tables have, fast.

    An estimate by default, in time that does not grow with the table. It says what it stands on and how old the
    statistics are.
    """
    from harborctl.counts.count import count_tables
    from harborctl.counts.result import CountOptions
    from harborctl.db.engine import open_database
    from harborctl.reports.output import write_text

    options = CountOptions(exact=exact, sample=sample, where=where)
    with open_database(invocation.connection) as database, _progress(invocation, exact=exact) as on_table:
        counts = count_tables(database.engine, tables, options, on_table)
    if counts.unreadable:
        invocation.note(f"warning: left out, for want of the right to read: {', '.join(counts.unreadable)}")
    for table, error in counts.failed.items():
        invocation.note(f"warning: left out {table}: {error.message}")
    for sentence in counts.notes:
        invocation.note(f"note: {sentence}")
    if invocation.json:
        write_text(as_json([_document(counted) for counted in counts.tables], indent=2) + "\n")
    else:
        write_text(_table(invocation, counts.tables))


@contextmanager
def _progress(invocation: Invocation, *, exact: bool) -> Iterator[Callable[[Counting], None] | None]:
    """A line with the time and the estimate on a terminal.

    Of one running count the server tells nothing: pg_stat_progress_* has no view for it. Counting by ranges of pages
    would fill a bar, but no workers share in such a scan: 10 million rows took 0.67 s in 16 ranges, 0.87 s in 64, and
    0.38 s in one count.
    """
    if invocation.quiet or not exact or not invocation.err.is_terminal:
        yield None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=invocation.err, transient=True) as bar:
        task = bar.add_task("count", total=None)

        def on_table(next_one: Counting) -> None:
            place = f", {next_one.done + 1} of {next_one.tables}" if next_one.tables > 1 else ""
            rows = f": about {next_one.expected:,} rows" if next_one.expected is not None else ""
            bar.update(task, description=said(f"counting {next_one.table}{place}{rows}"))

        yield on_table


def _document(counted: TableCount) -> dict[str, Any]:
    return {
        "table": counted.table,
        "rows": counted.rows,
        "method": counted.method,
        "low": counted.low,
        "high": counted.high,
        "analyzed_at": counted.analyzed_at.isoformat() if counted.analyzed_at else None,
        "changed_since": counted.changed_since,
        "basis": counted.basis,
    }


def _table(invocation: Invocation, counts: list[TableCount]) -> str:
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from harborctl.reports.table import COMPACT, rendered

    drawing = Table(box=COMPACT, show_edge=False, pad_edge=False)
    drawing.add_column("table", overflow="fold")
    drawing.add_column("rows", justify="right", no_wrap=True)
    drawing.add_column("method", overflow="fold")
    drawing.add_column("statistics", overflow="fold")
    now = datetime.now().astimezone()
    for counted in counts:
        drawing.add_row(Text(said(counted.table)), f"{counted.rows:,}", _method(counted), _staleness(counted, now))
    console = invocation.out
    return rendered(drawing, color=console.is_terminal, width=console.width if console.is_terminal else None)


def _method(counted: TableCount) -> str:
    if counted.basis:
        return f"{counted.method} from {counted.basis}"
    if counted.pages is None:
        return str(counted.method)
    pages = f"{counted.pages:,} {'page' if counted.pages == 1 else 'pages'}"
    return f"{counted.method} of {pages}; 95 % in {counted.low:,} to {counted.high:,}"


def _staleness(counted: TableCount, now: datetime) -> str:
    """How old the statistics are and what has changed since, in a few words."""
    if counted.changed_since is None:
        return "none kept"
    changed = f"{counted.changed_since:,} {'row' if counted.changed_since == 1 else 'rows'}"
    if counted.analyzed_at is None:
        return f"never analyzed; {changed} changed"
    return f"analyzed {_ago((now - counted.analyzed_at).total_seconds())} ago; {changed} changed since"


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return "less than a minute"
