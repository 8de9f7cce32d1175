"""Finds the row that ended a load where the server did not say which it was: it judges many rows by one statement when
they are merged, at the end of a COPY (foreign keys, a view's CHECK OPTION) and at COMMIT.

The load is tried once more, with bad rows put aside as `--on-error reject` does it, and rolled back. That takes about
as long as the load; nothing is kept while a load runs only to say where a row stands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from harborctl.db.catalog import Target
from harborctl.errors import BadRow, HarborctlError, StatementFailed
from harborctl.load.rows import may_be_of_a_row
from harborctl.load.run import Attempt
from harborctl.model import Location, Lock, OnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.model import RejectReason

INSUFFICIENT_PRIVILEGE = "42501"


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
    try:
        reasons = Attempt(load.database, trial, load.progress).run().reject_reasons
    except (HarborctlError, DBAPIError, OSError, KeyboardInterrupt):
        return None  # what ended the load is what the user must hear of
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


def _may_be_of_a_row(load: Attempt, cause: HarborctlError) -> bool:
    if cause.code == INSUFFICIENT_PRIVILEGE:
        return isinstance(load.target, Target) and load.target.filtered  # perhaps a policy
    is_servers = isinstance(cause, StatementFailed) and len(cause.code) == 5 and cause.code.upper() == cause.code
    return is_servers and cause.location is None and may_be_of_a_row(cause)


def _first(reasons: Sequence[RejectReason], files: Sequence[str]) -> RejectReason | None:
    return min(reasons, key=lambda reason: (files.index(reason.file), reason.line), default=None)
