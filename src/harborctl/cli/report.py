"""`harborctl report`: a name and parameters → one query → its rows in a format."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

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
from harborctl.errors import HarborctlError, UsageError
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from harborctl.reports.find import Folder, Found
    from harborctl.reports.report import Parameter, Report

EXAMPLES = """
[bold]Examples[/bold]

  harborctl report

  harborctl report low_stock -p threshold=10

  harborctl report load_history -p since=2026-11 --format csv -o loads.csv

  harborctl report ./my_query.sql --json

  harborctl report inventory_value --chart value --by category

  harborctl report most_reserved --format html -o reserved.html

  harborctl report show low_stock
"""
_T = TypeVar("_T")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    # --help is an option of our own: it knows the parameters of the report that is named.
    command(app, "report", epilog=EXAMPLES, context_settings={"help_option_names": []})(report)


def _complete_words(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of reports, for the shell."""
    from harborctl.reports.find import readable_reports

    words = context.params.get("words") or []
    folders = _quietly(lambda: _configured(context)) or []
    names = [] if words else [("show", "Print a report's SQL and usage")]
    if words in ([], ["show"]):
        for found, read in readable_reports(folders):
            names.append((found.name, "" if isinstance(read, HarborctlError) else read.title))
    return [name for name in names if name[0].startswith(incomplete)]


def _complete_parameters(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """`name=` for each parameter of the report that is named before it."""
    from harborctl.reports.find import find_report

    words, given = _typed(context)
    if not words:
        return []
    report = _quietly(lambda: find_report(words[0], _configured(context)))
    if report is None:
        return []
    return [
        (f"{parameter.name}=", f"{parameter.type} {parameter.help}".strip())
        for parameter in report.parameters
        if parameter.name.startswith(incomplete) and (parameter.name not in given or parameter.type.is_list)
    ]


def _quietly(read: Callable[[], _T]) -> _T | None:
    """What `read` gives, or nothing: in the middle of a command line nobody wants to read an error."""
    try:
        return read()
    except HarborctlError:
        return None


def _typed(context: typer.Context) -> tuple[list[str], set[str]]:
    """The report, and the parameters that are set, in a command line that stops behind `-p`. Typer's own parser gives
    such a line up and knows nothing of it; the shell's variables have it."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    _, _, rest = line.partition(" report ")
    with_value = {
        name for option in context.command.params if not getattr(option, "is_flag", False) for name in option.opts
    }
    words, given, before = [], set(), ""
    for word in rest.split():
        if before in ("-p", "--param"):
            given.add(word.partition("=")[0])
        elif not word.startswith("-") and before not in with_value:
            words.append(word)
        before = word
    return words, given


def _configured(context: typer.Context) -> list[Folder]:
    from harborctl.config import load_config
    from harborctl.reports.find import report_folders

    config = context.params.get("config")
    return report_folders(load_config(str(config) if config else None).reports)


def report(
    invocation: Invocation,
    *,
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [NAME|FILE]",
            help="A report's name, or a .sql file. Without it, the list of reports; after `show`, its SQL and usage.",
            autocompletion=_complete_words,
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="Set a parameter; repeatable.",
            autocompletion=_complete_parameters,
        ),
    ] = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    chart: ChartOption = None,
    by: ByOption = None,
    wide: WideOption = False,
    explain: ExplainOption = False,
    timeout: TimeoutOption = None,
    limit: LimitOption = None,
    wants_help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this message, or the parameters of the report that is named.")
    ] = False,
) -> None:
    """Run a named SQL report, or list the reports there are.

    Reports are .sql files in the configured folders, in ./reports, and built in. They only read.
    """
    if wants_help and not words:
        typer.echo(context.get_help(), nl=False)
        return
    folders = _folders(invocation)
    show, name = _meaning(words or [])
    if wants_help and name is not None:
        _print_help(invocation, name, folders)
        return
    if show or name is None:
        misplaced = given or output_format or output or chart or by or wide or explain
        if misplaced or timeout is not None or limit is not None:
            raise UsageError(
                "these options are for running a report",
                hint="Leave out `show`." if show else "Name the report to run; `harborctl report` lists them.",
            )
    if name is None:
        _print_list(invocation, folders)
    elif show:
        _print_report(invocation, name, folders)
    else:
        from harborctl.reports.find import find_report

        wanted = wanted_of(invocation, output_format, output, chart, by, wide=wide, explain=explain)
        run(invocation, find_report(name, folders), given or [], wanted, timeout, limit)


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


def _print_help(invocation: Invocation, name: str, folders: list[Folder]) -> None:
    """How to run one report."""
    from harborctl.reports.find import find_report
    from harborctl.reports.output import write_text

    found = find_report(name, folders)
    if invocation.json:
        write_text(as_json(_document(found), indent=2) + "\n")
        return
    lines = [f"Usage: {found.usage} [OPTIONS]", "", found.title]
    if found.description:
        lines.append(found.description)
    if found.parameters:
        width = max(len(parameter.name) + len(str(parameter.type)) for parameter in found.parameters) + 1
        lines += ["", "Parameters, each as -p name=value:"]
    for parameter in found.parameters:
        left = f"{parameter.name} {parameter.type}".ljust(width)
        default = "required" if parameter.required else f"default {parameter.default or 'null'}"
        bounds = f"; {parameter.bounds.sentence}" if parameter.bounds else ""
        lines.append(f"  {left}  {parameter.help}{' ' if parameter.help else ''}[{default}{bounds}]")
    lines += ["", f"From {found.file}. `harborctl report --help` has the options of every report."]
    write_text("\n".join(map(said, lines)) + "\n")


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
        write_text(as_json(documents, indent=2) + "\n")
        return
    lines = []
    for folder in dict.fromkeys(found.folder for found, _ in reports):
        lines += ["", f"{folder[0].upper()}{folder[1:]}"]
        for found, read in reports:
            if found.folder == folder:
                lines.append(f"  {read.name}: {read.title}")
                lines += [f"    -p {_declaration(parameter)}" for parameter in read.parameters]
    write_text("\n".join(map(said, lines[1:])) + "\n")
    invocation.note("Run one with `harborctl report NAME -p name=value`; `harborctl report show NAME` prints its SQL.")


def _print_report(invocation: Invocation, name: str, folders: list[Folder]) -> None:
    from harborctl.reports.find import find_report
    from harborctl.reports.output import write_text

    found = find_report(name, folders)
    if invocation.json:
        write_text(as_json({**_document(found), "sql": found.text}, indent=2) + "\n")
        return
    # As comments, so that what is printed is still a report.
    head = [said(f"-- Usage: {found.usage}"), said(f"-- From {found.file}")]
    write_text("\n".join([*head, "", found.text.rstrip()]) + "\n")


def _declaration(parameter: Parameter) -> str:
    default = "" if parameter.required else f" = {'null' if parameter.default is None else parameter.default}"
    bounds = f" {parameter.bounds}" if parameter.bounds else ""
    explanation = f"  {parameter.help}" if parameter.help else ""
    return f"{parameter.name} {parameter.type}{default}{bounds}{explanation}"


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
                "bounds": None if parameter.bounds is None else str(parameter.bounds),
                "help": parameter.help,
            }
            for parameter in found.parameters
        ],
    }
