"""What a dry run shows: a few rows of each kind of change, as the server writes their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, Text, cast, select

from harborctl.load.encode import text_columns
from harborctl.model import Change, Difference, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

    from harborctl.load.merge import Merge
    from harborctl.load.plan import Plan
    from harborctl.sources.batch import Batch

SAMPLE_ROWS = 10


def merge_changes(connection: Connection, merge: Merge, plan: Plan) -> Iterator[Change]:
    """What a merge is about to do."""
    keys = plan.merge.key.columns if plan.merge else ()
    for row in _sample(connection, merge.inserted()):
        values = dict(zip(plan.names, row, strict=True))
        yield Change("inserted", {name: values[name] for name in keys}, _gained(values, keys))
    if plan.mode is Mode.IGNORE or plan.merge is None:
        return
    for row in _sample(connection, merge.updated()):
        fields = {name: Difference(*row[2 * n : 2 * n + 2]) for n, name in enumerate(plan.names)}
        changed = {name: field for name, field in fields.items() if name in plan.merge.overwritten}
        yield Change(
            "updated",
            {name: fields[name].old for name in keys},
            {name: field for name, field in changed.items() if field.old != field.new},
        )
    if plan.mode is Mode.SYNC:
        names = [column.name for column in plan.target.columns]
        yield from _deleted(connection, merge.missing(), names, keys)


def emptied(connection: Connection, plan: Plan) -> Iterator[Change]:
    """Rows that a replace is about to remove."""
    table = plan.target.table()
    yield from _deleted(connection, select(*table.columns), [column.name for column in table.columns], ())


def sent(plan: Plan, batch: Batch) -> Iterator[Change]:
    """The first rows of a batch that goes into the target as it is; what the source lacks is not shown."""
    few = type(batch)(batch.records.slice(0, SAMPLE_ROWS), batch.file, batch.line_of)
    columns = [column.to_pylist() for column in text_columns(plan, few)]
    for row in zip(*columns, strict=True):
        yield Change("inserted", {}, _gained(dict(zip(plan.names, row, strict=True)), ()))


def _sample(connection: Connection, rows: Select[Any]) -> list[Row[Any]]:
    limited = rows.limit(SAMPLE_ROWS).subquery("changed")
    return list(connection.execute(select(*(cast(column, Text) for column in limited.columns))))


def _deleted(connection: Connection, rows: Select[Any], names: list[str], keys: tuple[str, ...]) -> Iterator[Change]:
    for row in _sample(connection, rows):
        values = dict(zip(names, row, strict=True))
        lost = {name: Difference(value, None) for name, value in values.items() if name not in keys}
        yield Change("deleted", {name: values[name] for name in keys}, lost)


def _gained(values: dict[str, str | None], keys: tuple[str, ...]) -> dict[str, Difference]:
    return {name: Difference(None, value) for name, value in values.items() if name not in keys}
