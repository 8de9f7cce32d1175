"""`harborctl export`: tables → files that can be loaded again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.plain_text import as_json
from harborctl.reports.formats import Compression, Format

EXAMPLES = """
[bold]Examples[/bold]

  harborctl export harbor.products -o products.parquet

  harborctl export 'harbor.*' -o backup/ --format csv --compression zstd

  harborctl export harbor.variants -o low.csv --where "stock_qty < 10" --columns sku,stock_qty --order-by stock_qty

  harborctl export harbor.stock_reservations -o by_status/ --format parquet --partition-by status
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "export", epilog=EXAMPLES)(export)


def export(
    invocation: Invocation,
    *,
    tables: Annotated[
        list[str],
        typer.Argument(metavar="[SCHEMA.]TABLE...", help="Tables or views; * and ? match several, as in 'harbor.*'."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="A file for one table, or a folder: it gets a file for each table, and a manifest. \\[default: here]",
        ),
    ] = None,
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="csv, parquet, jsonl or xlsx. \\[default: by -o's suffix, else csv]"),
    ] = None,
    where: Annotated[str | None, typer.Option("--where", metavar="SQL", help="Only rows that meet this.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="A,B", help="Only these, in this order. \\[default: all but generated ones]"),
    ] = None,
    order_by: Annotated[
        str | None, typer.Option("--order-by", metavar="SQL", help="Sort the rows of each file by this.")
    ] = None,
    partition_by: Annotated[
        str | None,
        typer.Option("--partition-by", metavar="COL", help="A folder COL=value for each of its values."),
    ] = None,
    compression: Annotated[
        Compression | None, typer.Option("--compression", help="Of text files: .gz or .zst behind their names.")
    ] = None,
) -> None:
    """Write tables into files, which `harborctl load` puts back as they were.

    All files are of one moment, and none takes its name before all are complete.
    """
    from harborctl.db.engine import open_database
    from harborctl.exports.plan import ExportOptions
    from harborctl.exports.run import export as export_tables
    from harborctl.options import Option, names
    from harborctl.reports.output import write_text

    chosen = tuple(names(Option("--columns"), columns or ()))
    options = ExportOptions(
        tuple(tables), output, output_format, where, chosen, order_by, partition_by, compression
    )  # fmt: skip
    with open_database(invocation.connection) as database:
        done = export_tables(database.engine, options, invocation.connection.statement_timeout or 0)
    if invocation.json:
        document = {
            "exported_at": done.at.isoformat(),
            "manifest": done.manifest,
            "files": list(map(asdict, done.files)),
        }
        write_text(as_json(document, indent=2) + "\n")
        return
    for file in done.files:
        invocation.note(f"wrote {file.path}: {file.rows:,} rows of {file.table}")
    if done.manifest is not None:
        invocation.note(f"wrote {done.manifest}")
