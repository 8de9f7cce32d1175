"""What `report` and `query` have in common: the options that say where rows go and how, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from harborctl.errors import UsageError
from harborctl.reports.formats import BINARY, BY_LINES, PICTURES, Format, format_of

if TYPE_CHECKING:
    from harborctl.cli.invocation import Invocation
    from harborctl.reports.chart import ChartOptions
    from harborctl.reports.render import Layout
    from harborctl.reports.report import Report

DEFAULT_TIMEOUT = 60.0

FormatOption = Annotated[
    Format | None, typer.Option("--format", help="How to write the rows. \\[default: by -o's suffix, else table]")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there, whole or not at all; - is stdout.")
]
ChartOption = Annotated[
    str | None, typer.Option("--chart", metavar="COL", help="Draw this column: bars, or a line over dates.")
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="LABEL", help="With --chart: the column that names its values.")
]
WideOption = Annotated[
    bool, typer.Option("--wide", help="Fold nothing: lines as long as they are. A pager scrolls sideways.")
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Print the plan with its timing, instead of the rows.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0,
        max=2_000_000,  # the server counts in milliseconds, as a 32-bit integer
        help="Let the server end the query after this; 0 for never. \\[default: 60]",
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", metavar="N", min=0, help="Stop after N rows.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to become of the rows. `file` None is standard output."""

    format: Format
    file: Path | None
    chart: ChartOptions | None
    wide: bool
    explain: bool


def wanted_of(
    invocation: Invocation, output_format: Format | None, output: Path | None, chart: str | None, by: str | None, *,
    wide: bool, explain: bool,
) -> Wanted:  # fmt: skip
    """What the options say.

    Raises:
        UsageError: they contradict each other.
    """
    chosen, file = _target(invocation, output_format, output)
    return Wanted(chosen, file, _chart(chosen, chart, by, explain=explain), wide, explain)


def _target(invocation: Invocation, wanted: Format | None, output: Path | None) -> tuple[Format, Path | None]:
    """The format, and the file if it is not standard output."""
    if invocation.json and wanted not in (None, Format.JSON):
        raise UsageError(f"--json and --format {wanted} contradict each other", hint="Give one of them.")
    file = None if output is None or str(output) in ("-", "/dev/stdout") else output
    chosen = Format.JSON if invocation.json else wanted
    if chosen is None:
        chosen = Format.TABLE if file is None else format_of(file)
    return chosen, file


def _chart(output_format: Format, column: str | None, label: str | None, *, explain: bool) -> ChartOptions | None:
    """What to draw, if anything.

    Raises:
        UsageError: the options contradict each other.
    """
    if column is None:
        if label is not None:
            raise UsageError("--by says what a chart's values are called", hint="Name their column with --chart.")
        if output_format in PICTURES and not explain:
            raise UsageError(f"{output_format} is a picture", hint="Say with --chart which column to draw.")
        if output_format in (*BINARY, *PICTURES, Format.HTML, Format.CSV, Format.MARKDOWN, Format.JSONL) and explain:
            raise UsageError("a plan is text or JSON", hint="Leave out --format, or take --json.")
        return None
    if explain:
        raise UsageError("--chart and --explain contradict each other", hint="Give one of them.")
    if output_format not in (Format.TABLE, Format.HTML, *PICTURES):
        raise UsageError(
            f"there are no charts in {output_format}", hint="Take --format html, svg or png, or none for the terminal."
        )
    from harborctl.reports.chart import ChartOptions

    return ChartOptions(column, label)


def run(
    invocation: Invocation,
    found: Report,
    given: list[str],
    wanted: Wanted,
    timeout: float | None,
    limit: int | None,
) -> None:
    """Run `found` with parameters such as `threshold=5`, and write its rows where they are wanted.

    Raises:
        HarborctlError: a parameter is wrong, or the server refuses the report.
    """
    from harborctl.reports.moments import local_now
    from harborctl.reports.report import bind

    # Everything that can be wrong without a database is said before there is one.
    values = bind(found, given, local_now())
    if wanted.format in BINARY and wanted.file is None and invocation.out.is_terminal:
        raise UsageError(f"{wanted.format} is not for a terminal", hint="Write it to a file with -o.")
    with _opened(invocation, wanted) as stream:
        from harborctl.db.engine import open_database
        from harborctl.reports.run import RunOptions, explain_report, run_report

        if timeout is None:
            timeout = invocation.connection.statement_timeout
        # A column that is drawn is looked at value by value.
        lines = wanted.format in BY_LINES
        options = RunOptions(DEFAULT_TIMEOUT if timeout is None else timeout, limit, lines)
        with open_database(invocation.connection) as database:
            if wanted.explain:
                as_json = wanted.format is Format.JSON
                plan = explain_report(database.engine, found, values, options, as_json=as_json)
                stream.write(plan.encode() + b"\n")
            else:
                from harborctl.reports.write import write

                with run_report(database.engine, found, values, options) as result:
                    write(result, wanted.format, _layout(invocation, wanted, found), wanted.chart, stream)
    if wanted.file is not None:
        invocation.note(f"wrote {wanted.file}")


@contextmanager
def _opened(invocation: Invocation, wanted: Wanted) -> Iterator[IO[bytes]]:
    from harborctl.cli.pager import paged, pager_command
    from harborctl.reports.output import file_output, standard_output

    pager = pager_command() if wanted.file is None and invocation.out.is_terminal else None
    if pager is not None and wanted.format not in BINARY and wanted.chart is None:
        with paged(pager, wide=wanted.wide) as stream:
            yield stream
        return
    # Half a JSON document is none, and after a failure another one follows.
    whole = wanted.format is Format.JSON
    with standard_output(whole=whole) if wanted.file is None else file_output(wanted.file) as stream:
        yield stream


def _layout(invocation: Invocation, wanted: Wanted, found: Report) -> Layout:
    """A terminal's width and colours; a pipe or a file takes lines of any length, unless COLUMNS is set."""
    from harborctl.reports.render import Layout

    if wanted.file is not None:
        return Layout(title=found.title, description=found.description)
    console = invocation.out
    narrow = (console.is_terminal or "COLUMNS" in os.environ) and not wanted.wide
    return Layout(
        console.width if narrow else None,
        color=console.is_terminal and console.color_system is not None,
        title=found.title,
        description=found.description,
    )
