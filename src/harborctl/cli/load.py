"""`harborctl load`: options → one load → its summary."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from harborctl.cli.invocation import Invocation, Summarized, command
from harborctl.errors import UsageError
from harborctl.model import Analyze, ColumnOptions, CsvDialect, LoadOptions, LoadResult, Mode, SourceFormat, WriterName

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = "Columns"
CSV = "CSV dialect: the defaults are COPY's, with a header"

EXAMPLES = """
[bold]Examples[/bold]

  harborctl load products.csv -t harbor.products

  harborctl load 'feeds/variants_*.csv' -t harbor.variants --mode upsert --key sku

  harborctl load orders.parquet -t shop.orders --map order_date=ordered_on --set source=web

  zcat big.csv.gz | harborctl load - -t big --delimiter ';' --null NULL --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "load", epilog=EXAMPLES)(load)


def load(
    invocation: Invocation,
    *,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files, globs in quotes, or - for stdin.")],
    table: Annotated[
        str | None, typer.Option("--table", "-t", metavar="[SCHEMA.]TABLE", help="Target. \\[default: the file's stem]")
    ] = None,
    mode: Annotated[Mode, typer.Option("--mode", "-m", help="What to do about rows that are there.")] = Mode.APPEND,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", "-k", metavar="COL[,COL]", help="What identifies a row. \\[default: the primary key]"),
    ] = None,
    source_format: Annotated[
        SourceFormat | None, typer.Option("--format", help="Format. \\[default: by the file's suffix]")
    ] = None,
    writer: Annotated[WriterName, typer.Option("--writer", help="How rows travel.")] = WriterName.AUTO,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Rows in a round trip of the values writer.")
    ] = 1000,
    analyze: Annotated[
        Analyze, typer.Option("--analyze", help="ANALYZE the table; auto: if over a tenth of it changed.")
    ] = Analyze.AUTO,
    no_ledger: Annotated[
        bool, typer.Option("--no-ledger", help="Keep no record of this load in the database.")
    ] = False,
    renames: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="SRC=DST", help="Rename a column; repeatable.", rich_help_panel=COLUMNS),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="Fill a column; repeatable.", rich_help_panel=COLUMNS),
    ] = None,
    skip_columns: Annotated[
        list[str] | None,
        typer.Option("--skip-columns", metavar="A,B", help="Leave source columns out.", rich_help_panel=COLUMNS),
    ] = None,
    delimiter: Annotated[
        str, typer.Option("--delimiter", metavar="C", help="One character, or 'tab'.", rich_help_panel=CSV)
    ] = ",",
    quote: Annotated[str, typer.Option("--quote", metavar="C", rich_help_panel=CSV)] = '"',
    escape: Annotated[
        str | None, typer.Option("--escape", metavar="C", help="\\[default: the quote]", rich_help_panel=CSV)
    ] = None,
    encoding: Annotated[str, typer.Option("--encoding", metavar="NAME", rich_help_panel=CSV)] = "utf-8",
    nulls: Annotated[
        list[str] | None,
        typer.Option(
            "--null",
            metavar="TEXT",
            help="Unquoted text that is NULL; repeatable. \\[default: empty]",
            rich_help_panel=CSV,
        ),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line is a row.", rich_help_panel=CSV)
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="A,B", help="The file's columns, in order.", rich_help_panel=CSV),
    ] = None,
    skip_lines: Annotated[
        int, typer.Option("--skip-lines", metavar="N", min=0, help="Lines before the header.", rich_help_panel=CSV)
    ] = 0,
) -> None:
    """Load CSV or Parquet files into one table, all or nothing.

    Columns are matched by name. Columns that the file lacks get their default. One bad row and nothing is committed.
    """
    options = LoadOptions(
        sources=tuple(sources),
        table=table,
        mode=mode,
        key=_names(key),
        format=source_format,
        dialect=CsvDialect(
            delimiter={"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter),
            quote=quote,
            escape=escape,
            encoding=encoding,
            nulls=tuple(nulls) if nulls is not None else ("",),
            header=not no_header,
            columns=_names(columns),
            skip_lines=skip_lines,
        ),
        columns=ColumnOptions(
            renames=_pairs("--map", renames),
            constants=_pairs("--set", constants),
            skipped=frozenset(_names(skip_columns)),
        ),
        writer=writer,
        batch_size=batch_size,
        analyze=analyze,
        ledger=not no_ledger,
    )
    _run(invocation, options)


def _run(invocation: Invocation, options: LoadOptions) -> None:
    from harborctl.cli.progress import load_progress
    from harborctl.db.engine import open_database
    from harborctl.load.run import LoadFailed, run_load

    with open_database(invocation.connection) as database:
        try:
            with load_progress(invocation) as progress:
                result = run_load(database, options, progress)
        except LoadFailed as failure:
            if invocation.json:
                print_json(invocation, failure.result)
            raise Summarized(failure.error) from failure
    if invocation.json:
        print_json(invocation, result)
    elif not invocation.quiet:
        print_summary(invocation, result)


def print_json(invocation: Invocation, result: LoadResult) -> None:
    """The summary as one JSON document on stdout."""
    invocation.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")


def print_summary(invocation: Invocation, result: LoadResult) -> None:
    """The summary for people on stdout: what became of the rows, zeros left out."""
    from rich.table import Table

    sources = ", ".join(file.path for file in result.files)
    table = Table()
    table.add_column(result.mode.value)
    table.add_column("rows", justify="right")
    counters = ("inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "deleted", "rejected")
    for name in counters:
        if count := getattr(result, name):
            table.add_row(name, f"{count:,}")
    table.add_row("read", f"{result.rows_read:,}", style="bold")
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    speed = f"{result.seconds:.1f} s, {result.rows_per_second:,} rows/s by {result.writer}"
    invocation.write(f"{result.table} ← {sources}\n{rendered.get()}{speed}, into {result.database}\n")


def _names(given: Sequence[str] | None) -> tuple[str, ...]:
    """`a,b` and repeated options alike → names. A name with a comma in it is given in double quotes, as in CSV."""
    import csv

    return tuple(name for text in given or () for name in next(csv.reader([text], skipinitialspace=True), []))


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {text} is not of the form NAME=VALUE")
        pairs[name] = value
    return pairs
