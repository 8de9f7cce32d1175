"""The Typer application, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from harborctl import __version__
from harborctl.cli import count, db, doctor, history, load, migrate, report, tables
from harborctl.cli import run as run_job
from harborctl.cli.invocation import Summarized, drop, print_on, stderr_console
from harborctl.cli.log_lines import json_line, wants_json
from harborctl.errors import ExitCode, HarborctlError, Interrupted, UsageError, exit_code_of
from harborctl.model import ErrorInfo, Status
from harborctl.plain_text import as_json, masked, said, said_in_lines

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

app = typer.Typer(
    name="harborctl",
    help="Load CSV and Parquet files into PostgreSQL, fast and safely.",
    epilog="A first try that needs no database of your own: harborctl load samples/products.csv -t harbor.products",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
for module in (load, run_job, history, report, count, tables, migrate, doctor, db):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"harborctl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


_command = get_command(app)


def run(arguments: list[str], *, stopped: bool = False) -> int:
    """Run one command and return the process's exit code. Errors are printed here, once. With `stopped` the user has
    pressed Ctrl-C already."""
    signal.signal(signal.SIGTERM, _interrupt)
    _forget_odd_widths()
    try:
        if stopped:
            raise KeyboardInterrupt
        code = _command(arguments, standalone_mode=False)
        if sys.stdout is not None:  # as it is where it was closed before we began
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our stdout went away, as in `| head`: not an error. Nothing more can be written there.
        drop(sys.stdout)
        return ExitCode.OK
    except (typer.Abort, KeyboardInterrupt) as error:
        return _fail(Interrupted("interrupted"), arguments, cause=error)
    except Summarized as ended:
        return _fail(ended.error, arguments, cause=ended, has_summary=True)
    except HarborctlError as error:
        return _fail(error, arguments, cause=error)
    except typer.TyperException as error:
        message = error.format_message()
        if error.__class__.__name__ == "NoArgsIsHelpError":  # Typer has already built the help text as the message
            typer.echo(message, err=True)
            return ExitCode.USAGE
        return _fail(UsageError(message.rstrip("."), hint="See --help."), arguments, cause=error)
    except Exception as error:  # noqa: BLE001  # the last resort: a bug of ours still ends with a message and a code
        return _fail(error, arguments, cause=error)
    return int(code or ExitCode.OK)


def _forget_odd_widths() -> None:
    """`COLUMNS=`, as scripts set it that care for nothing, and `COLUMNS=0`: no width. Rich would draw nothing in it."""
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isascii() and columns.isdecimal() and int(columns) > 0):
        os.environ.pop("COLUMNS", None)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(error: Exception, arguments: list[str], *, cause: BaseException, has_summary: bool = False) -> int:
    console = stderr_console()
    if wants_json(arguments):
        info = ErrorInfo.of(error) if isinstance(error, HarborctlError) else ErrorInfo("bug", masked(repr(error)))
        fields = asdict(info)
        line = json_line("error", fields.pop("message"), **fields)
        print_on(console, line)
    else:
        _print_error(console, error, arguments, cause)
    if "--json" in arguments and not has_summary:
        info = ErrorInfo.of(error) if isinstance(error, HarborctlError) else ErrorInfo("bug", masked(repr(error)))
        status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
        try:
            typer.echo(as_json({"status": status, "error": asdict(info)}))
        except OSError:
            drop(sys.stdout)
    return exit_code_of(error)


def _print_error(console: Console, error: Exception, arguments: list[str], cause: BaseException) -> None:
    if not isinstance(error, HarborctlError) or "--verbose" in arguments or "-v" in arguments:
        import traceback

        print_on(console, said_in_lines("".join(traceback.format_exception(cause))))
    if isinstance(error, HarborctlError):
        also = [f"also: {describe(other)}" for other in error.further]
        lines, hint = [f"error: {describe(error)}", *also], error.hint
    else:
        lines, hint = [f"error: {error!r}"], "This is a bug in harborctl; please report it with the lines above."
    for line in lines:
        print_on(console, said(line))
    if hint:
        print_on(console, said_in_lines(f"hint: {hint}"))


def describe(error: HarborctlError) -> str:
    """The message with the place it is about in front: `orders.csv, line 7, column price: …`."""
    place = []
    if error.location:
        place = [error.location.file, f"line {error.location.line}"]
    if error.column:
        place.append(f"column {error.column}")
    return f"{', '.join(place)}: {error.message}" if place else error.message
