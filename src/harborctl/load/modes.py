"""What each mode does with the rows of a load, between the plan and the commit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import case, delete, func, select
from sqlalchemy.exc import DBAPIError

from harborctl import sqlstate
from harborctl.db.cascades import Along, counts_rows, rows_before, taken_along, taken_since
from harborctl.db.failures import of_shard, translate
from harborctl.db.statistics import analyze, touched
from harborctl.db.storage import Storage
from harborctl.errors import BadRow, HarborctlError, StatementFailed, TargetError
from harborctl.load.merge.key_watch import KEY_HINT
from harborctl.load.merge.preview import emptied, merge_changes
from harborctl.load.merge.statements import FEW_ROWS, Merge, Missing
from harborctl.load.plan.plan import Route
from harborctl.load.rejects.isolate import write_isolated
from harborctl.load.rejects.merge_isolate import LateRejects, NoRejects
from harborctl.load.rejects.waiting import write_waiting
from harborctl.load.session.locks import truncate
from harborctl.load.write.bad_row import Reason, Written
from harborctl.load.write.copy import write_copy
from harborctl.load.write.indexes import built_afterwards
from harborctl.load.write.shards import beside_target, drop_spread
from harborctl.load.write.staged_insert import StagedInsert
from harborctl.load.write.staging import (
    ROW_NUMBER,
    STAGING,
    Staging,
    create_numbered,
    free_name,
    stage_for_merge,
)
from harborctl.load.write.values import write_values
from harborctl.model import Account, Cascaded, Limit, Mode, OnDuplicate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Select, Table

    from harborctl.db.catalog import Target
    from harborctl.load.merge.rows import Rows
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import Rejects
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import Change, LoadOptions, MergeOptions

# A feed that was cut short must not empty the table unnoticed.
MAX_DELETE = Limit(percent=20)

# ANALYZE reads 300 rows for each unit; of a staging table the planner needs the size and little more. 30 000 rows took
# 0.4 s of 1.5 M orders.
STAGING_STATISTICS = 10

# Of 1.5 M orders the join of one merge takes 1.9 s with it, and 2.8 s with the server's default of 4 MB: what does not
# fit goes to temporary files and back. Only one of its nodes needs so much.
MERGE_MEMORY = "64MB"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mode has done.

    Attributes:
        notes: what the user should know of it.
        cascaded: what foreign keys have deleted along.
        changes: of a dry run, some of each kind.
    """

    account: Account
    notes: tuple[str, ...] = ()
    cascaded: tuple[Cascaded, ...] = ()
    changes: tuple[Change, ...] = ()


def truncates(options: LoadOptions) -> bool:
    """Whether the load empties its target by TRUNCATE. A dry run keeps no reader waiting."""
    return options.mode is Mode.REPLACE and not options.merge.no_block and not options.dry_run


# What each mode does to its target. INSERT … ON CONFLICT is not for tables with a rule on UPDATE, even one that is
# turned off, and a dry run of replace has to delete.
_EVENTS = {
    Mode.APPEND: {"INSERT"},
    Mode.IGNORE: {"INSERT", "UPDATE"},
    Mode.UPSERT: {"INSERT", "UPDATE"},
    Mode.SYNC: {"INSERT", "UPDATE", "DELETE"},
    Mode.REPLACE: {"INSERT", "DELETE"},
}


def _check_rules(target: Target, mode: Mode) -> None:
    """COPY passes over rules, and INSERT does not: the outcome would depend on how rows travel."""
    met = [rule for rule in target.rules if rule.event in _EVENTS[mode] and (rule.fires or rule.event == "UPDATE")]
    if met:
        names = ", ".join(f"{rule.name} on {rule.event} to {rule.table}" for rule in met)
        off = [f"ALTER TABLE {r.table} DISABLE RULE {r.name}" for r in met if r.event != "UPDATE"]
        off += [f"DROP RULE {r.name} ON {r.table}" for r in met if r.event == "UPDATE"]
        raise TargetError(
            f"{target.label} cannot be loaded in mode {mode}: rules put other statements in the place of the load's"
            f" ({names})",
            code=sqlstate.FEATURE_NOT_SUPPORTED,
            hint=f"Load another table and INSERT from there; or do without the rule: {'; '.join(off)}",
        )


def check_target(target: Target, mode: Mode) -> None:
    """Refuse what this mode cannot do with this table.

    Raises:
        TargetError: as it says.
    """
    if target.kind == "m":
        raise TargetError(
            f"{target.label} is a materialized view",
            code=sqlstate.WRONG_OBJECT_TYPE,
            hint="Load the tables that it is made from.",
        )
    _check_rules(target, mode)
    if mode is Mode.REPLACE and target.kind not in "rp":
        raise TargetError(
            f"{target.label} is a {'view' if target.kind == 'v' else 'foreign table'}, which mode replace cannot empty",
            code=sqlstate.WRONG_OBJECT_TYPE,
            hint="Name the table behind it.",
        )
    if mode is Mode.REPLACE and target.references:
        pointing = ", ".join(f"{reference.name} of {reference.table}" for reference in target.references)
        raise TargetError(
            f"{target.label} cannot be emptied: foreign keys point at it ({pointing})",
            code=sqlstate.FEATURE_NOT_SUPPORTED,
            hint="Use --mode sync: it deletes only the rows that the source lacks.",
        )
    if mode in {Mode.REPLACE, Mode.SYNC} and target.filtered:
        raise TargetError(
            f"row-level security may hide rows of {target.label} from this user: it cannot become equal to a file",
            code=sqlstate.INSUFFICIENT_PRIVILEGE,
            hint="Use --mode upsert, or a user with BYPASSRLS.",
        )


def carry_out(
    connection: Connection, rows: Rows, options: LoadOptions, rejects: Rejects | None, progress: Progress
) -> Outcome:
    """Put the rows into their target, as their mode says; bad ones into `rejects`, if there is such a place.

    Raises:
        BadRow: a row cannot go in; the transaction must be rolled back.
        StatementFailed, ConnectionFailed: as the server or the socket has it, or the options say.
    """
    if rows.plan.target.storage is not Storage.SHARDS:
        return _carry_out(connection, rows, options, rejects, progress)
    try:
        return _carry_out(connection, rows, options, rejects, progress)
    except (DBAPIError, HarborctlError) as error:
        raise of_shard(error if isinstance(error, HarborctlError) else translate(error)) from error


def _carry_out(
    connection: Connection, rows: Rows, options: LoadOptions, rejects: Rejects | None, progress: Progress
) -> Outcome:
    if rows.plan.mode is Mode.APPEND:
        with _indexes_afterwards(connection, rows, options, emptied=False):
            account = _insert(connection, rows, options, rejects, progress)
        return Outcome(account, changes=tuple(rows.first.changes))
    if rows.plan.mode is Mode.REPLACE:
        return _replace(connection, rows, options, rejects, progress)
    return _merge(connection, rows, options, rejects, progress)


def _write(
    connection: Connection, table: Table, rows: Rows, options: LoadOptions, progress: Progress, *, freeze: bool = False
) -> Written:
    """Put all rows into a table. The first one that is bad ends it."""
    written = Written()
    for plan, batches in zip(rows.plans, rows.streams, strict=True):
        if plan.copies:
            written += write_copy(connection, table, plan, batches, progress, freeze=freeze)
        else:
            written += write_values(connection, table, plan, batches, progress, options.batch_size)
    return written


def _insert(
    connection: Connection,
    rows: Rows,
    options: LoadOptions,
    rejects: Rejects | None,
    progress: Progress,
    *,
    freeze: bool = False,
) -> Account:
    """Put all rows into the target."""
    plan, table = rows.plan, rows.plan.target.table()
    if plan.isolates and plan.route is Route.STAGED:
        return _insert_isolated(connection, rows, options, rejects, progress)
    if plan.isolates:
        isolated = write_isolated(connection, table, rows, options, rejects, progress)
        written = isolated.written + write_waiting(connection, isolated.waiting, options, progress)
    elif plan.route is Route.DIRECT:
        written = _write(connection, table, rows, options, progress, freeze=freeze)
    else:
        staging = stage_for_merge(connection, plan, numbered=not plan.copies)
        staged = _write(connection, staging.table, rows, options, progress)
        return StagedInsert(staging, plan).write(connection, staged.sent)
    # What the server did not insert a trigger has dropped.
    return Account(written.sent, inserted=written.inserted, skipped=written.sent - written.inserted)


def _insert_isolated(
    connection: Connection, rows: Rows, options: LoadOptions, rejects: Rejects | None, progress: Progress
) -> Account:
    """As `_insert` where rows are staged and then judged."""
    plan = rows.plan
    staging, staged = _stage(connection, rows, options, rejects, progress)
    staging = beside_target(connection, plan.target, staging)
    late = LateRejects(
        connection, plan, NoRejects() if rejects is None else rejects, staging, StagedInsert(staging, plan)
    )
    account = late.write()
    drop_spread(connection, staging)
    return replace(account, rows_read=staged - late.count)


def _stage(
    connection: Connection, rows: Rows, options: LoadOptions, rejects: Rejects | None, progress: Progress
) -> tuple[Staging, int]:
    """Put all rows, or where they are isolated all that can be read, into a staging table; how many there are."""
    plan = rows.plan
    if not plan.isolates:
        # Beside the target rows have no order of their own.
        is_numbered = not plan.copies or plan.target.divided_by is not None
        staging = stage_for_merge(connection, plan, numbered=is_numbered)
        return staging, _write(connection, staging.table, rows, options, progress).sent
    number = free_name(ROW_NUMBER, plan.names)
    table = create_numbered(connection, plan, STAGING, number)
    staged = write_isolated(connection, table, rows, options, rejects, progress, number).written.sent
    return Staging(table, table.c[number]), staged


def _indexes_afterwards(
    connection: Connection, rows: Rows, options: LoadOptions, *, emptied: bool
) -> AbstractContextManager[object]:
    """A small load, and one that tries its rows one by one, pays for its indexes row by row."""
    plan = rows.plan
    if not (plan.copies and rows.rebuilds and plan.route is Route.DIRECT) or plan.isolates:
        return nullcontext()
    return built_afterwards(connection, plan.target, options, emptied=emptied)


def _replace(
    connection: Connection, rows: Rows, options: LoadOptions, rejects: Rejects | None, progress: Progress
) -> Outcome:
    target = rows.plan.target
    if truncates(options):
        with _indexes_afterwards(connection, rows, options, emptied=True):
            count = connection.execute(_count(target)).scalar_one()
            truncate(connection, target)
            # Frozen rows need never be written again by VACUUM. The server does that for plain tables only.
            freeze = target.kind == "r" and target.storage is Storage.OWN
            account = _insert(connection, rows, options, rejects, progress, freeze=freeze)
        return Outcome(replace(account, deleted=count), changes=tuple(rows.first.changes))
    notes: tuple[str, ...] = ()
    gone = tuple(emptied(connection, rows.plan)) if options.dry_run else ()
    table = target.table()
    emptying = delete(table)
    if target.has_children:
        emptying = emptying.with_hint("ONLY", table, "postgresql")
    count = connection.execute(emptying).rowcount
    if target.keeps_rows and (kept := connection.execute(_count(target)).scalar_one()):
        notes = (f"{kept:,} of the old rows are still there: a trigger keeps them",)
    account = _insert(connection, rows, options, rejects, progress)
    return Outcome(replace(account, deleted=count), notes, changes=(*gone, *rows.first.changes))


def _count(target: Target) -> Select[int]:
    """How many rows the target itself has."""
    table = target.table()
    rows = select(func.count()).select_from(table)
    return rows.with_hint(table, "ONLY", "postgresql") if target.has_children else rows


def _merge(
    connection: Connection, rows: Rows, options: LoadOptions, rejects: Rejects | None, progress: Progress
) -> Outcome:
    plan = rows.plan
    if plan.merge is None:
        raise AssertionError(f"mode {plan.mode} without a key")
    staging, staged = _stage(connection, rows, options, rejects, progress)
    progress.stage("merge")
    if plan.merge.key.condition is None:  # rows outside of it would be new to each look
        staging = beside_target(connection, plan.target, staging)
    if staged > FEW_ROWS or staging.is_spread:
        _prepare_to_join(connection, staging.table)
    merge = Merge(staging, plan, plan.merge)
    if rejects is not None:
        outcome = _merge_isolated(connection, rows, options, rejects, staging, merge, staged)
    else:
        outcome = _merge_staged(connection, rows, options, merge, staged)
    drop_spread(connection, staging)
    return outcome


def _merge_staged(connection: Connection, rows: Rows, options: LoadOptions, merge: Merge, staged: int) -> Outcome:
    plan = rows.plan
    _refuse_new(connection, rows, options.merge, merge)
    duplicates = _settle_duplicates(connection, rows, options.merge, merge, staged)
    missing = _check_missing(connection, plan, options.merge, merge, staged) if plan.mode is Mode.SYNC else None
    changes = tuple(merge_changes(connection, merge, plan)) if options.dry_run else ()
    deleted = _delete_missing(connection, plan, options.merge, merge, missing, staged) if missing else _Deleted()
    account = merge.write(connection, staged - duplicates)
    account = replace(account, rows_read=staged, duplicates=duplicates, deleted=deleted.rows)
    return Outcome(account, deleted.notes, deleted.cascaded, changes)


def _merge_isolated(
    connection: Connection,
    rows: Rows,
    options: LoadOptions,
    rejects: Rejects,
    staging: Staging,
    merge: Merge,
    staged: int,
) -> Outcome:
    """As `_merge`, with the rows that the target refuses put aside."""
    plan, key = rows.plan, merge.plan.key
    late = LateRejects(connection, plan, rejects, staging, merge)
    if not key.is_plain:
        keyless = Reason(sqlstate.NOT_NULL_VIOLATION, f"the key {key.label} of this row is NULL")
        late.reject(dict.fromkeys(merge.without_key(connection), keyless))
    unkeyed = len(rejects)
    if _fills_no_new_row(plan, options.merge):
        lacking = Reason(sqlstate.NOT_NULL_VIOLATION, _lacking(plan), plan.lacks[0])
        late.reject(dict.fromkeys(merge.new_rows(connection), lacking))
    duplicates = 0
    if _have_duplicates(connection, rows, merge, staged - late.count):
        which = options.merge.on_duplicate
        if which is OnDuplicate.ERROR:
            message = "its key ({}) is also that of an earlier row"
            repeated = merge.repeated(connection)
            late.reject(
                {number: Reason(sqlstate.UNIQUE_VIOLATION, message.format(value)) for number, value in repeated}
            )
        else:
            duplicates = merge.drop_duplicates(connection, which)
    deleted = _Deleted()
    if plan.mode is Mode.SYNC and unkeyed:
        # A row that was put aside has its row in the table, perhaps, and nobody can tell which one it is.
        note = "no rows were deleted: a rejected row may be one of those that the source seems to lack"
        deleted = _Deleted(notes=(note,))
    elif plan.mode is Mode.SYNC:
        missing = _check_missing(connection, plan, options.merge, merge, staged)
        deleted = _delete_missing(connection, plan, options.merge, merge, missing, staged)
    changes = tuple(merge_changes(connection, merge, plan)) if options.dry_run else ()
    account = late.write()
    account = replace(account, rows_read=staged - late.count, duplicates=duplicates, deleted=deleted.rows)
    return Outcome(account, deleted.notes, deleted.cascaded, changes)


def _prepare_to_join(connection: Connection, table: Table) -> None:
    """Tell the planner about the staging table, and allow the memory."""
    name = "default_statistics_target"
    before = connection.execute(select(func.current_setting(name))).scalar_one()
    connection.execute(select(func.set_config(name, str(STAGING_STATISTICS), True)))
    analyze(connection, *filter(None, (table.schema, table.name)))
    allowed = func.current_setting("work_mem")
    memory = case((func.pg_size_bytes(allowed) < func.pg_size_bytes(MERGE_MEMORY), MERGE_MEMORY), else_=allowed)
    connection.execute(select(func.set_config(name, before, True), func.set_config("work_mem", memory, True)))


def _have_duplicates(connection: Connection, rows: Rows, merge: Merge, staged: int) -> bool:
    """Whether several of the `staged` rows have one key; if not, many rows are ready to be joined by it afterwards."""
    is_many = staged > FEW_ROWS
    if rows.watch.rises and (not is_many or merge.target_is_empty(connection)):
        return False
    if is_many and merge.sorts_keys_soon:
        return not merge.index_keys(connection)
    return merge.has_duplicates(connection, staged)


def _fills_no_new_row(plan: Plan, options: MergeOptions) -> bool:
    return bool(plan.lacks) and not options.update_only


def _lacking(plan: Plan) -> str:
    names = ", ".join(plan.lacks)
    several = len(plan.lacks) > 1
    return (
        f"the key of this row is new, and column{'s' if several else ''} {names} of {plan.target.label}, which"
        f" {'are' if several else 'is'} required, cannot be filled from the source"
    )


def _refuse_new(connection: Connection, rows: Rows, options: MergeOptions, merge: Merge) -> None:
    """See that a source which can only update rows has no new ones.

    Raises:
        BadRow: it has.
    """
    if _fills_no_new_row(rows.plan, options) and (number := merge.first_new(connection)) is not None:
        raise BadRow(
            _lacking(rows.plan),
            code=sqlstate.NOT_NULL_VIOLATION,
            location=rows.places.of(number),
            column=rows.plan.lacks[0],
            hint="Leave new rows alone with --update-only, or fill the columns with --map or --set.",
        )


def _settle_duplicates(connection: Connection, rows: Rows, options: MergeOptions, merge: Merge, staged: int) -> int:
    key = merge.plan.key
    if not key.is_plain and (number := merge.first_without_key(connection)) is not None:
        raise BadRow(
            f"the key {key.label} of this row is NULL",
            code=sqlstate.NOT_NULL_VIOLATION,
            location=rows.places.of(number),
            hint=KEY_HINT,
        )
    if not _have_duplicates(connection, rows, merge, staged):
        return 0
    which = options.on_duplicate
    if which is OnDuplicate.ERROR:
        numbers, value = merge.first_duplicate(connection)
        first, second = rows.places.of(numbers[0]), rows.places.of(numbers[1])
        raise BadRow(
            f"its key ({value}) is also that of {first.file}, line {first.line}",
            code=sqlstate.UNIQUE_VIOLATION,
            location=second,
            value=value,
            hint="Let the last or first such row win with --on-duplicate last or first.",
        )
    return merge.drop_duplicates(connection, which)


def _check_missing(connection: Connection, plan: Plan, options: MergeOptions, merge: Merge, staged: int) -> Missing:
    """What sync will delete.

    Raises:
        StatementFailed: more than it may.
    """
    label = plan.target.label
    if staged == 0 and not options.allow_empty:
        raise StatementFailed(
            f"the source has no rows: sync would delete all of {label}",
            code="empty_source",
            hint="If that is meant, say --allow-empty.",
        )
    missing = merge.count_missing(connection)
    limit = _delete_limit(options, staged)
    if limit is not None and not limit.allows(missing.rows, missing.total):
        raise StatementFailed(
            f"sync would delete {missing.rows:,} of {missing.total:,} rows of {label}; the limit is {limit}",
            code="delete_limit",
            hint="Look whether the source is complete; --max-delete N or N% raises the limit.",
        )
    return missing


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What sync has deleted: rows of the target, those that went with them included. See `Outcome`."""

    rows: int = 0
    notes: tuple[str, ...] = ()
    cascaded: tuple[Cascaded, ...] = ()


def _delete_missing(
    connection: Connection, plan: Plan, options: MergeOptions, merge: Merge, missing: Missing, staged: int
) -> _Deleted:
    """Delete what the source lacks.

    Raises:
        StatementFailed: rows that the source has went with them. They would come back without what it does not say.
    """
    if not missing.rows:
        return _Deleted()
    target = plan.target
    before, along = touched(connection, target), taken_along(connection, target)
    asked = merge.delete_missing(connection)
    after = touched(connection, target)
    deleted, updated = after.deleted - before.deleted, after.updated - before.updated
    notes: tuple[str, ...] = ()
    if not deleted == asked == missing.rows or updated:
        notes = _check_lost(connection, target, merge, missing, updated)
    gone = _settle_along(connection, target, options, missing, staged, along)
    # A server with track_counts off counts nothing.
    return _Deleted(max(asked, deleted), (*notes, *gone.notes), gone.cascaded)


def _check_lost(
    connection: Connection, target: Target, merge: Merge, missing: Missing, updated: int
) -> tuple[str, ...]:
    """What there is to say of rows that are still there, or have changed.

    Raises:
        StatementFailed: rows are gone that the source has.
    """
    left = merge.count_missing(connection)
    if (lost := missing.found - left.found) > 0:
        raise StatementFailed(
            f"rows of {target.label} that the source has would be deleted with those that it lacks: {lost:,}",
            code="delete_cascade",
            hint="A foreign key with ON DELETE CASCADE, or a trigger, deletes them. If the source has them refer to"
            " other rows, load it with --mode upsert first.",
        )
    if left.rows:
        return (f"{left.rows:,} rows that the source lacks are still there: a trigger keeps them",)
    if updated:
        return (
            f"the deletion changed {updated:,} rows that stay: by a foreign key with ON DELETE SET NULL, or a trigger",
        )
    return ()


def _settle_along(
    connection: Connection,
    target: Target,
    options: MergeOptions,
    missing: Missing,
    staged: int,
    before: tuple[Along, ...],
) -> _Deleted:
    """See what foreign keys have taken along from other tables.

    Raises:
        StatementFailed: something, and the options do not allow it, or not so much.
    """
    is_remote = target.storage is Storage.SHARDS
    if before and (is_remote or not counts_rows(connection)):
        tables = ", ".join(each.label for each in before)
        what = f"foreign keys may change rows of {tables} when rows of {target.label} are deleted, and this server does"
        if not options.cascade:
            reason = "they are in shards" if is_remote else "track_counts is off"
            raise StatementFailed(
                f"{what} not count them ({reason})", code="cascade", hint="If that is meant, say --cascade."
            )
        return _Deleted(notes=(f"{what} not count them",))
    along = taken_since(connection, target, before)
    cascaded = tuple(Cascaded(each.label, each.deleted) for each in along if each.deleted)
    gone = ", ".join(f"{each.rows:,} rows of {each.table}" for each in cascaded)
    notes = []
    if gone and not options.cascade:
        raise StatementFailed(
            f"sync would delete rows of other tables with those of {target.label}, by foreign keys: {gone}",
            code="cascade",
            hint="If that is meant, say --cascade.",
        )
    if gone:
        notes.append(f"foreign keys deleted with them: {gone}")
    changed = ", ".join(f"{each.updated:,} rows of {each.label}" for each in along if each.updated)
    if changed:
        notes.append(f"the deletion changed {changed}: by a foreign key with ON DELETE SET NULL, or a trigger")
    limit = _delete_limit(options, staged)
    settled = _Deleted(notes=tuple(notes), cascaded=cascaded)
    if not gone or limit is None:
        return settled
    rows = missing.rows + sum(each.rows for each in cascaded)
    total = (
        missing.total + sum(rows_before(connection, each) for each in along if each.deleted) if limit.percent else rows
    )
    if not limit.allows(rows, total):
        raise StatementFailed(
            f"sync would delete {missing.rows:,} rows of {target.label}, and by foreign keys {gone}; the limit is"
            f" {limit}{' of all these tables' if limit.percent else ''}",
            code="delete_limit",
            hint="Look whether the source is complete; --max-delete N or N% raises the limit.",
        )
    return settled


def _delete_limit(options: MergeOptions, staged: int) -> Limit | None:
    """How much may be deleted. A source without any row has been allowed."""
    return options.max_delete or (MAX_DELETE if staged else None)
