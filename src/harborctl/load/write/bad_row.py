"""What both writers share about rows: telling the progress, and blaming one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from harborctl.codecs.codec import Unstorable
from harborctl.errors import BadRow, ConnectionFailed, HarborctlError
from harborctl.sources.batch import Batch

if TYPE_CHECKING:
    from harborctl.load.plan.plan import Plan


class Progress(Protocol):
    """Whoever wants to know how far a load is."""

    def start(self, total_bytes: int | None) -> None:
        """The load begins; `total_bytes` is the size of all sources on disk, if known."""

    def bytes_read(self, count: int) -> None:
        """So many bytes of all sources have been read."""

    def rows_sent(self, count: int) -> None:
        """So many rows have been handed to the server."""

    def stage(self, what: str) -> None:
        """What the load does now, in a word or two."""


class Silent:
    """Tells nobody."""

    def start(self, total_bytes: int | None) -> None:
        """See `Progress`."""

    def bytes_read(self, count: int) -> None:
        """See `Progress`."""

    def rows_sent(self, count: int) -> None:
        """See `Progress`."""

    def stage(self, what: str) -> None:
        """See `Progress`."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer did: rows sent, and rows that the server says went in. A trigger may have dropped the others."""

    sent: int = 0
    inserted: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.sent + other.sent, self.inserted + other.inserted)


# Takes a row of a batch, and why it is bad.
Note = Callable[["Batch", int, "Reason"], None]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row is bad. `column` is the target's."""

    code: str
    message: str
    column: str | None = None
    value: str | None = None

    @classmethod
    def of(cls, error: HarborctlError) -> Reason:
        """What `error` says."""
        return cls(error.code, error.message, error.column, error.value)


# SQLSTATEs, whole or their class, that speak of what the server can do, of the session, its transaction and rights, of
# other sessions, resources and the system. Any other may come from an input function, a constraint or a trigger, and so
# from a row: also a syntax error (of a tsvector), a missing table (of a regclass) and a limit (of JSON's depth).
_NEVER_OF_A_ROW = (
    "08", "0A", "25", "26", "28", "2D", "3B", "3D", "40", "42501", "53", "55", "57", "58", "F0", "XX001", "XX002",
)  # fmt: skip


def may_be_of_a_row(error: HarborctlError) -> bool:
    """Whether a single row may have caused what the server says."""
    return not isinstance(error, ConnectionFailed) and not error.code.startswith(_NEVER_OF_A_ROW)


def bad_row(error: HarborctlError, plan: Plan, batch: Batch, row: int, column: str | None) -> BadRow:
    """`error` with the place of the row that caused it, and the value where the column is known."""
    value = value_of(plan, batch, row, column) if column in plan.names else None
    return BadRow(
        error.message, code=error.code, hint=error.hint, location=batch.location(row), column=column, value=value
    )


def value_of(plan: Plan, batch: Batch, row: int, column: str | None) -> str | None:
    """A field as it stands in the source, or the text form of a typed value, whichever way it was sent."""
    records = batch.as_read() if batch.as_read else batch.records
    one = Batch(records.slice(row, 1), batch.file, batch.line_of)
    position = plan.names.index(column or "")
    try:
        codec = plan.columns[position].codec
        value: str | None = (codec.written or codec.text)(plan.arrays(one)[position])[0].as_py()
    except Unstorable as error:
        return error.value  # text that is not UTF-8 goes to the server unseen
    return value
