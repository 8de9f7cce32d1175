"""`harborctl count`: tables → how many rows each has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from datetime import datetime

    from harborctl.counts import TableCount

EXAMPLES = """
[bold]Examples[/bold]

  harborctl count harbor.variants

  harborctl count harbor.products harbor.variants --exact

  harborctl count '"Odd Name".orders' --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "count", epilog=EXAMPLES)(count)


def count(
    invocation: Invocation,
    *,
    tables: Annotated[list[str], typer.Argument(metavar="[SCHEMA.]TABLE...", help="Tables or views.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Count every row, which takes as long as reading the table.")
    ] = False,
) -> None:
    """Say how many rows tables have, fast.

    An estimate by default, in time that does not grow with the table. It says how old the statistics are.
    """
    from harborctl.counts import count_tables
    from harborctl.db.engine import open_database
    from harborctl.reports.output import write_text

    with open_database(invocation.connection) as database:
        counts = count_tables(database.engine, tables, exact=exact)
    if invocation.json:
        write_text(json.dumps([_document(counted) for counted in counts], ensure_ascii=False, indent=2) + "\n")
    else:
        write_text(_table(invocation, counts))


def _document(counted: TableCount) -> dict[str, Any]:
    return {
        "table": counted.table,
        "rows": counted.rows,
        "method": counted.method,
        "low": counted.low,
        "high": counted.high,
        "analyzed_at": counted.analyzed_at.isoformat() if counted.analyzed_at else None,
        "changed_since": counted.changed_since,
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
        method = f"{counted.method} from {counted.basis}" if counted.basis else str(counted.method)
        drawing.add_row(Text(counted.table), f"{counted.rows:,}", method, _staleness(counted, now))
    console = invocation.out
    return rendered(drawing, color=console.is_terminal, width=console.width if console.is_terminal else None)


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
