"""The Typer application, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from harborctl.cli import count, db, doctor, export, history, inspect, load, migrate, query, report, stock, tables
from harborctl.cli import run as run_job
from harborctl.cli.error_lines import info_of, tell_error
from harborctl.cli.help import Group
from harborctl.cli.invocation import Answer, Summarized, drop, stderr_console
from harborctl.cli.log_lines import LogFormat, wants_json
from harborctl.errors import ExitCode, HarborctlError, Interrupted, UsageError, exit_code_of
from harborctl.model import Status
from harborctl.plain_text import as_json
from harborctl.version import __version__

if TYPE_CHECKING:
    from types import FrameType


# What asks a process to end, beside Ctrl-C: a service manager, and a terminal that is closed.
STOPS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

app = typer.Typer(
    name="harborctl",
    cls=Group,
    help="Load files into PostgreSQL, fast and safely.",
    epilog="A first try that needs no database of your own: harborctl load samples/products.csv --create",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
for module in (load, inspect, run_job, history, report, query, export, count, tables, stock, migrate, doctor, db):
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
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)
    _forget_odd_widths()
    Answer.given = Answer.refused = False
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
        return _fail(ended.error, arguments, cause=ended, has_summary=True, is_told=ended.is_told)
    except HarborctlError as error:
        return _fail(error, arguments, cause=error)
    except typer.TyperException as error:
        message = error.format_message()
        if error.__class__.__name__ == "NoArgsIsHelpError":  # Typer has already built the help text as the message
            typer.echo(message, err=True)
            return ExitCode.USAGE
        return _fail(UsageError(message.rstrip("."), hint="See --help."), arguments, cause=error)
    except Exception as error:  # noqa: BLE001  # the last resort: a bug of ours still ends with a message and a code
        return _fail(_of_stdout(error) or error, arguments, cause=error)
    return int(code or ExitCode.OK)


def _of_stdout(error: Exception) -> HarborctlError | None:
    """What to say where stdout takes no more: what it has refused it still holds, and refuses again."""
    if not isinstance(error, OSError):
        return None
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
            if not Answer.refused:
                return None
    except OSError:
        pass  # it is full
    drop(sys.stdout)
    message = f"cannot write standard output: {error.strerror}"
    return HarborctlError(message, code="cannot_write", hint="Check space and permissions.")


def _forget_odd_widths() -> None:
    """`COLUMNS=`, as scripts set it that care for nothing, and `COLUMNS=0`: no width. Rich would draw nothing in it."""
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isascii() and columns.isdecimal() and int(columns) > 0):
        os.environ.pop("COLUMNS", None)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(
    error: Exception, arguments: list[str], *, cause: BaseException, has_summary: bool = False, is_told: bool = False
) -> int:
    if not is_told:
        log_format = LogFormat.JSON if wants_json(arguments) else LogFormat.TEXT
        verbose = "--verbose" in arguments or "-v" in arguments
        tell_error(stderr_console(), error, log_format, verbose=verbose, cause=cause)
    if "--json" in arguments and not has_summary and not Answer.given:
        status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
        try:
            typer.echo(as_json({"status": status, "error": asdict(info_of(error))}))
        except OSError:
            drop(sys.stdout)
    return exit_code_of(error)
