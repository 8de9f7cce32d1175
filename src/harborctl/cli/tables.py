"""`harborctl tables`: what tables there are, or all about one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.plain_text import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.counts.result import TableCount
    from harborctl.db.describe import TableDescription, TableSummary

EXAMPLES = """
[bold]Examples[/bold]

  harborctl tables

  harborctl tables 'harbor.*'

  harborctl tables harbor.variants

  harborctl tables harbor.variants --json
"""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "tables", epilog=EXAMPLES)(tables)


def tables(
    invocation: Invocation,
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[[SCHEMA.]TABLE]", help="Tell all about this one; with * or ?, as in 'harbor.*', list some."
        ),
    ] = None,
) -> None:
    """List the tables with estimated rows and size, or describe one.

    Columns, keys, foreign keys both ways, indexes and sizes. Reads the catalogs, never the rows.
    """
    from harborctl.counts.count import count_tables
    from harborctl.db.describe import described, summarized
    from harborctl.db.engine import open_database
    from harborctl.db.relations import is_pattern, matching, quoted
    from harborctl.errors import AccessDenied, StatementFailed
    from harborctl.reports.output import write_text

    with open_database(invocation.connection) as database:
        with database.engine.connect() as connection:
            connection.execution_options(postgresql_readonly=True)
            if name is None or is_pattern(name):
                summaries = summarized(connection, matching(connection, name, views=True))
                document: Any = [asdict(summary) for summary in summaries]
                write_text(_dumped(document) if invocation.json else _list(invocation, summaries))
                if not summaries:
                    invocation.note("There are no tables yet; `harborctl load --help` says how to fill one.")
                return
            table = described(connection, name)
        try:
            [estimate] = count_tables(database.engine, [quoted(table.schema, table.name)]).tables
        except (AccessDenied, StatementFailed):  # it can be described all the same
            estimate = None
    if invocation.json:
        write_text(_dumped(_document(table, estimate)))
    else:
        write_text(_description(invocation, table, estimate))


def _dumped(document: object) -> str:
    return as_json(document, indent=2) + "\n"


def _document(table: TableDescription, estimate: TableCount | None) -> dict[str, Any]:
    document = {"table": table.label, **asdict(table)}
    document["rows"] = estimate.rows if estimate else None
    document["rows_from"] = estimate.basis if estimate else None
    if table.sizes:
        document["sizes"]["total"] = table.sizes.total
    return document


def human(size: int) -> str:
    """Bytes in a unit of 1024s, as pg_size_pretty's: `14 kB`, `1.4 GB`."""
    amount, unit = float(size), 0
    while amount >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {UNITS[unit]}" if unit > 1 and amount < 10 else f"{amount:.0f} {UNITS[unit]}"


def _list(invocation: Invocation, summaries: Sequence[TableSummary]) -> str:
    rows = [
        (
            summary.table,
            "" if summary.kind == "table" else summary.kind,
            "?" if summary.rows is None else f"{summary.rows:,}",
            "" if summary.bytes is None else human(summary.bytes),
            summary.comment or "",
        )
        for summary in summaries
    ]
    return _drawn(invocation, ("table", "kind", "rows ≈", "size", "comment"), rows, right=(2, 3))


def _drawn(
    invocation: Invocation, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: tuple[int, ...] = ()
) -> str:
    """A table without the columns that are empty throughout, the first ones apart."""
    from rich.table import Table
    from rich.text import Text

    from harborctl.reports.table import COMPACT, plain, rendered

    shown = [i for i in range(len(header)) if i == 0 or not rows or any(row[i] for row in rows)]
    drawing = Table(box=COMPACT, show_edge=False, pad_edge=False)
    for index in shown:
        drawing.add_column(header[index], justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        drawing.add_row(*(Text(plain(row[index])) for index in shown))
    console = invocation.out
    return rendered(drawing, color=console.is_terminal, width=console.width if console.is_terminal else None)


def _description(invocation: Invocation, table: TableDescription, estimate: TableCount | None) -> str:
    parts = [_heading(table, estimate)]
    columns = [
        (c.name, c.type, "" if c.nullable else "not null", c.default or "", c.comment or "") for c in table.columns
    ]
    parts.append(_drawn(invocation, ("column", "type", "null", "default", "comment"), columns))
    if table.constraints:
        rows = [(c.definition, c.name) for c in table.constraints]
        parts.append(_drawn(invocation, ("constraint", "name"), rows))
    if table.foreign_keys:
        rows = [(_reference(k.columns, k.other_table, k.other_columns), k.name) for k in table.foreign_keys]
        parts.append(_drawn(invocation, ("refers to", "name"), rows))
    if table.referenced_by:
        rows = [(f"{k.table} ({', '.join(k.columns)})", k.name) for k in table.referenced_by]
        parts.append(_drawn(invocation, ("referred to by", "name"), rows))
    if table.indexes:
        indexes = [
            (i.name, i.definition.partition(" USING ")[2], human(i.bytes), _properties(unique=i.unique, valid=i.valid))
            for i in table.indexes
        ]
        parts.append(_drawn(invocation, ("index", "on", "size", "is"), indexes, right=(2,)))
    if table.partitions:
        parts.append(_drawn(invocation, ("partition",), [(name,) for name in table.partitions]))
    if table.query:
        parts.append(table.query + "\n")
    return "\n".join(parts)


def _reference(columns: Sequence[str], other: str, other_columns: Sequence[str]) -> str:
    return f"({', '.join(columns)}) → {other} ({', '.join(other_columns)})"


def _properties(*, unique: bool, valid: bool) -> str:
    return ", ".join(word for word, wanted in (("unique", unique), ("INVALID", not valid)) if wanted)


def _heading(table: TableDescription, estimate: TableCount | None) -> str:
    from harborctl.reports.table import plain

    said = [f"{plain(table.label)}, {table.kind} of {plain(table.owner)}"]
    if table.partitioned_by:
        said.append(f"partitioned by {table.partitioned_by}")
    if table.partition_of:
        said.append(f"partition of {plain(table.partition_of)}")
    if estimate:
        said.append(f"≈ {estimate.rows:,} {'row' if estimate.rows == 1 else 'rows'} (from {estimate.basis})")
    if table.sizes:
        sizes = table.sizes
        details = [("table", sizes.table), ("TOAST", sizes.toast), ("indexes", sizes.indexes)]
        shown = ", ".join(f"{name} {human(size)}" for name, size in details if size)
        said.append(human(sizes.total) + (f" ({shown})" if shown else ""))
    lines = [said[0], *(f"  {line}" for line in said[1:])]
    if table.comment:
        lines.insert(1, f"  {plain(table.comment)}")
    return "\n".join(lines) + "\n"
