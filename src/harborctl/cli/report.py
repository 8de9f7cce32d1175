"""`harborctl report`: a name and parameters → one query → its rows in a format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.errors import HarborctlError, UsageError
from harborctl.reports.formats import Format, format_of

if TYPE_CHECKING:
    from harborctl.reports.find import Folder, Found
    from harborctl.reports.render import Layout
    from harborctl.reports.report import Parameter, Report

EXAMPLES = """
[bold]Examples[/bold]

  harborctl report

  harborctl report low_stock -p threshold=10

  harborctl report load_history -p since=2026-11 --format csv -o loads.csv

  harborctl report ./my_query.sql --json

  harborctl report show low_stock
"""
DEFAULT_TIMEOUT = 60.0


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "report", epilog=EXAMPLES)(report)


def report(
    invocation: Invocation,
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [NAME|FILE]",
            help="A report's name, or a .sql file. Without it, the list of reports; after `show`, its SQL and usage.",
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable."),
    ] = None,
    output_format: Annotated[
        Format | None, typer.Option("--format", help="How to write the rows. \\[default: by -o's suffix, else table]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write there, whole or not at all; - is stdout."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="S",
            min=0,
            max=2_000_000,  # the server counts in milliseconds, as a 32-bit integer
            help="Let the server end the query after this; 0 for never. \\[default: 60]",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=0, help="Stop after N rows.")] = None,
) -> None:
    """Run a named SQL report, or list the reports there are.

    Reports are .sql files in the configured folders, in ./reports, and built in. They only read.
    """
    folders = _folders(invocation)
    show, name = _meaning(words or [])
    if show or name is None:
        misplaced = given or output_format or output or timeout is not None or limit is not None
        if misplaced:
            raise UsageError(
                "these options are for running a report",
                hint="Leave out `show`." if show else "Name the report to run; `harborctl report` lists them.",
            )
    if name is None:
        _print_list(invocation, folders)
    elif show:
        _print_report(invocation, name, folders)
    else:
        _run(invocation, name, folders, given or [], _target(invocation, output_format, output), timeout, limit)


def _meaning(words: list[str]) -> tuple[bool, str | None]:
    """Whether to show rather than run, and which report."""
    match words:
        case []:
            return False, None
        case ["show"]:
            raise UsageError("show needs the name of a report", hint="`harborctl report` lists them.")
        case ["show", name]:
            return True, name
        case [name]:
            return False, name
        case [_, extra, *_] if "=" in extra:
            raise UsageError(f"{extra} stands alone", hint=f"Set a parameter with -p {extra}.")
        case _:
            raise UsageError("one report at a time", hint="See --help.")


def _folders(invocation: Invocation) -> list[Folder]:
    from harborctl.config import load_config
    from harborctl.reports.find import report_folders

    return report_folders(load_config(invocation.connection.config).reports)


def _target(invocation: Invocation, wanted: Format | None, output: Path | None) -> tuple[Format, Path | None]:
    """The format, and the file if it is not standard output."""
    if invocation.json and wanted not in (None, Format.JSON):
        raise UsageError(f"--json and --format {wanted} contradict each other", hint="Give one of them.")
    file = None if output is None or str(output) == "-" else output
    chosen = Format.JSON if invocation.json else wanted
    if chosen is None:
        chosen = Format.TABLE if file is None else format_of(file)
    return chosen, file


def _run(
    invocation: Invocation,
    name: str,
    folders: list[Folder],
    given: list[str],
    target: tuple[Format, Path | None],
    timeout: float | None,
    limit: int | None,
) -> None:
    from datetime import datetime

    from harborctl.reports.find import find_report
    from harborctl.reports.report import bind

    # Everything that can be wrong without a database is said before there is one.
    found = find_report(name, folders)
    values = bind(found, given, datetime.now().astimezone())
    with _opened(*target) as stream:
        from harborctl.db.engine import open_database
        from harborctl.reports.render import render
        from harborctl.reports.run import RunOptions, run_report

        if timeout is None:
            timeout = invocation.connection.statement_timeout
        options = RunOptions(DEFAULT_TIMEOUT if timeout is None else timeout, limit)
        with (
            open_database(invocation.connection) as database,
            run_report(database.engine, found, values, options) as result,
        ):
            for part in render(result, target[0], _layout(invocation, target[1])):
                stream.write(part.encode())
    if target[1] is not None:
        invocation.note(f"wrote {target[1]}")


@contextmanager
def _opened(output_format: Format, file: Path | None) -> Iterator[IO[bytes]]:
    from harborctl.reports.output import file_output, standard_output

    # Half a JSON document is none, and after a failure another one follows.
    whole = output_format is Format.JSON
    with standard_output(whole=whole) if file is None else file_output(file) as stream:
        yield stream


def _layout(invocation: Invocation, file: Path | None) -> Layout:
    """A terminal's width and colours; a pipe or a file takes lines of any length, unless COLUMNS is set."""
    from harborctl.reports.render import Layout

    if file is not None:
        return Layout()
    console = invocation.out
    narrow = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return Layout(console.width if narrow else None, color=console.is_terminal and console.color_system is not None)


def _print_list(invocation: Invocation, folders: list[Folder]) -> None:
    from harborctl.reports.find import readable_reports
    from harborctl.reports.output import write_text

    reports: list[tuple[Found, Report]] = []
    for found, read in readable_reports(folders):
        if isinstance(read, HarborctlError):
            where = f", line {read.location.line}" if read.location else ""
            invocation.note(f"warning: {found.file}{where}: {read.message}; left out of the list")
        else:
            reports.append((found, read))
    if invocation.json:
        documents = [{"folder": found.folder, **_document(read)} for found, read in reports]
        write_text(json.dumps(documents, ensure_ascii=False, indent=2) + "\n")
        return
    lines = []
    for folder in dict.fromkeys(found.folder for found, _ in reports):
        lines += ["", f"{folder[0].upper()}{folder[1:]}"]
        for found, read in reports:
            if found.folder == folder:
                lines.append(f"  {read.name}: {read.title}")
                lines += [f"    -p {_declaration(parameter)}" for parameter in read.parameters]
    write_text("\n".join(lines[1:]) + "\n")
    invocation.note("Run one with `harborctl report NAME -p name=value`; `harborctl report show NAME` prints its SQL.")


def _print_report(invocation: Invocation, name: str, folders: list[Folder]) -> None:
    from harborctl.reports.find import find_report
    from harborctl.reports.output import write_text

    found = find_report(name, folders)
    if invocation.json:
        write_text(json.dumps({**_document(found), "sql": found.text}, ensure_ascii=False, indent=2) + "\n")
        return
    # As comments, so that what is printed is still a report.
    write_text(f"-- Usage: {found.usage}\n-- From {found.file}\n\n{found.text.rstrip()}\n")


def _declaration(parameter: Parameter) -> str:
    default = "" if parameter.required else f" = {'null' if parameter.default is None else parameter.default}"
    explanation = f"  {parameter.help}" if parameter.help else ""
    return f"{parameter.name} {parameter.type}{default}{explanation}"


def _document(found: Report) -> dict[str, Any]:
    return {
        "name": found.name,
        "file": found.file,
        "title": found.title,
        "description": found.description,
        "usage": found.usage,
        "parameters": [
            {
                "name": parameter.name,
                "type": str(parameter.type),
                "required": parameter.required,
                "default": parameter.default,
                "help": parameter.help,
            }
            for parameter in found.parameters
        ],
    }
