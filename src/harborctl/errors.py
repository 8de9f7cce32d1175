"""Every error that harborctl raises on purpose, and the exit code of each.

::

    HarborctlError            1  failed, nothing committed
    ├── UsageError            2  wrong options, unreadable configuration, a file or table that does not exist
    │   ├── SourceError       2  a source that is missing, a folder, or not of its format
    │   └── TargetError       2  a target that is missing, or that this source cannot go into
    ├── ConnectionFailed      3  no connection, or it was lost
    │   └── TooFewSessions    3  fewer sessions can be had at once than are needed
    ├── StatementFailed       1  the server refused a statement; carries the SQLSTATE
    │   └── AccessDenied      1  … for want of a privilege
    ├── BadRow                1  a row that cannot be stored; says where it stands
    ├── SourceChanged         1  a source that is not any more what it was when the load began
    ├── StockRefused          1  stock that cannot be reserved, released, confirmed or archived as asked
    ├── LockHeld              5  another run holds this target's lock
    └── Interrupted         130  Ctrl-C, SIGTERM or SIGHUP

Anything else that escapes is a bug of ours and is reported as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from harborctl.plain_text import masked
from harborctl.sqlstate import INSUFFICIENT_PRIVILEGE


class ExitCode(IntEnum):
    """What the process answers to its caller; see the README's table."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    REJECTS = 4
    LOCKED = 5
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Location:
    """Where a record stands in its source.

    `line` is the 1-based physical line at which the record starts; for Parquet and Arrow the 1-based row.
    """

    file: str
    line: int


class HarborctlError(Exception):
    """A failure that has one clear message. A password that got into message or hint is not kept.

    Args:
        message: what is wrong, one sentence without a full stop at the end.
        code: the SQLSTATE, or a short name of ours such as `no_such_table`.
        hint: what to do next, one sentence.
        location: the record it is about.
        column: the target column it is about.
        value: the field's text as it stands in the source.

    Attributes:
        further: others of the same load, which were found besides.
        result: the summary of the load that it has ended, a `LoadResult`, for callers from Python.
    """

    exit_code = ExitCode.FAILED
    default_code = "failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        location: Location | None = None,
        column: str | None = None,
        value: str | None = None,
    ) -> None:
        self.message = masked(message)
        super().__init__(self.message)
        self.code = code or self.default_code
        self.hint = masked(hint) if hint else hint
        self.location = location
        self.column = column
        self.value = value
        self.further: tuple[HarborctlError, ...] = ()
        self.result: object | None = None


class UsageError(HarborctlError):
    """The command cannot be carried out as it was given."""

    exit_code = ExitCode.USAGE
    default_code = "usage"


class SourceError(UsageError):
    """A source is missing, cannot be read, or is not what its format says."""

    default_code = "bad_source"


class TargetError(UsageError):
    """The target is missing, or this source cannot go into it."""

    default_code = "bad_target"


class ConnectionFailed(HarborctlError):
    """No connection to the database, or it was lost."""

    exit_code = ExitCode.NO_CONNECTION
    default_code = "no_connection"


class TooFewSessions(ConnectionFailed):
    """Fewer sessions can be had at once than are needed."""

    default_code = "too_few_sessions"


class StatementFailed(HarborctlError):
    """The server refused a statement; `code` is its SQLSTATE."""

    default_code = "statement_failed"


class AccessDenied(StatementFailed):
    """The database user lacks a privilege."""

    default_code = INSUFFICIENT_PRIVILEGE


class BadRow(HarborctlError):
    """A row that cannot be stored in the target."""

    default_code = "bad_row"


class SourceChanged(HarborctlError):
    """A source is not any more what it was when the load began."""

    default_code = "source_changed"


class StockRefused(HarborctlError):
    """Stock cannot be reserved, released, confirmed or archived as asked; `code` says why."""

    default_code = "stock_refused"


class LockHeld(HarborctlError):
    """Another run holds the lock of this target."""

    exit_code = ExitCode.LOCKED
    default_code = "locked"


class Interrupted(HarborctlError):
    """The user or the system asked us to stop."""

    exit_code = ExitCode.INTERRUPTED
    default_code = "interrupted"


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code that `error` ends the process with."""
    if isinstance(error, HarborctlError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED
