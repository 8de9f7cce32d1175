"""How an error is told on stderr: once, in lines for people or as one object for collectors of logs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from harborctl.cli.invocation import print_on
from harborctl.cli.log_lines import LogFormat, json_line
from harborctl.errors import HarborctlError
from harborctl.model import ErrorInfo
from harborctl.plain_text import masked, said, said_in_lines

if TYPE_CHECKING:
    from rich.console import Console


def tell_error(
    console: Console, error: Exception, log_format: LogFormat, *, verbose: bool, cause: BaseException, about: str = ""
) -> None:
    """Say what went wrong, where, and what to do; the traceback of `cause` as well where it is asked for, or needed.

    Args:
        about: of several things that the command does, the one that failed.
    """
    if log_format is LogFormat.JSON:
        fields = asdict(info_of(error))
        print_on(console, json_line("error", fields.pop("message"), **fields, name=about or None))
        return
    if verbose or not isinstance(error, HarborctlError):
        import traceback

        print_on(console, said_in_lines("".join(traceback.format_exception(cause))))
    if isinstance(error, HarborctlError):
        also = [f"also: {describe(other)}" for other in error.further]
        lines, hint = [describe(error), *also], error.hint
    else:
        lines, hint = [repr(error)], "This is a bug in harborctl; please report it with the lines above."
    lines[0] = ": ".join(filter(None, ["error", about, lines[0]]))
    for line in lines:
        print_on(console, said(line))
    if hint:
        print_on(console, said_in_lines(f"hint: {hint}"))


def info_of(error: Exception) -> ErrorInfo:
    """The error as documents carry it."""
    return ErrorInfo.of(error) if isinstance(error, HarborctlError) else ErrorInfo("bug", masked(repr(error)))


def describe(error: HarborctlError) -> str:
    """The message with the place it is about in front: `orders.csv, line 7, column price: …`."""
    place = []
    if error.location:
        place = [error.location.file, f"line {error.location.line}"]
    if error.column:
        place.append(f"column {error.column}")
    return f"{', '.join(place)}: {error.message}" if place else error.message
