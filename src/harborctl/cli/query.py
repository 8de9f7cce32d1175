"""`harborctl query`: a statement that is typed → its rows, as `report` gives those of a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.cli.rows import (
    ByOption,
    ChartOption,
    ExplainOption,
    FormatOption,
    LimitOption,
    OutputOption,
    TimeoutOption,
    WideOption,
    run,
    wanted_of,
)
from harborctl.errors import UsageError

EXAMPLES = """
[bold]Examples[/bold]

  harborctl query "SELECT category, count(*) FROM harbor.products GROUP BY category"

  harborctl query "SELECT * FROM harbor.variants WHERE stock_qty < :few" -p few=10 -o few.xlsx

  harborctl query - < question.sql

  harborctl query "SELECT * FROM harbor.variants WHERE stock_qty < :few" -p few=10 --save running_low
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "query", epilog=EXAMPLES)(query)


def query(
    invocation: Invocation,
    *,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL|FILE|-",
            help="One SELECT or WITH … SELECT, with :name for parameters; or a .sql file, or - for standard input.",
        ),
    ],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="Set a parameter; repeatable. Its value tells its type: a number, a date such as 2026-11-25, or text.",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option("--save", metavar="NAME", help="Run it, and keep it as the report ./reports/NAME.sql."),
    ] = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    chart: ChartOption = None,
    by: ByOption = None,
    wide: WideOption = False,
    explain: ExplainOption = False,
    timeout: TimeoutOption = None,
    limit: LimitOption = None,
) -> None:
    """Run one SELECT, and write its rows in any format that reports have.

    It only reads: the transaction is read-only.
    """
    from harborctl.reports.query import report_path, save_report, typed_query

    wanted = wanted_of(invocation, output_format, output, chart, by, wide=wide, explain=explain)
    text, file = _text_of(sql)
    found = typed_query(text, given or [], file)
    path = None if save is None else report_path(save, Path("reports"))
    run(invocation, found, given or [], wanted, timeout, limit)
    if path is not None:
        save_report(found, path)
        invocation.note(f"saved {path}; run it with `harborctl report {save}`")


def _text_of(sql: str) -> tuple[str, str]:
    """The statement, and what it is called in messages."""
    if sql != "-" and not sql.endswith(".sql"):
        return sql, "query"
    if sql == "-" and sys.stdin is None:
        raise UsageError("standard input is closed", hint="Give the statement as the argument.")
    file = "stdin" if sql == "-" else sql
    try:
        return (sys.stdin.buffer.read() if sql == "-" else Path(sql).read_bytes()).decode(), file
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8", code="bad_report", hint="Save it as UTF-8.") from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", code="no_such_report") from error
