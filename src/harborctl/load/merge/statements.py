"""From the staging table into the target by key: one statement that writes, and an account of what it did.

Rows that equal the table's are dropped before the INSERT: a row that ON CONFLICT leaves alone by its WHERE is still
locked and written to. Of six shapes measured this is the fastest (docs/modes.md). ON CONFLICT stays, for rows that
another transaction brings in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    FromClause,
    Function,
    Index,
    Select,
    SelectBase,
    Subquery,
    Text,
    and_,
    any_,
    case,
    cast,
    column,
    delete,
    false,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, array
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex

from harborctl.db.constraints import constraints_of, named
from harborctl.db.failures import translate
from harborctl.db.storage import Storage
from harborctl.errors import StatementFailed
from harborctl.load.write.insert import insert_into
from harborctl.load.write.staging import free_name
from harborctl.model import Account, Mode, OnDuplicate
from harborctl.sqlstate import UNIQUE_VIOLATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.dialects.postgresql import Insert

    from harborctl.db.catalog import TargetColumn
    from harborctl.load.plan.keys import MergePlan
    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.staging import Staging

# Types of which two values that `=` calls equal are the same to every reader. Of floats only the sign of zero is lost.
# Not so those without `=` (json, xml), those whose `=` is about something else (box compares areas), and those whose
# equal values differ in print (numeric 1.0 and 1.00, citext, interval).
EXACT_TYPES = frozenset({
    "bool", "int2", "int4", "int8", "oid", "float4", "float8", "money", "text", "varchar", "bpchar", "name", "bytea",
    "bit", "varbit", "uuid", "inet", "cidr", "macaddr", "macaddr8", "date", "time", "timetz", "timestamp",
    "timestamptz", "int4range", "int8range", "daterange", "tsrange", "tstzrange",
})  # fmt: skip

# Others, whose text is the same under all settings: they are compared by it. The rest go by the bytes that the server
# would send, for with a low extra_float_digits different points look the same. Setting that another way for the time
# of a merge would change what the triggers do.
PRINTED_ALIKE = frozenset({"json", "jsonb", "xml", "numeric"})

# Collations make these slow to sort: an index on them takes up to three times as long as to count them.
SORTED_BY_LANGUAGE = frozenset({"text", "varchar", "bpchar", "citext"})

# So many staged rows are joined soon whatever the planner thinks of them, and each question to the server costs a round
# trip.
FEW_ROWS = 2000

# ON CONFLICT calls the row that did not go in by this name, so that a table of this name could not be told from it.
PSEUDO_TABLE = "excluded"

# How often rows are looked at again because others have changed some meanwhile. Each look writes what the one before
# could not see; nobody can take that away any more.
MOST_LOOKS = 10


class _KeyTaken(Exception):
    """A new row has met a row of its key."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Missing:
    """How many rows of the target the load lacks, and how many it has at all."""

    rows: int
    total: int

    @property
    def found(self) -> int:
        """How many have a row in the load."""
        return self.total - self.rows


class Merge:
    """The statements of one load in a mode that goes by a key.

    Args:
        staging: the rows of the load.
        merge: the plan's, which this mode always has.
    """

    def __init__(self, staging: Staging, plan: Plan, merge: MergePlan) -> None:
        self._staging = staging
        self._plan = plan
        self._merge = merge
        self.plan = merge
        self._names = plan.names
        self._target = plan.target.table()
        # Beside the target's columns.
        taken = self._target.c.keys()
        self._labels = [free_name(f"harborctl_key_{number}", taken) for number in range(len(merge.key.parts))]
        self._has_key = free_name("harborctl_has_key", taken)
        self._is_there = free_name("harborctl_is_there", taken)
        self._place = free_name("harborctl_place", taken)
        self._new = free_name("harborctl_is_new", taken)
        self._staged_place = free_name("harborctl_staged_place", taken)

    def over(self, staging: Staging) -> Merge:
        """The same for other staged rows."""
        return Merge(staging, self._plan, self._merge)

    # -- duplicates

    @property
    def sorts_keys_soon(self) -> bool:
        """Whether an index on the staged keys takes no longer than to count them."""
        if self._staging.is_spread:
            return False  # each of its shards would be indexed in turn
        key = self._merge.key
        columns = [self._plan.target.column(name) for name in key.columns]
        return key.is_plain and not any(column and column.base in SORTED_BY_LANGUAGE for column in columns)

    def index_keys(self, connection: Connection) -> bool:
        """Build a unique index on the staged keys; false, and none, if several rows have one key.

        Where rows are staged in the order of their keys, the planner then makes a merge join: it takes half the time of
        a hash join, and none of its memory.
        """
        index = Index(
            "harborctl_staging_key",
            *self._parts(),
            unique=True,
            postgresql_nulls_not_distinct=not self._merge.key.nulls_distinct,
        )
        try:
            with connection.begin_nested():
                connection.execute(CreateIndex(index))
        except DBAPIError as error:
            if translate(error).code != UNIQUE_VIOLATION:
                raise
            return False
        return True

    def has_duplicates(self, connection: Connection, staged: int) -> bool:
        """Whether several of the `staged` rows have one key."""
        keys = self._keyed_rows().with_only_columns(*self._parts()).distinct().subquery()
        outside = self._unkeyed_rows(connection) if self._merge.key.condition else 0
        return connection.execute(select(func.count()).select_from(keys)).scalar_one() + outside < staged

    def drop_duplicates(self, connection: Connection, which: OnDuplicate) -> int:
        """Leave of each key the row that wins; returns how many others there were."""
        order = self._staging.order
        first = order.asc() if which is OnDuplicate.FIRST else order.desc()
        newest = self._merge.newest_by
        priority = [self._staging.table.c[newest].desc().nulls_last(), first] if newest else [first]
        place = func.row_number().over(partition_by=self._parts(), order_by=priority).label("place")
        # Rows in different shards may have the same ctid.
        row: ColumnElement[Any] = self._staging.order if self._staging.is_spread else literal_column("ctid")
        ranked = self._keyed_rows().with_only_columns(row.label("harborctl_ctid"), place).subquery("ranked")
        losers = select(ranked.c.harborctl_ctid).where(ranked.c.place > 1)
        return connection.execute(delete(self._staging.table).where(row.in_(losers))).rowcount

    def first_duplicate(self, connection: Connection) -> tuple[list[int], str]:
        """The numbers (from 1, in load order) of the rows that share the first key to come twice, and that key."""
        number = self._number.label("number")
        parts = [part.label(label) for part, label in zip(self._parts(), self._labels, strict=True)]
        numbered = (
            select(number, self._condition().label("has_key"), *parts).select_from(self._staging.table).subquery()
        )
        keys = [numbered.c[label] for label in self._labels]
        in_order = numbered.c.number.asc()
        numbers = func.array_agg(aggregate_order_by(numbered.c.number, in_order))
        # Equal values may be printed otherwise (numeric 1.0 and 1.00): the text is that of the second row.
        texts = [func.array_agg(aggregate_order_by(cast(key, Text), in_order)) for key in keys]
        twice = (
            select(numbers, *texts)
            .where(numbered.c.has_key)
            .group_by(*keys)
            .having(func.count() > 1)
            .order_by(func.min(numbered.c.number))
            .limit(1)
        )
        found, *values = connection.execute(twice).one()
        return list(found), ", ".join("NULL" if each[1] is None else each[1] for each in values)

    def first_without_key(self, connection: Connection) -> int | None:
        """The number (from 1, in load order) of the first row of which an expression of the key is NULL."""
        if not self._merge.key.nulls_distinct:
            return None
        number = self._number.label("number")
        lacks = and_(self._condition(), or_(*(part.is_(None) for part in self._parts()))).label("lacks")
        numbered = select(number, lacks).select_from(self._staging.table).subquery()
        first: int | None = connection.execute(select(func.min(numbered.c.number)).where(numbered.c.lacks)).scalar_one()
        return first

    def without_key(self, connection: Connection) -> list[int]:
        """The numbers of the rows of which an expression of the key is NULL, where they bring their numbers."""
        if not self._merge.key.nulls_distinct:
            return []
        lacks = and_(self._condition(), or_(*(part.is_(None) for part in self._parts())))
        rows = select(self._staging.order).select_from(self._staging.table).where(lacks)
        return list(connection.execute(rows).scalars())

    def repeated(self, connection: Connection) -> list[tuple[int, str]]:
        """The numbers and keys of the rows whose key an earlier row has, where they bring their numbers."""
        place = func.row_number().over(partition_by=self._parts(), order_by=self._staging.order.asc()).label("place")
        key = func.concat_ws(", ", *(cast(part, Text) for part in self._parts())).label("key")
        number = self._staging.order.label("number")
        ranked = self._keyed_rows().with_only_columns(number, key, place).subquery("ranked")
        rows = select(ranked.c.number, ranked.c.key).where(ranked.c.place > 1).order_by(ranked.c.number)
        return [(row.number, row.key) for row in connection.execute(rows)]

    # -- the rows of the target that the load lacks

    def count_missing(self, connection: Connection) -> Missing:
        """Compare the keys of the target with those of the load."""
        staged = self._staged()
        both = self._current.outerjoin(staged, self._same_key(staged, self._current))
        counts = select(func.count().filter(staged.c[self._has_key].is_(None)), func.count()).select_from(both)
        return Missing(*connection.execute(counts).one())

    def delete_missing(self, connection: Connection) -> int:
        """Delete the rows of the target that have no row in the load; returns how many the statement deleted."""
        # Without the staged columns: an expression of the key would read them instead of the target's.
        staged = self._staged(())
        same = self._equal([staged.c[label] for label in self._labels], self._target_parts())
        statement = delete(self._target).where(not_(select(true()).select_from(staged).where(same).exists()))
        if self._plan.target.has_children:
            statement = statement.with_hint("ONLY", self._target, "postgresql")
        return connection.execute(statement).rowcount

    def missing(self) -> Select[Any]:
        """The rows of the target that the load lacks: all their columns."""
        staged = self._staged()
        has_row = select(true()).select_from(staged).where(self._same_key(staged, self._current)).exists()
        return select(*(self._current.c[name] for name in self._plan.target.readable_names)).where(not_(has_row))

    # -- writing

    def write(self, connection: Connection, staged: int) -> Account:
        """Insert and update; `staged` rows have different keys.

        What other transactions do meanwhile is seen by a second look: rows that were unchanged and are gone, and rows
        that somebody else has brought in. It is spared if no transaction has ended since the first look.

        Raises:
            StatementFailed: others change the same rows again and again, or a trigger changes the key.
        """
        account, met = Account(staged), ""
        for number in range(MOST_LOOKS):
            try:
                part, seen = self._write_once(connection, staged)
            except _KeyTaken as taken:
                # If somebody has brought that row in, the next look sees it. Else a trigger has made the key.
                if taken.message == met:
                    raise self._key_changed(taken.message) from taken
                met = taken.message
                continue
            account = replace(part, inserted=account.inserted + part.inserted, updated=account.updated + part.updated)
            is_done = account.inserted == staged or (number and not part.inserted + part.updated)
            # What others have written to shards, no snapshot of this server tells.
            tells = self._plan.target.storage is not Storage.SHARDS
            if is_done or (tells and connection.execute(select(_SNAPSHOT)).scalar_one() == seen):
                return self._completed(connection, account)
        raise StatementFailed(
            f"other sessions change rows of {self._plan.target.label} faster than this load can follow",
            code="concurrent_changes",
            hint="Run it again when less is going on; --mode sync keeps other writers waiting.",
        )

    def _completed(self, connection: Connection, account: Account) -> Account:
        """With what became of the rows that were not written; `skipped` are those so far that a trigger has dropped."""
        left_alone = account.rows_read - account.inserted - account.updated - account.stale - account.skipped
        if self._plan.mode is Mode.IGNORE:
            return replace(account, skipped=left_alone + account.skipped)
        if self._merge.update_only:
            new = self._count_new(connection)
            return replace(account, unchanged=left_alone - new, skipped=account.skipped + new)
        return replace(account, unchanged=left_alone)

    def _write_once(self, connection: Connection, staged: int) -> tuple[Account, str]:
        """One look: what is written now, what is `stale`, and as `skipped` what a trigger has dropped; and which
        transactions it saw."""
        target = self._plan.target
        is_plain = target.kind == "r" and not target.before_triggers and target.readable and target.name != PSEUDO_TABLE
        is_many = staged > FEW_ROWS
        if (
            is_many
            and is_plain
            and not self._merge.update_only
            and self.target_is_empty(connection)
            and self._insert_all(connection)
        ):
            return Account(staged, inserted=staged), ""
        if is_plain and self._fills_all and not self._merge.update_only and not self._forgets_written:
            counts: Mapping[Any, Any] = connection.execute(self._fast_statement).mappings().one()
            dropped = 0
        else:
            counts = self._write_apart(connection)
            if counts["moved"]:
                raise self._key_changed(f"{counts['moved']:,} rows were written with another key than the source has")
            dropped = counts["attempted"] - counts["inserted"] - counts["updated"]
        written = {name: counts[name] for name in ("inserted", "updated", "stale")}
        return Account(staged, **written, skipped=dropped), counts["snapshot"]

    def _write_apart(self, connection: Connection) -> Mapping[Any, Any]:
        if self._staging.is_spread:
            return self._write_in_turn(connection)
        if not self._must_not_meet:
            return connection.execute(self._apart_statement).mappings().one()
        try:
            with connection.begin_nested():
                return connection.execute(self._apart_statement).mappings().one()
        except DBAPIError as error:
            failure = translate(error)
            if failure.code != UNIQUE_VIOLATION or self._plan.target.filtered or not self._is_of_key(connection, error):
                raise
            raise _KeyTaken(failure.message) from error

    def _is_of_key(self, connection: Connection, error: DBAPIError) -> bool:
        """Whether it is the key's index that is violated; in each partition it has another name, and in chunks of
        TimescaleDB and shards of Citus one that no catalog of ours tells."""
        if self._plan.target.storage is not Storage.OWN:
            return True
        name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
        violated = named(constraints_of(connection, self._plan.target.oid), name)
        return violated is not None and self._merge.key.name in violated.names

    def _write_in_turn(self, connection: Connection) -> Mapping[Any, Any]:
        """As `_apart_statement`, by two: what one part of a statement hands on to another, Citus brings to the
        coordinator."""
        counting = connection.execution_options(preserve_rowcount=True)
        stale = counting.execute(select(self._stale_count())).scalar_one()
        staged, updated, inserted = self._staged(), 0, 0
        if self._overwritten():
            same = self._equal([staged.c[label] for label in self._labels], self._target_parts())
            assigned: dict[str, Any] = {name: staged.c[name] for name in self._overwritten()}
            if self._merge.touch:
                assigned[self._merge.touch] = func.now()
            statement = update(self._target).values(assigned).where(same, self._differ(staged, self._target))
            updated = counting.execute(statement).rowcount
        if not self._merge.update_only:
            rows = self._compared(staged).where(self._is_new()).with_only_columns(*self._values(staged))
            new = insert_into(self._target, self._plan).from_select(list(self._filled()), rows)
            inserted = counting.execute(new.on_conflict_do_nothing(**self._arbiter())).rowcount
        written = {"inserted": inserted, "updated": updated, "attempted": inserted + updated}
        return {**written, "stale": stale, "moved": 0, "snapshot": ""}

    def _key_changed(self, what: str) -> StatementFailed:
        target = self._plan.target
        triggers = ", ".join(target.before_triggers)
        return StatementFailed(
            f"trigger {triggers} of {target.label} changes the key {self._merge.key.label}, so that rows cannot be told"
            f" apart by it: {what}",
            code="key_changed",
            hint="Give the file the keys that the trigger makes, or let --key name a unique index whose values the"
            " trigger leaves as they are, such as one on lower(email).",
        )

    def target_is_empty(self, connection: Connection) -> bool:
        """Whether no row of the target can meet one of the load's."""
        rows = select(true()).select_from(self._current)
        return not connection.execute(select(rows.exists())).scalar_one()

    def _insert_all(self, connection: Connection) -> bool:
        """Insert all staged rows, or if another transaction has brought one of them in, none.

        A plain INSERT looks into the index once a row, ON CONFLICT twice.
        """
        rows = self._staged()
        statement = insert_into(self._target, self._plan)
        statement = statement.from_select(list(self._filled()), rows.select().with_only_columns(*self._values(rows)))
        try:
            with connection.begin_nested():
                connection.execute(statement)
        except DBAPIError as error:
            if translate(error).code != UNIQUE_VIOLATION:
                raise
            return False
        return True

    @cached_property
    def _fast_statement(self) -> Select[int, int, int, str]:
        staged = self._staged()
        rows = self._compared(staged).with_only_columns(*self._values(staged))
        # A row version that this statement inserted has no xmax; one that it updated has its own transaction's there.
        written = self._insert(rows).returning(_sql("xmax = 0", Boolean()).label("is_new")).cte("written")
        return select(
            func.count().filter(written.c.is_new).label("inserted"),
            func.count().filter(not_(written.c.is_new)).label("updated"),
            self._stale_count().label("stale"),
            _SNAPSHOT,
        ).select_from(written)

    @property
    def _fills_all(self) -> bool:
        """Whether no column of a new row is left to a default. ON CONFLICT works defaults out for rows that are there,
        too: it would take numbers from their sequences, and hold the row against NOT NULL and checks."""
        return {c.name for c in self._plan.target.columns if not c.generated} <= set(self._filled())

    @property
    def _must_not_meet(self) -> bool:
        """Whether a new row that meets one of its key is an error: a trigger may have changed the key, and a policy
        may hide the other row. Elsewhere another session has brought it in, and the next look finds it."""
        return bool(self._plan.target.before_triggers) or self._plan.target.filtered

    @property
    def _forgets_written(self) -> bool:
        """Whether a staged row that has been written is deleted. It would be written once more by a second look: what a
        trigger has changed differs from it, and where the index is not about it, it is always new."""
        return bool(self._plan.target.before_triggers) or self._merge.key.condition is not None

    @cached_property
    def _apart_statement(self) -> Select[Any]:
        """New rows by INSERT, the others by UPDATE: each as the table's triggers and defaults expect it."""
        staged = self._staged(places=True)
        is_new = self._is_new().label(self._new)
        # Apart from the target's own names, which expressions of the key use.
        values = [value.label(f"harborctl_value_{n}") for n, value in enumerate(self._values(staged))]
        keys = [staged.c[label] for label in self._labels]
        place = self._current.c[self._place] if self._has_places else literal_column("NULL").label(self._place)
        own = [staged.c[name] for name in (self._staged_place, self._has_key)]
        changed = self._compared(staged).with_only_columns(*values, *keys, *own, place, is_new).cte("changed")
        written = dict(zip(self._filled(), (changed.c[value.name] for value in values), strict=True))
        new = self._new_rows(changed, written)
        counted: list[ColumnElement[Any]] = [
            _count_of(select(func.count()).select_from(new)).label("inserted"),
            _count_of(select(func.count()).select_from(changed)).label("attempted"),
            self._stale_count().label("stale"),
        ]
        moved = self._moved(new, changed) if self._plan.target.before_triggers else literal_column("0")
        done: SelectBase = self._new_and_written(new, changed)
        if self._overwritten():
            old = self._old_rows(changed, written)
            done = union_all(self._new_and_written(new, changed), select(old.c[self._staged_place]))
            counted.append(_count_of(select(func.count()).select_from(old)).label("updated"))
            if self._plan.target.before_triggers:
                moved = moved + _count_of(select(func.count()).select_from(old).where(not_(old.c.same)))
        else:
            counted.append(literal_column("0").label("updated"))
        counts = select(*counted, moved.label("moved"), _SNAPSHOT)
        if self._forgets_written:
            counts = counts.add_cte(delete(self._staging.table).where(self._staging.order.in_(done)).cte("forgotten"))
        return counts

    @property
    def _has_places(self) -> bool:
        """Whether `ctid` says which row is meant: it may be that of rows in several partitions, and hidden from a user
        who may not read all columns."""
        return self._plan.target.kind == "r" and not self._plan.target.is_spread and self._plan.target.readable

    def _new_rows(self, changed: CTE, written: Mapping[str, ColumnElement[Any]]) -> CTE:
        rows = select(*written.values()).where(changed.c[self._new])
        statement = insert_into(self._target, self._plan).from_select(list(written), rows)
        if not self._must_not_meet:
            statement = statement.on_conflict_do_nothing(**self._arbiter())
        parts = [part.label(label) for part, label in zip(self._target_parts(), self._labels, strict=True)]
        return statement.returning(*parts).cte("inserted")

    def _old_rows(self, changed: CTE, written: Mapping[str, ColumnElement[Any]]) -> CTE:
        keys = [changed.c[label] for label in self._labels]
        same = self._equal(keys, self._target_parts())
        assigned = {n: value for n, value in written.items() if n in self._overwritten() or n == self._merge.touch}
        statement = update(self._target).values(assigned).where(not_(changed.c[self._new]))
        if self._has_places:
            place: ColumnElement[Any] = column("ctid", _selectable=self._target)
            statement = statement.where(place == changed.c[self._place])
        else:
            statement = statement.where(and_(same, self._condition()))
            if newest := self._merge.newest_by:  # others may have written to the row since
                statement = statement.where(not_(_older(written[newest], self._target.c[newest])))
        if self._plan.target.has_children:
            statement = statement.with_hint("ONLY", self._target, "postgresql")
        return statement.returning(same.label("same"), changed.c[self._staged_place]).cte("updated")

    def _new_and_written(self, new: CTE, changed: CTE) -> Select[Any]:
        """Which staged rows were inserted, by their places; without a key of their own all that were to be."""
        ours, theirs = [new.c[label] for label in self._labels], [changed.c[label] for label in self._labels]
        same = select(true()).select_from(new).where(self._equal(theirs, ours)).correlate(changed).exists()
        written = or_(not_(changed.c[self._has_key]), same) if self._merge.key.condition else same
        return select(changed.c[self._staged_place]).where(changed.c[self._new], written)

    def _moved(self, new: CTE, changed: CTE) -> ColumnElement[int]:
        """How many new rows have got a key that no row of the load has."""
        ours, theirs = [new.c[label] for label in self._labels], [changed.c[label] for label in self._labels]
        sent = select(true()).select_from(changed).where(self._equal(theirs, ours)).correlate(new).exists()
        return _count_of(select(func.count()).select_from(new).where(not_(sent)))

    def _count_new(self, connection: Connection) -> int:
        """How many staged rows have no row in the target."""
        staged = self._staged()
        both = staged.outerjoin(self._current, self._same_key(staged, self._current))
        return connection.execute(select(func.count()).select_from(both).where(self._is_new())).scalar_one()

    def first_new(self, connection: Connection) -> int | None:
        """The number (from 1, in load order) of the first row that has no row in the target."""
        first: int | None = connection.execute(select(func.min(self._numbered_new().c.number))).scalar_one()
        return first

    def new_rows(self, connection: Connection) -> list[int]:
        """The numbers of the rows that have no row in the target, where they bring their numbers."""
        new = self._numbered_new()
        return list(connection.execute(select(new.c.own).order_by(new.c.own)).scalars())

    def _numbered_new(self) -> Subquery:
        number = self._number.label("number")
        keys = [part.label(label) for part, label in zip(self._parts(), self._labels, strict=True)]
        numbered = select(number, self._staging.order.label("own"), *keys, self._condition().label(self._has_key))
        staged = numbered.select_from(self._staging.table).subquery("staged")
        both = staged.outerjoin(self._current, self._same_key(staged, self._current))
        return select(staged.c.number, staged.c.own).select_from(both).where(self._is_new()).subquery("new")

    def written_of(self, connection: Connection, numbers: Sequence[int], names: Sequence[str] | None) -> set[int]:
        """Of the rows with these numbers those that are to be written, where they bring their numbers; with `names`
        only those in which one of these columns is new."""
        own = self._staging.order.name
        staged = self._staged((*self._names, own))
        rows = self._compared(staged).with_only_columns(staged.c[own])
        rows = rows.where(staged.c[own] == any_(literal(list(numbers), ARRAY(BigInteger))))
        if names is not None:
            rows = rows.where(or_(self._is_new(), *(self._differs(staged, name) for name in names)))
        return set(connection.execute(rows).scalars())

    def _arbiter(self) -> dict[str, Any]:
        """The index of the key, for ON CONFLICT. Other unique indexes on the same columns must not be taken for it:
        they may call other rows the same."""
        key = self._merge.key
        if key.constraint:
            return {"constraint": key.constraint}
        return {
            "index_elements": [_sql(part.arbiter) for part in key.parts],
            "index_where": _sql(key.condition) if key.condition else None,
        }

    def _insert(self, rows: Select[Any]) -> Insert:
        statement = insert_into(self._target, self._plan)
        statement = statement.from_select(list(self._filled()), rows)
        assigned = {name: statement.excluded[name] for name in self._overwritten()}
        if not assigned:
            return statement.on_conflict_do_nothing(**self._arbiter())
        if self._merge.touch:
            assigned[self._merge.touch] = statement.excluded[self._merge.touch]
        newest = self._merge.newest_by
        wanted = not_(_older(statement.excluded[newest], statement.table.c[newest])) if newest else None
        return statement.on_conflict_do_update(**self._arbiter(), set_=assigned, where=wanted)

    def _values(self, staged: Subquery) -> list[ColumnElement[Any]]:
        """What is written of a staged row."""
        values: list[ColumnElement[Any]] = [staged.c[name] for name in self._names]
        return [*values, func.now().label(self._merge.touch)] if self._merge.touch else values

    def inserted(self) -> Select[Any]:
        """The staged rows that are new: the columns that the load fills."""
        staged = self._staged()
        return self._compared(staged).where(self._is_new()).with_only_columns(*(staged.c[n] for n in self._names))

    def updated(self) -> Select[Any, Any]:
        """The staged rows that differ: the texts of the columns that the load fills, as they are and as they will be.
        Two arrays of bytes, for a SELECT list has 1664 entries at most."""
        staged, current = self._staged(), self._current.c
        old = array([as_shown(current[name] if name in current else null()) for name in self._names])
        new = array([as_shown(staged.c[name]) for name in self._names])
        return self._compared(staged).where(not_(self._is_new())).with_only_columns(old.label("old"), new.label("new"))

    def _compared(self, staged: Subquery) -> Select[Any]:
        """The staged rows that are new or differ from the table's row of the same key, and are not older."""
        both = staged.outerjoin(self._current, self._same_key(staged, self._current))
        differs = self._differ(staged, self._current)
        wanted = and_(not_(self._is_new()), differs) if self._merge.update_only else or_(self._is_new(), differs)
        return select(*staged.c).select_from(both).where(wanted)

    def _differ(self, staged: FromClause, current: FromClause) -> ColumnElement[bool]:
        """Whether the rows differ, and the staged one is not older."""
        differs = or_(false(), *(self._differs(staged, name, current) for name in self._overwritten()))
        newest = self._merge.newest_by
        return and_(differs, not_(_older(staged.c[newest], current.c[newest]))) if newest else differs

    def _stale_count(self) -> ColumnElement[int]:
        newest = self._merge.newest_by
        if not newest:
            return literal_column("0")
        staged = self._staged()
        both = staged.join(self._current, self._same_key(staged, self._current))
        older = _older(staged.c[newest], self._current.c[newest])
        return select(func.count()).select_from(both).where(older).scalar_subquery()

    # -- parts of them

    @property
    def _number(self) -> ColumnElement[int]:
        """Of a staged row: from 1, in load order."""
        order = self._staging.order
        return order if self._staging.is_spread else func.row_number().over(order_by=order.asc())

    def _overwritten(self) -> tuple[str, ...]:
        return () if self._plan.mode is Mode.IGNORE else self._merge.overwritten

    def _filled(self) -> tuple[str, ...]:
        return (*self._names, *([self._merge.touch] if self._merge.touch else []))

    def _parts(self) -> list[ColumnElement[Any]]:
        """The key of a row of the staging table."""
        columns = self._staging.table.c
        return [columns[part.text] if part.is_column else _sql(part.text) for part in self._merge.key.parts]

    def _target_parts(self) -> list[ColumnElement[Any]]:
        """The key of a row of the target."""
        columns = self._target.c
        return [columns[part.text] if part.is_column else _sql(part.text) for part in self._merge.key.parts]

    def _condition(self) -> ColumnElement[bool]:
        return _sql(self._merge.key.condition, Boolean()) if self._merge.key.condition else true()

    def _keyed_rows(self) -> Select[Any]:
        rows: Select[Any] = select(literal_column("1")).select_from(self._staging.table)
        return rows.where(self._condition()) if self._merge.key.condition else rows

    def _unkeyed_rows(self, connection: Connection) -> int:
        rows = select(func.count()).select_from(self._staging.table).where(self._condition().is_not(true()))
        return connection.execute(rows).scalar_one()

    def _staged(self, names: Sequence[str] | None = None, *, places: bool = False) -> Subquery:
        """The rows of the load with their key, which may be made of expressions over them; all columns, or these; and
        their places in the staging table."""
        labelled = [part.label(label) for part, label in zip(self._parts(), self._labels, strict=True)]
        columns = [self._staging.table.c[name] for name in (self._names if names is None else names)]
        rows = select(*columns, *labelled, self._condition().label(self._has_key))
        if places:
            rows = rows.add_columns(self._staging.order.label(self._staged_place))
        return rows.select_from(self._staging.table).subquery("staged")

    @cached_property
    def _current(self) -> Subquery:
        """The rows of the target with their key."""
        labelled = [part.label(label) for part, label in zip(self._target_parts(), self._labels, strict=True)]
        columns: list[ColumnElement[Any]] = [self._target.c[name] for name in self._plan.target.readable_names]
        there: ColumnElement[Any] = literal_column("tableoid") if self._plan.target.readable else true()
        columns += [*labelled, there.label(self._is_there)]
        if self._has_places:
            columns.append(literal_column("ctid").label(self._place))
        rows: Select[Any] = select(*columns).where(self._condition())
        if self._plan.target.has_children:
            rows = rows.with_hint(self._target, "ONLY", "postgresql")
        return rows.subquery("current")

    def _is_new(self) -> ColumnElement[bool]:
        return self._current.c[self._is_there].is_(None)

    def _same_key(self, staged: FromClause, current: FromClause) -> ColumnElement[bool]:
        same = self._equal([staged.c[label] for label in self._labels], [current.c[label] for label in self._labels])
        return and_(same, staged.c[self._has_key]) if self._merge.key.condition else same

    def _equal(self, ours: list[Any], theirs: list[Any]) -> ColumnElement[bool]:
        if self._merge.key.nulls_distinct:
            operators = [part.equality for part in self._merge.key.parts]
            return and_(
                *(one.bool_op(operator)(other) for one, operator, other in zip(ours, operators, theirs, strict=True))
            )
        # NULL equals NULL in an array, and arrays can be hashed: IS NOT DISTINCT FROM would compare all with all.
        return and_(*(array([one]) == array([other]) for one, other in zip(ours, theirs, strict=True)))

    def _differs(self, staged: FromClause, name: str, current: FromClause | None = None) -> ColumnElement[bool]:
        column = self._plan.target.column(name)
        ours, theirs = staged.c[name], (self._current if current is None else current).c[name]
        if column is not None and is_exact(column):
            return ours.is_distinct_from(theirs)
        if column is None or column.send is None or column.base in PRINTED_ALIKE:
            return cast(ours, Text).collate("C").is_distinct_from(cast(theirs, Text).collate("C"))
        schema, send = column.send
        sent: list[ColumnElement[Any]] = [Function(send, each, packagenames=(schema,)) for each in (ours, theirs)]
        return sent[0].is_distinct_from(sent[1])


def _count_of(counts: Select[int]) -> ColumnElement[int]:
    return counts.scalar_subquery()


# Which transactions a statement sees: the same again if no other one that writes has ended in between.
_SNAPSHOT = cast(func.pg_current_snapshot(), Text).label("snapshot")


def as_shown(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A value's text as bytes of UTF-8, or of what else a database in SQL_ASCII may have."""
    encoding = case((func.getdatabaseencoding() == "SQL_ASCII", "SQL_ASCII"), else_="UTF8")
    return func.convert_to(cast(value, Text), encoding)


def is_exact(column: TargetColumn) -> bool:
    """Whether values of the column that are equal by `=` are the same."""
    if column.folding:
        return False
    if column.kind == "e" or (column.base == "numeric" and column.modifier != -1):
        return True
    return column.kind in "br" and column.base.removeprefix("_") in EXACT_TYPES


def _older(ours: ColumnElement[Any], theirs: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether our row is older than theirs, never NULL; a row that does not say when is older than one that does."""
    return and_(theirs.is_not(None), func.coalesce(ours < theirs, true()))


def _sql(expression: str, kind: Any = None) -> ColumnElement[Any]:
    """What the server's catalog says, as part of a statement. It names columns without their table: it may stand only
    where one table is read."""
    return literal_column(expression, kind)
