"""`harborctl report`: a name and parameters → one query → its rows in a format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.errors import HarborctlError, UsageError
from harborctl.plain_text import as_json, visible
from harborctl.reports.formats import BINARY, BY_LINES, PICTURES, Format, format_of

if TYPE_CHECKING:
    from harborctl.reports.chart import ChartOptions
    from harborctl.reports.find import Folder, Found
    from harborctl.reports.render import Layout
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
DEFAULT_TIMEOUT = 60.0
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to become of the rows. `file` None is standard output."""

    format: Format
    file: Path | None
    chart: ChartOptions | None
    wide: bool
    explain: bool


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
    output_format: Annotated[
        Format | None, typer.Option("--format", help="How to write the rows. \\[default: by -o's suffix, else table]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write there, whole or not at all; - is stdout."),
    ] = None,
    chart: Annotated[
        str | None,
        typer.Option("--chart", metavar="COL", help="Draw this column: bars, or a line over dates."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="LABEL", help="With --chart: the column that names its values."),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Fold nothing: lines as long as they are. A pager scrolls sideways.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the plan with its timing, instead of the rows.")
    ] = False,
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
        output_format, file = _target(invocation, output_format, output)
        wanted = _Wanted(output_format, file, _chart(output_format, chart, by, explain=explain), wide, explain)
        _run(invocation, name, folders, given or [], wanted, timeout, limit)


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


def _run(
    invocation: Invocation,
    name: str,
    folders: list[Folder],
    given: list[str],
    wanted: _Wanted,
    timeout: float | None,
    limit: int | None,
) -> None:
    from harborctl.reports.find import find_report
    from harborctl.reports.moments import local_now
    from harborctl.reports.report import bind

    # Everything that can be wrong without a database is said before there is one.
    found = find_report(name, folders)
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
def _opened(invocation: Invocation, wanted: _Wanted) -> Iterator[IO[bytes]]:
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


def _layout(invocation: Invocation, wanted: _Wanted, found: Report) -> Layout:
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
    write_text("\n".join(map(visible, lines)) + "\n")


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
    write_text("\n".join(map(visible, lines[1:])) + "\n")
    invocation.note("Run one with `harborctl report NAME -p name=value`; `harborctl report show NAME` prints its SQL.")


def _print_report(invocation: Invocation, name: str, folders: list[Folder]) -> None:
    from harborctl.reports.find import find_report
    from harborctl.reports.output import write_text

    found = find_report(name, folders)
    if invocation.json:
        write_text(as_json({**_document(found), "sql": found.text}, indent=2) + "\n")
        return
    # As comments, so that what is printed is still a report.
    head = [visible(f"-- Usage: {found.usage}"), visible(f"-- From {found.file}")]
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
