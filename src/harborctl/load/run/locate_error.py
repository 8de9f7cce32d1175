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
from harborctl.errors import BadRow, HarborctlError, Location, StatementFailed
from harborctl.load.rejects.spool import EnoughRejects
from harborctl.load.run.context import Context, Failure
from harborctl.load.run.summary import summary
from harborctl.load.run.transaction import load_in_transaction
from harborctl.load.write.bad_row import may_be_of_a_row
from harborctl.model import Lock, OnError, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.load.run.context import Attempt
    from harborctl.model import RejectReason

INSUFFICIENT_PRIVILEGE = "42501"

# Where all rows are bad, such as by a trigger that fails, each of them is tried alone: these are enough to name one.
MOST_FOUND = 100


def row_to_blame(attempt: Attempt, cause: HarborctlError) -> BadRow | None:
    """The first row that fails with the code of `cause`, as that error; None if there is none, or nobody can tell."""
    context, options = attempt.context, attempt.context.options
    # Rows of chunks that are committed would be appended twice. In the other modes they are not written again.
    is_half_in = attempt.chunks and not options.mode.by_key
    if options.rejects.rejecting or is_half_in or attempt.read_once or not _may_be_of_a_row(attempt, cause):
        return None
    trial = replace(
        options,
        dry_run=True,
        rejects=replace(options.rejects, on_error=OnError.REJECT, limit=None, expected=None),
        run=replace(options.run, jobs=1, commit_every=None, lock=Lock.FAIL),
    )
    context.progress.stage("looking for the bad row")
    again = replace(Context(context.database, trial, context.progress, most_rejects=MOST_FOUND), spool=context.spool)
    reasons = _reasons(again)
    first = _first(reasons, cause, attempt)
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


def _reasons(trial: Context) -> Sequence[RejectReason]:
    """Why rows are bad. What else ends the trial is not told: what ended the load is what the user must hear of."""
    try:
        ended = load_in_transaction(trial)
    except (DBAPIError, OSError):
        return ()
    if not isinstance(ended, Failure):
        return ended.reject_reasons
    has_found = isinstance(ended.error, EnoughRejects) and ended.attempt.ending
    return summary(ended.attempt, Status.FAILED).reject_reasons if has_found else ()


def _first(reasons: Sequence[RejectReason], cause: HarborctlError, attempt: Attempt) -> RejectReason | None:
    files = [file.name for file in attempt.found]
    same = (reason for reason in reasons if reason.code == cause.code)
    return min(same, key=lambda reason: (files.index(reason.file), reason.line), default=None)


def _may_be_of_a_row(attempt: Attempt, cause: HarborctlError) -> bool:
    if cause.code == INSUFFICIENT_PRIVILEGE:
        return isinstance(attempt.target, Target) and attempt.target.filtered  # perhaps a policy
    is_servers = isinstance(cause, StatementFailed) and len(cause.code) == 5 and cause.code.upper() == cause.code
    return is_servers and cause.location is None and may_be_of_a_row(cause)
