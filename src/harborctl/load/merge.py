"""From the staging table into the target: one statement, and an account of what it did.

Rows that equal the table's are dropped before the INSERT: a row that ON CONFLICT leaves alone by its WHERE is still
locked and written to (the fastest of six shapes measured; figures in `docs/`). ON CONFLICT stays, for rows that another
transaction brings in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import insert

from harborctl.db.statistics import analyze

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from harborctl.load.plan import Plan


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the rows that were read; the names are those of the summary."""

    rows_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    duplicates: int = 0


def upsert(connection: Connection, staging: Table, target: Table, plan: Plan, staged: int) -> Account:
    """Insert new rows, update those that differ, leave equal ones untouched; of one key the last row in file order."""
    analyze(connection, staging)
    distinct = _distinct_keys(connection, staging, plan)
    rows: FromClause = staging if distinct == staged else _last_of_each_key(staging, plan)
    changed = _changed(rows, target, plan)
    statement = insert(target).from_select(list(plan.names), changed)
    others = [name for name in plan.names if name not in plan.key]
    if others:
        statement = statement.on_conflict_do_update(
            index_elements=list(plan.key), set_={name: statement.excluded[name] for name in others}
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(plan.key))
    # A row version that this statement inserted has no xmax; one that it updated has its own transaction's there.
    written = statement.returning(literal_column("xmax = 0").label("is_new")).cte("written")
    counted = select(
        func.count().filter(written.c.is_new).label("inserted"),
        func.count().filter(~written.c.is_new).label("updated"),
    )
    inserted, updated = connection.execute(counted).one()
    return Account(
        rows_read=staged,
        inserted=inserted,
        updated=updated,
        unchanged=distinct - inserted - updated,
        duplicates=staged - distinct,
    )


def _distinct_keys(connection: Connection, staging: Table, plan: Plan) -> int:
    keys = select(*(staging.c[name] for name in plan.key)).distinct().subquery()
    return connection.execute(select(func.count()).select_from(keys)).scalar_one()


def _last_of_each_key(staging: Table, plan: Plan) -> FromClause:
    keys = [staging.c[name] for name in plan.key]
    # ctid rises with the order in which rows were staged: nothing is ever deleted from this table.
    order: ColumnElement[Any] = literal_column("ctid").desc()
    return select(*(staging.c[name] for name in plan.names)).distinct(*keys).order_by(*keys, order).subquery("staged")


def _changed(rows: FromClause, target: Table, plan: Plan) -> Select[Any]:
    """The staged rows that are new or differ from the table's row of the same key."""
    same_key = and_(*(rows.c[name] == target.c[name] for name in plan.key))
    is_new = target.c[plan.key[0]].is_(None)
    differs: list[ColumnElement[bool]] = [
        rows.c[name].is_distinct_from(target.c[name]) for name in plan.names if name not in plan.key
    ]
    joined = rows.outerjoin(target, same_key)
    return select(*(rows.c[name] for name in plan.names)).select_from(joined).where(or_(is_new, *differs))
