"""`harborctl inspect`: a file → what is in it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.model import InspectOptions
from harborctl.options import filled
from harborctl.plain_text import as_json, said, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.inspection.fit import Fit
    from harborctl.inspection.inspect import Inspection
    from harborctl.inspection.profile import ColumnReport

EXAMPLES = """
[bold]Examples[/bold]

  harborctl inspect people.csv

  harborctl inspect export.txt --format csv --detect

  harborctl inspect people.csv --ddl

  harborctl inspect people.csv --html people.html

  harborctl inspect people.csv --table crm.people
"""

# Shorter than this no text is cut: what is too much for a terminal is left out.
SHORTEST = 13
EIGHTHS = " ▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "inspect", table=InspectOptions, epilog=EXAMPLES)(inspect)


def inspect(
    invocation: Invocation,
    *,
    ddl: Annotated[bool, typer.Option("--ddl", help="Print only the CREATE TABLE that it would get.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts, instead of text.")
    ] = None,
    **given: Any,
) -> None:
    """Tell what is in a file: columns, types, NULLs, first rows, and what is odd.

    Reads all of it, and writes nothing. A type is taken only if it gives every value back as it stands in the file.
    """
    from dataclasses import replace

    from harborctl.inspection.inspect import inspect_file
    from harborctl.reports.output import file_output, write_text
    from harborctl.sources.encodings import codec_of

    options = filled(InspectOptions, given)
    options = replace(options, dialect=replace(options.dialect, encoding=codec_of(options.dialect.encoding)))
    inspection = inspect_file(options)
    if inspection.options:
        invocation.note(f"note: detected {shlex.join(inspection.options)}")
    fits = _fit(invocation, options) if options.table else None
    if html is not None:
        from harborctl.inspection.page import page

        with file_output(html) as stream:
            for part in page(inspection, fits):
                stream.write(part.encode())
        return
    if invocation.json:
        write_text(as_json(asdict(inspection) | {"table": asdict(fits) if fits else None}, indent=2) + "\n")
    elif ddl:
        _print_ddl(invocation, inspection)
    else:
        write_text(_text(invocation, inspection, fits))


def _fit(invocation: Invocation, options: InspectOptions) -> Fit:
    from harborctl.cli.progress import load_progress
    from harborctl.db.engine import open_database
    from harborctl.inspection.fit import fit
    from harborctl.inspection.inspect import with_dialect
    from harborctl.load.run.loader import LoadFailed

    with open_database(invocation.connection) as database, load_progress(invocation) as progress:
        try:
            return fit(database, with_dialect(options), progress)
        except LoadFailed as failure:
            raise failure.error from failure


def _print_ddl(invocation: Invocation, inspection: Inspection) -> None:
    from harborctl.errors import TargetError
    from harborctl.reports.output import write_text

    if inspection.ddl is None:
        raise TargetError(f"{inspection.path} can get no table as it is: {inspection.warnings[0]}")
    for warning in inspection.warnings:
        invocation.note(f"note: {warning}")
    write_text(_lines(inspection.ddl))


def _text(invocation: Invocation, inspection: Inspection, fits: Fit | None) -> str:
    from harborctl.inspection.page import fit_line, summary_line

    parts = [said(f"{inspection.path}: {summary_line(inspection)}") + "\n"]
    if bad := inspection.malformed:
        parts.append(
            said(f"{bad.count:,} records are not of the format; the first, line {bad.line}: {bad.message}") + "\n"
        )
    parts.append("\n" + _columns(invocation, inspection))
    warnings = [*inspection.warnings]
    for column in inspection.columns:
        if column.why:
            warnings.append(f"{column.name} is {column.type}: {column.why}")
        warnings += [f"{column.name}: {warning}" for warning in column.warnings]
    if warnings:
        parts.append("\n" + "".join(f"- {said(warning)}\n" for warning in warnings))
    if inspection.first_rows:
        parts.append("\n" + _first_rows(invocation, inspection))
    if fits is not None:
        goes = [(each.source, each.target, each.type) for each in fits.columns]
        parts.append(said(f"\n{fits.table}: {fit_line(fits)}").replace("\\n", "\n") + "\n")
        parts.append("\n" + _drawn(invocation, ["file", "table", "type"], goes))
        for reason in fits.reasons:
            column_name = f" column {reason.column}:" if reason.column else ""
            place = f"(first: line {reason.line})"
            parts.append(said(f"  {reason.count:,} x {reason.code}{column_name} {reason.message} {place}") + "\n")
    return "".join(parts)


def _columns(invocation: Invocation, inspection: Inspection) -> str:
    heads = ("column", "type", "NULL", "distinct", "least", "most", "longest", "rows by value")
    rows: list[tuple[str, ...]] = [
        (
            column.name,
            column.type,
            f"{column.nulls:,}",
            f"{column.distinct:,}",
            column.least or "",
            column.most or "",
            f"{column.longest:,}",
            _bars(column),
        )
        for column in inspection.columns
    ]
    kept = _fitting(invocation, [heads, *rows])
    most = max(SHORTEST, kept.pop())
    cut = [tuple(_shortened(visible(text), most) for text in row) for row in rows]
    return _drawn(invocation, [heads[n] for n in kept], [tuple(row[n] for n in kept) for row in cut], {2, 3, 6})


def _fitting(invocation: Invocation, rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Of the columns of this table those for which there is room, and behind them how long a text may be."""
    console = invocation.out
    room = console.width if console.is_terminal else None
    kept = list(range(len(rows[0])))
    for dispensable in (7, 6, 5, 4, None):
        for most in (40, 28, 20, 16, SHORTEST):
            widths = [max(min(len(visible(row[n])), most) for row in rows) + 3 for n in kept]
            if room is None or sum(widths) <= room:
                return [*kept, most]
        if dispensable is not None:
            kept.remove(dispensable)
    return [*kept, SHORTEST]


def _first_rows(invocation: Invocation, inspection: Inspection) -> str:
    """As reports draw rows: what is too wide for the terminal comes as records."""
    from harborctl.reports.result import Column, Kind, Result
    from harborctl.reports.table import table

    columns = tuple(Column(column.name, column.type, Kind.TEXT) for column in inspection.columns)
    console = invocation.out
    width = console.width if console.is_terminal else None
    *lines, _ = table(Result(columns, iter([inspection.first_rows])), width, color=console.is_terminal)
    return "".join(lines)


def _bars(column: ColumnReport) -> str:
    most = max((bar.rows for bar in column.histogram), default=0)
    return "".join(EIGHTHS[-(-bar.rows * 8 // most)] for bar in column.histogram) if most else ""


def _drawn(
    invocation: Invocation, heads: list[str], rows: Sequence[tuple[str | None, ...]], right: set[int] | None = None
) -> str:
    from rich.table import Table
    from rich.text import Text

    from harborctl.reports.table import COMPACT, rendered

    drawing = Table(box=COMPACT, show_edge=False, pad_edge=False)
    for number, head in enumerate(heads):
        justify: Any = "right" if number in (right or ()) else "left"
        drawing.add_column(Text(visible(head)), justify=justify, overflow="fold")
    for row in rows:
        drawing.add_row(*(Text(visible(text or "")) for text in row))
    console = invocation.out
    return rendered(drawing, color=console.is_terminal, width=console.width if console.is_terminal else None)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _lines(text: str) -> str:
    return "\n".join(map(said, text.split("\n"))) + "\n"
