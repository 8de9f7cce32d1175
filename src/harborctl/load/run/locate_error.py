"""Finds the row that ended a load where the server did not say which it was: it judges many rows by one statement when
they are merged, at the end of a COPY (foreign keys, a view's CHECK OPTION) and at COMMIT.

The load is tried once more, with bad rows put aside as `--on-error reject` does it, and rolled back. That takes about
as long as the load; nothing is kept while a load runs only to say where a row stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from harborctl.db.catalog import Target
from harborctl.errors import BadRow, HarborctlError, Location, StatementFailed
from harborctl.load.rejects.spool import EnoughRejects
from harborctl.load.run.loader import Attempt
from harborctl.load.write.bad_row import may_be_of_a_row
from harborctl.model import Lock, OnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.load.modes import Outcome
    from harborctl.model import RejectReason

INSUFFICIENT_PRIVILEGE = "42501"

# Where all rows are bad, such as by a trigger that fails, each of them is tried alone: these are enough to name one.
MOST_FOUND = 100


def row_to_blame(load: Attempt, cause: HarborctlError) -> BadRow | None:
    """The first row that fails with the code of `cause`, as that error; None if there is none, or nobody can tell."""
    again = load.options
    if (
        again.rejects.rejecting
        or load.has_committed
        or not _may_be_of_a_row(load, cause)
        or any(file.path is None for file in load.found)
    ):
        return None
    trial = replace(
        again,
        dry_run=True,
        rejects=replace(again.rejects, on_error=OnError.REJECT, limit=None, expected=None),
        run=replace(again.run, jobs=1, commit_every=None, lock=Lock.FAIL),
    )
    load.progress.stage("looking for the bad row")
    attempt = _Trial(load.database, trial, load.progress)
    try:
        attempt.run()
    except EnoughRejects:
        pass
    except (HarborctlError, DBAPIError, OSError, KeyboardInterrupt):
        return None  # what ended the load is what the user must hear of
    reasons = attempt.ending.summary().get("reject_reasons", ()) if attempt.ending else ()
    first = _first([reason for reason in reasons if reason.code == cause.code], [file.name for file in load.found])
    if first is None:
        return None
    return BadRow(
        first.message,
        code=first.code,
        hint=cause.hint,
        location=Location(first.file, first.line),
        column=first.column,
        value=first.value,
    )


@dataclass(slots=True)
class _Trial(Attempt):
    """A load that ends when it has found some bad rows."""

    def write(self, connection: Connection) -> Outcome:
        """See `Attempt`."""
        if self.rejects is None:
            raise AssertionError("a trial puts rows aside")
        self.rejects.most = MOST_FOUND
        try:
            return Attempt.write(self, connection)
        except EnoughRejects:
            if self.ending:
                self.ending.settle(self.rejects, 0)
            raise


def _may_be_of_a_row(load: Attempt, cause: HarborctlError) -> bool:
    if cause.code == INSUFFICIENT_PRIVILEGE:
        return isinstance(load.target, Target) and load.target.filtered  # perhaps a policy
    is_servers = isinstance(cause, StatementFailed) and len(cause.code) == 5 and cause.code.upper() == cause.code
    return is_servers and cause.location is None and may_be_of_a_row(cause)


def _first(reasons: Sequence[RejectReason], files: Sequence[str]) -> RejectReason | None:
    return min(reasons, key=lambda reason: (files.index(reason.file), reason.line), default=None)
