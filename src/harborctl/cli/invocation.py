"""What every command is given: its streams, its verbosity and the database that it was pointed at.

`command` adds the options that every command takes, so that each command's function declares only its own.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TextIO, get_type_hints

import typer
from rich.console import Console

from harborctl.cli.help import Command, HelpAllOption, command_with
from harborctl.cli.log_lines import JsonFormatter, LogFormat, TextFormatter, json_line
from harborctl.errors import HarborctlError, Interrupted, UsageError
from harborctl.model import ConnectionOptions, PoolOptions
from harborctl.options import Declared, declared, filled
from harborctl.plain_text import said

COMMON = "Options of every command"

# Also as a path has it, which keeps one slash of two.
DATABASE_URL = re.compile(r"\s*postgres(ql)?(\+\w+)?:/", re.IGNORECASE)

# Characters in a line that nobody watches.
UNFOLDED = 10_000

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=COMMON)]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.", rich_help_panel=COMMON)]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.", rich_help_panel=COMMON)
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Database, as postgresql://user@host/name. Keep a password out of it, where others could see it:"
        " in ~/.pgpass, PGPASSWORD or HARBORCTL_URL.",
        rich_help_panel=COMMON,
    ),
]
ConnectionOption = Annotated[
    str | None,
    typer.Option("--connection", metavar="NAME", help="A connection of harborctl.toml.", rich_help_panel=COMMON),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Read this instead of ./harborctl.toml.", rich_help_panel=COMMON),
]
StatementTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--statement-timeout", metavar="S", min=0, help="Let the server end longer statements.", rich_help_panel=COMMON
    ),
]
LockTimeoutOption = Annotated[
    float | None,
    typer.Option("--lock-timeout", metavar="S", min=0, help="Give up waiting for a lock.", rich_help_panel=COMMON),
]
LogSlowOption = Annotated[
    float,
    typer.Option("--log-slow", metavar="S", min=0, help="Log statements that take longer.", rich_help_panel=COMMON),
]
LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", help="How lines on stderr are written.", rich_help_panel=COMMON)
]


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of one command.

    Attributes:
        out: data for the caller, and nothing else.
        err: progress, notes, warnings and errors.
    """

    connection: ConnectionOptions
    out: Console
    err: Console
    json: bool
    quiet: bool
    verbose: bool
    log_format: LogFormat = LogFormat.TEXT

    def write(self, text: str) -> None:
        """Data on stdout. A reader that goes away early, as `head` does, is no failure of the command."""
        if sys.stdout is None:  # it was closed before we began
            raise OSError(errno.EBADF, "stdout is closed")
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            drop(sys.stdout)
        except OSError:
            Answer.refused = True
            raise
        Answer.given = True

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What is written inside says what has been done: that it cannot be written changes nothing about that."""
        try:
            yield
        except OSError as error:
            drop(sys.stdout)
            self.note(f"warning: the summary cannot be written: {error.strerror}")

    def note(self, message: str) -> None:
        """Say something that a person may want to know, on stderr."""
        if not self.quiet:
            self._say("info", message)

    def event(self, message: str, **fields: object) -> None:
        """Something that only collectors of logs are told: people see it on stdout."""
        if self.log_format is LogFormat.JSON and not self.quiet:
            self._say("info", message, **fields)

    def _say(self, level: str, message: str, **fields: object) -> None:
        text = json_line(level, message, **fields) if self.log_format is LogFormat.JSON else said(message)
        print_on(self.err, text)


class Answer:
    """Whether the command has written its result: what fails after that is no second one. Or whether stdout has refused
    it."""

    given = False
    refused = False


class Summarized(Exception):
    """A command failed with `error`, and has already printed its document on stdout; with `is_told`, the error, too."""

    def __init__(self, error: HarborctlError, *, is_told: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_told = is_told


def command(
    app: typer.Typer, name: str, *, table: type | None = None, usual: Collection[str] = (), examples: str = "",
    **settings: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:  # fmt: skip
    """Register a function `f(invocation, **own_options)` as a command that also takes the common options, and before
    its own those that the dataclass `table` declares. With `usual`, `--help` shows these only, and these `examples`."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = [_parameter(each) for each in declared(table)] if table else []
        own += [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function).parameters.values())[1:]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        pooling = [_parameter(each) for each in declared(PoolOptions, COMMON)]
        common = list(inspect.signature(_invocation, eval_str=True).parameters.values())[1:]
        common_names = {parameter.name for parameter in common}

        @wraps(function)
        def wrapper(**arguments: Any) -> None:
            arguments.pop(_HELP_ALL.name, None)
            for given in ("connection", *(parameter.name for parameter in own)):
                _refuse_url(arguments[given], given)
            pool = filled(PoolOptions, {each.name: arguments.pop(each.name) for each in pooling})
            invocation = _invocation(pool=pool, **{key: arguments.pop(key) for key in common_names})
            try:
                function(invocation, **arguments)
            except KeyboardInterrupt as error:
                # Typer would end with the right code, and without a word.
                raise Interrupted("interrupted") from error

        parameters = [*own, *common, *pooling, *([_HELP_ALL] if usual else [])]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del wrapper.__wrapped__  # Typer would look through it and miss the common options
        kind = command_with(frozenset({*usual, "help", "help_all"}), examples) if usual else Command
        app.command(name, cls=kind, **settings)(wrapper)
        return function

    return register


_HELP_ALL = inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAllOption)


def _parameter(declared: Declared) -> inspect.Parameter:
    """An option of a table as Typer takes it."""
    option = declared.option
    info: Any = typer.Argument(help=option.help, metavar=option.metavar)
    if option.long:
        info = typer.Option(
            *(flag for flag in (option.long, option.short) if flag),
            help=option.help,
            metavar=option.metavar,
            min=option.least,
            rich_help_panel=declared.panel,
        )
    return inspect.Parameter(
        declared.key,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if declared.required else declared.default,
        annotation=Annotated[declared.kind, info],
    )


def _refuse_url(given: object, name: str) -> None:
    """An URL in a wrong place holds a password as often as not, and what it is taken for is shown and written down."""
    for value in given if isinstance(given, list) else [given]:
        if isinstance(value, (str, Path)) and DATABASE_URL.match(str(value)):
            raise UsageError(
                f"an URL of a database stands where {name.replace('_', ' ')} belong{'' if name.endswith('s') else 's'}",
                code="misplaced_url",
                hint="Write --url before it.",
            )


def _invocation(
    *,
    pool: PoolOptions,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    url: UrlOption = None,
    connection: ConnectionOption = None,
    config: ConfigOption = None,
    statement_timeout: StatementTimeoutOption = None,
    lock_timeout: LockTimeoutOption = None,
    log_slow: LogSlowOption = 30.0,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> Invocation:
    # Slow statements are told by the library's logger; here is where they become lines on stderr.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("harborctl").setLevel(logging.ERROR if quiet else logging.WARNING)
    # The driver logs what goes wrong while it cleans up after an error; the error itself says it all.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    return Invocation(
        connection=ConnectionOptions(
            url=url,
            name=connection,
            config=str(config) if config else None,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            log_slow=log_slow,
            pool=pool,
        ),
        out=console(file=sys.stdout),
        err=stderr_console(),
        json=json,
        quiet=quiet,
        verbose=verbose,
        log_format=log_format,
    )


def drop(stream: TextIO | None) -> None:
    """Nothing can be written there any more, and what waits to be written may be lost: Python would try it at the end,
    and end with a code of its own."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_on(err: Console, text: str) -> None:
    """A line on stderr. Where it cannot be written nobody can be told that."""
    try:
        err.print(text, soft_wrap=True)
    except OSError:
        drop(sys.stderr)


def stderr_console() -> Console:
    """A console on stderr. Lines are not folded when nobody watches: a log's line is one line."""
    err = console(stderr=True)
    columns = os.environ.get("COLUMNS", "")
    if not err.is_terminal:
        err.width = (int(columns) if columns.isdecimal() else 0) or UNFOLDED
    return err


def console(**settings: Any) -> Console:
    """Rich's console as all our text has it: brackets and colons of data are no markup, no emoji, and no numbers."""
    return Console(markup=False, emoji=False, highlight=False, **settings)
