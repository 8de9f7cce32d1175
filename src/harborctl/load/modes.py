"""What each mode does with the rows of a load, between the plan and the commit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import case, delete, func, select

from harborctl.db.cascades import Along, counts_rows, rows_before, taken_along, taken_since
from harborctl.db.statistics import analyze, touched
from harborctl.errors import BadRow, StatementFailed, TargetError
from harborctl.load.merge.key_watch import KEY_HINT, NOT_NULL_VIOLATION, UNIQUE_VIOLATION
from harborctl.load.merge.preview import emptied, merge_changes
from harborctl.load.merge.statements import FEW_ROWS, Merge, Missing
from harborctl.load.rejects.merge_isolate import LateRejects
from harborctl.load.session.locks import truncate
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.insert import insert_into
from harborctl.load.write.staging import (
    ROW_NUMBER,
    STAGING,
    TEMPORARY_SCHEMA,
    Staging,
    create_numbered,
    free_name,
    stage_for_merge,
)
from harborctl.model import Account, Cascaded, Limit, Mode, OnDuplicate, WriterName

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, Table

    from harborctl.db.catalog import Target
    from harborctl.load.merge.key_watch import KeyWatch, Places
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import Rejects
    from harborctl.load.write.bad_row import Progress, Written
    from harborctl.model import Change, LoadOptions, MergeOptions

# A feed that was cut short must not empty the table unnoticed.
MAX_DELETE = Limit(percent=20)

# ANALYZE reads 300 rows for each unit; of a staging table the planner needs the size and little more. 30 000 rows took
# 0.4 s of 1.5 M orders.
STAGING_STATISTICS = 10

# Of 1.5 M orders the join of one merge takes 1.9 s with it, and 2.8 s with the server's default of 4 MB: what does not
# fit goes to temporary files and back. Only one of its nodes needs so much.
MERGE_MEMORY = "64MB"


class WriteRows(Protocol):
    """Puts all rows of all sources into a table, by the load's writer, and their numbers into the column `number`."""

    def __call__(self, table: Table, *, freeze: bool = False, number: str | None = None) -> Written: ...


@dataclass(slots=True)
class Work:
    """What a mode has to do it with.

    Attributes:
        writer: the load's; never `auto`.
        watch, places: what is noted of the rows while they are written.
        changes: filled in a dry run.
        rejects: where bad rows are put aside; None if the first one ends the load.
        notes: what the user should know of the outcome.
        cascaded: what foreign keys have deleted along.
    """

    connection: Connection
    options: LoadOptions
    plan: Plan
    writer: WriterName
    write: WriteRows
    watch: KeyWatch
    places: Places
    progress: Progress
    changes: list[Change] = field(default_factory=list)
    rejects: Rejects | None = None
    notes: list[str] = field(default_factory=list)
    cascaded: tuple[Cascaded, ...] = ()

    @property
    def careful(self) -> bool:
        """Whether rows are written so that bad ones can be told from the others."""
        return self.rejects is not None or bool(self.options.rejects.checks)


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
            code="0A000",
            hint=f"Load another table and INSERT from there; or do without the rule: {'; '.join(off)}",
        )


def check_target(target: Target, mode: Mode) -> None:
    """Refuse what this mode cannot do with this table.

    Raises:
        TargetError: as it says.
    """
    if target.kind == "m":
        raise TargetError(
            f"{target.label} is a materialized view", code="42809", hint="Load the tables that it is made from."
        )
    _check_rules(target, mode)
    if mode is Mode.REPLACE and target.kind not in "rp":
        raise TargetError(
            f"{target.label} is a {'view' if target.kind == 'v' else 'foreign table'}, which mode replace cannot empty",
            code="42809",
            hint="Name the table behind it.",
        )
    if mode is Mode.REPLACE and target.references:
        pointing = ", ".join(f"{reference.name} of {reference.table}" for reference in target.references)
        raise TargetError(
            f"{target.label} cannot be emptied: foreign keys point at it ({pointing})",
            code="0A000",
            hint="Use --mode sync: it deletes only the rows that the source lacks.",
        )
    if mode in {Mode.REPLACE, Mode.SYNC} and target.filtered:
        raise TargetError(
            f"row-level security may hide rows of {target.label} from this user: it cannot become equal to a file",
            code="42501",
            hint="Use --mode upsert, or a user with BYPASSRLS.",
        )


def carry_out(work: Work) -> Account:
    """Do what the mode says."""
    if work.plan.mode is Mode.APPEND:
        return _append(work)
    if work.plan.mode is Mode.REPLACE:
        return _replace(work)
    return _merge(work)


def _append(work: Work) -> Account:
    return _inserted(work)


def _inserted(work: Work, *, freeze: bool = False) -> Account:
    """Put all rows into the target."""
    target, is_values = work.plan.target, work.writer is WriterName.VALUES
    # COPY does not go through views and row-level security, and where a view's trigger writes it miscounts. INSERT of
    # row after row does not find what a row refers to further down.
    staged = target.refers_to_itself if is_values else target.kind == "v" or target.filtered
    if work.careful or not staged:
        return _direct(work.write(target.table(), freeze=freeze))
    staging = stage_for_merge(work.connection, work.plan, numbered=is_values)
    written = work.write(staging.table)
    rows = select(*(staging.table.c[name] for name in work.plan.names)).order_by(staging.order)
    statement = insert_into(target.table(), work.plan).from_select(list(work.plan.names), rows)
    inserted = work.connection.execution_options(preserve_rowcount=True).execute(statement).rowcount
    return Account(written.sent, inserted=inserted, skipped=written.sent - inserted)


def _direct(written: Written) -> Account:
    # What the server did not insert a trigger has dropped.
    return Account(written.sent, inserted=written.inserted, skipped=written.sent - written.inserted)


def _replace(work: Work) -> Account:
    target, connection = work.plan.target, work.connection
    table = target.table()
    if work.options.dry_run:
        work.changes.extend(emptied(connection, work.plan))
    if truncates(work.options):
        count = connection.execute(_count(target)).scalar_one()
        truncate(connection, target)
        # Frozen rows need never be written again by VACUUM. The server does that for plain tables only.
        account = _inserted(work, freeze=target.kind == "r" and not work.careful)
    else:
        emptying = delete(table)
        if target.has_children:
            emptying = emptying.with_hint("ONLY", table, "postgresql")
        count = connection.execute(emptying).rowcount
        if target.keeps_rows and (kept := connection.execute(_count(target)).scalar_one()):
            work.notes.append(f"{kept:,} of the old rows are still there: a trigger keeps them")
        account = _inserted(work)
    return replace(account, deleted=count)


def _count(target: Target) -> Select[int]:
    """How many rows the target itself has."""
    table = target.table()
    rows = select(func.count()).select_from(table)
    return rows.with_hint(table, "ONLY", "postgresql") if target.has_children else rows


def _merge(work: Work) -> Account:
    connection, plan = work.connection, work.plan
    if plan.merge is None:
        raise AssertionError(f"mode {plan.mode} without a key")
    if work.careful:
        number = free_name(ROW_NUMBER, plan.names)
        table = create_numbered(connection, plan, STAGING, number)
        staging = Staging(table, table.c[number])
        staged = work.write(table, number=number).sent
    else:
        staging = stage_for_merge(connection, plan, numbered=work.writer is WriterName.VALUES)
        staged = work.write(staging.table).sent
    work.progress.stage("merge")
    if staged > FEW_ROWS:
        _prepare_to_join(connection, staging.table)
    merge = Merge(staging, plan, plan.merge)
    if work.rejects is not None:
        return _merge_carefully(work, merge, staging, staged)
    _refuse_new(work, merge)
    duplicates = _settle_duplicates(work, merge, staged)
    deleted = 0
    if plan.mode is Mode.SYNC:
        missing = _check_missing(work, merge, staged)
        if work.options.dry_run:
            work.changes.extend(merge_changes(connection, merge, plan))
        deleted = _delete_missing(work, merge, missing, staged)
    elif work.options.dry_run:
        work.changes.extend(merge_changes(connection, merge, plan))
    account = merge.write(connection, staged - duplicates)
    return replace(account, rows_read=staged, duplicates=duplicates, deleted=deleted)


def _merge_carefully(work: Work, merge: Merge, staging: Staging, staged: int) -> Account:
    """As `_merge`, with the rows that the target refuses put aside."""
    connection, plan, key = work.connection, work.plan, merge.plan
    late = LateRejects(work, staging, merge)
    if not key.key.is_plain:
        for number in merge.without_key(connection):
            late.reject(number, Reason(NOT_NULL_VIOLATION, f"the key {key.key.label} of this row is NULL"))
    unkeyed = len(work.rejects or ())
    for number in merge.new_rows(connection) if _fills_no_new_row(work) else ():
        late.reject(number, Reason(NOT_NULL_VIOLATION, _lacking(plan), plan.lacks[0]))
    duplicates = 0
    if _have_duplicates(work, merge, staged - late.count):
        which = work.options.merge.on_duplicate
        if which is OnDuplicate.ERROR:
            for number, value in merge.repeated(connection):
                message = f"its key ({value}) is also that of an earlier row"
                late.reject(number, Reason(UNIQUE_VIOLATION, message))
        else:
            duplicates = merge.drop_duplicates(connection, which)
    deleted = 0
    if plan.mode is Mode.SYNC and unkeyed:
        # A row that was put aside has its row in the table, perhaps, and nobody can tell which one it is.
        work.notes.append("no rows were deleted: a rejected row may be one of those that the source seems to lack")
    elif plan.mode is Mode.SYNC:
        deleted = _delete_missing(work, merge, _check_missing(work, merge, staged), staged)
    if work.options.dry_run:
        work.changes.extend(merge_changes(connection, merge, plan))
    account = late.write(staging, lambda part, rows: Merge(part, plan, key).write(connection, rows))
    return replace(account, rows_read=staged - late.count, duplicates=duplicates, deleted=deleted)


def _prepare_to_join(connection: Connection, table: Table) -> None:
    """Tell the planner about the staging table, and allow the memory."""
    name = "default_statistics_target"
    before = connection.execute(select(func.current_setting(name))).scalar_one()
    connection.execute(select(func.set_config(name, str(STAGING_STATISTICS), True)))
    analyze(connection, TEMPORARY_SCHEMA, table.name)
    allowed = func.current_setting("work_mem")
    memory = case((func.pg_size_bytes(allowed) < func.pg_size_bytes(MERGE_MEMORY), MERGE_MEMORY), else_=allowed)
    connection.execute(select(func.set_config(name, before, True), func.set_config("work_mem", memory, True)))


def _have_duplicates(work: Work, merge: Merge, staged: int) -> bool:
    """Whether several of the `staged` rows have one key; if not, many rows are ready to be joined by it afterwards."""
    is_many = staged > FEW_ROWS
    if work.watch.rises and (not is_many or merge.target_is_empty(work.connection)):
        return False
    if is_many and merge.sorts_keys_soon:
        return not merge.index_keys(work.connection)
    return merge.has_duplicates(work.connection, staged)


def _fills_no_new_row(work: Work) -> bool:
    return bool(work.plan.lacks) and not work.options.merge.update_only


def _lacking(plan: Plan) -> str:
    names = ", ".join(plan.lacks)
    several = len(plan.lacks) > 1
    return (
        f"the key of this row is new, and column{'s' if several else ''} {names} of {plan.target.label}, which"
        f" {'are' if several else 'is'} required, cannot be filled from the source"
    )


def _refuse_new(work: Work, merge: Merge) -> None:
    """See that a source which can only update rows has no new ones.

    Raises:
        BadRow: it has.
    """
    if _fills_no_new_row(work) and (number := merge.first_new(work.connection)) is not None:
        raise BadRow(
            _lacking(work.plan),
            code=NOT_NULL_VIOLATION,
            location=work.places.of(number),
            column=work.plan.lacks[0],
            hint="Leave new rows alone with --update-only, or fill the columns with --map or --set.",
        )


def _settle_duplicates(work: Work, merge: Merge, staged: int) -> int:
    key = work.plan.merge.key if work.plan.merge else None
    if key and not key.is_plain and (number := merge.first_without_key(work.connection)) is not None:
        raise BadRow(
            f"the key {key.label} of this row is NULL",
            code=NOT_NULL_VIOLATION,
            location=work.places.of(number),
            hint=KEY_HINT,
        )
    if not _have_duplicates(work, merge, staged):
        return 0
    which = work.options.merge.on_duplicate
    if which is OnDuplicate.ERROR:
        numbers, value = merge.first_duplicate(work.connection)
        first, second = work.places.of(numbers[0]), work.places.of(numbers[1])
        raise BadRow(
            f"its key ({value}) is also that of {first.file}, line {first.line}",
            code=UNIQUE_VIOLATION,
            location=second,
            value=value,
            hint="Let the last or first such row win with --on-duplicate last or first.",
        )
    return merge.drop_duplicates(work.connection, which)


def _check_missing(work: Work, merge: Merge, staged: int) -> Missing:
    """What sync will delete.

    Raises:
        StatementFailed: more than it may.
    """
    options = work.options.merge
    label = work.plan.target.label
    if staged == 0 and not options.allow_empty:
        raise StatementFailed(
            f"the source has no rows: sync would delete all of {label}",
            code="empty_source",
            hint="If that is meant, say --allow-empty.",
        )
    missing = merge.count_missing(work.connection)
    limit = _delete_limit(options, staged)
    if limit is not None and not limit.allows(missing.rows, missing.total):
        raise StatementFailed(
            f"sync would delete {missing.rows:,} of {missing.total:,} rows of {label}; the limit is {limit}",
            code="delete_limit",
            hint="Look whether the source is complete; --max-delete N or N% raises the limit.",
        )
    return missing


def _delete_missing(work: Work, merge: Merge, missing: Missing, staged: int) -> int:
    """Delete what the source lacks; returns how many rows are gone, those that went with them included.

    Raises:
        StatementFailed: rows that the source has went with them. They would come back without what it does not say.
    """
    if not missing.rows:
        return 0
    connection, target = work.connection, work.plan.target
    before, along = touched(connection, target), taken_along(connection, target)
    asked = merge.delete_missing(connection)
    after = touched(connection, target)
    deleted, updated = after.deleted - before.deleted, after.updated - before.updated
    _check_lost(work, merge, missing, asked=asked, deleted=deleted, updated=updated)
    _settle_along(work, missing, staged, along)
    return max(asked, deleted)  # a server with track_counts off counts nothing


def _check_lost(work: Work, merge: Merge, missing: Missing, *, asked: int, deleted: int, updated: int) -> None:
    connection, target = work.connection, work.plan.target
    if deleted == asked == missing.rows and not updated:
        return
    left = merge.count_missing(connection)
    if (lost := missing.found - left.found) > 0:
        raise StatementFailed(
            f"rows of {target.label} that the source has would be deleted with those that it lacks: {lost:,}",
            code="delete_cascade",
            hint="A foreign key with ON DELETE CASCADE, or a trigger, deletes them. If the source has them refer to"
            " other rows, load it with --mode upsert first.",
        )
    if left.rows:
        work.notes.append(f"{left.rows:,} rows that the source lacks are still there: a trigger keeps them")
    elif updated:
        work.notes.append(
            f"the deletion changed {updated:,} rows that stay: by a foreign key with ON DELETE SET NULL, or a trigger"
        )


def _settle_along(work: Work, missing: Missing, staged: int, before: tuple[Along, ...]) -> None:
    """See what foreign keys have taken along from other tables.

    Raises:
        StatementFailed: something, and the options do not allow it, or not so much.
    """
    connection, target, options = work.connection, work.plan.target, work.options.merge
    if before and not counts_rows(connection):
        tables = ", ".join(each.label for each in before)
        what = f"foreign keys may change rows of {tables} when rows of {target.label} are deleted, and this server does"
        if not options.cascade:
            raise StatementFailed(
                f"{what} not count them (track_counts is off)", code="cascade", hint="If that is meant, say --cascade."
            )
        work.notes.append(f"{what} not count them")
        return
    along = taken_since(connection, target, before)
    work.cascaded = tuple(Cascaded(each.label, each.deleted) for each in along if each.deleted)
    gone = ", ".join(f"{each.rows:,} rows of {each.table}" for each in work.cascaded)
    if gone and not options.cascade:
        raise StatementFailed(
            f"sync would delete rows of other tables with those of {target.label}, by foreign keys: {gone}",
            code="cascade",
            hint="If that is meant, say --cascade.",
        )
    if gone:
        work.notes.append(f"foreign keys deleted with them: {gone}")
    changed = ", ".join(f"{each.updated:,} rows of {each.label}" for each in along if each.updated)
    if changed:
        work.notes.append(f"the deletion changed {changed}: by a foreign key with ON DELETE SET NULL, or a trigger")
    limit = _delete_limit(options, staged)
    if not gone or limit is None:
        return
    rows = missing.rows + sum(each.rows for each in work.cascaded)
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


def _delete_limit(options: MergeOptions, staged: int) -> Limit | None:
    """How much may be deleted. A source without any row has been allowed."""
    return options.max_delete or (MAX_DELETE if staged else None)
