"""What a dry run shows: a few rows of each kind of change, as the server writes their values."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, select

from harborctl.errors import BadRow
from harborctl.load.merge.statements import as_shown
from harborctl.load.write.encode import text_columns
from harborctl.model import Change, Difference, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import ColumnElement, Connection, Row

    from harborctl.load.merge.statements import Merge
    from harborctl.load.plan.plan import Plan
    from harborctl.sources.batch import Batch

SAMPLE_ROWS = 10

# So that values which differ are never shown alike.
PRINTED = {"extra_float_digits": "1", "DateStyle": "ISO", "IntervalStyle": "postgres", "bytea_output": "hex"}


def merge_changes(connection: Connection, merge: Merge, plan: Plan) -> Iterator[Change]:
    """What a merge is about to do."""
    keys = plan.merge.key.columns if plan.merge else ()
    for row in _sample(connection, merge.inserted()):
        values = dict(zip(plan.names, row, strict=True))
        yield Change("inserted", {name: values[name] for name in keys}, _gained(values, keys))
    if plan.mode is Mode.IGNORE or plan.merge is None:
        return
    for old, new in _read(connection, merge.updated().limit(SAMPLE_ROWS)):
        both = zip(_texts(old), _texts(new), strict=True)
        fields = {name: Difference(*values) for name, values in zip(plan.names, both, strict=True)}
        changed = {name: field for name, field in fields.items() if name in plan.merge.overwritten}
        yield Change(
            "updated",
            {name: fields[name].old for name in keys},
            {name: field for name, field in changed.items() if field.old != field.new},
        )
    if plan.mode is Mode.SYNC:
        yield from _deleted(connection, merge.missing(), plan.target.readable_names, keys)


def emptied(connection: Connection, plan: Plan) -> Iterator[Change]:
    """Rows that a replace is about to remove."""
    names = plan.target.readable_names
    yield from _deleted(connection, select(*plan.target.table(names).columns), names, ())


class FirstRows:
    """The first rows of a load that go into the target as they are; what the source lacks is not shown."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def see(self, plan: Plan, batch: Batch) -> None:
        """Look at the next batch, if none before had a row that can be shown."""
        if not self.changes:
            with suppress(BadRow):
                self.changes.extend(_sent(plan, batch))


def _sent(plan: Plan, batch: Batch) -> Iterator[Change]:
    few = type(batch)(batch.records.slice(0, SAMPLE_ROWS), batch.file, batch.line_of)
    columns = [column.to_pylist() for column in text_columns(plan, few)]
    for row in zip(*columns, strict=True):
        yield Change("inserted", {}, _gained(dict(zip(plan.names, row, strict=True)), ()))


def _sample(connection: Connection, rows: Select[Any]) -> list[list[str | None]]:
    limited = rows.limit(SAMPLE_ROWS).subquery("changed")
    values: list[ColumnElement[Any]] = [as_shown(column) for column in limited.columns]
    return [_texts(row) for row in _read(connection, select(*values))]


def _texts(values: Iterable[bytes | None]) -> list[str | None]:
    return [None if value is None else value.decode(errors="backslashreplace") for value in values]


def _read(connection: Connection, rows: Select[*tuple[Any, ...]]) -> list[Row[*tuple[Any, ...]]]:
    before = connection.execute(select(*map(func.current_setting, PRINTED))).one()
    _set(connection, PRINTED)
    found = list(connection.execute(rows))
    _set(connection, dict(zip(PRINTED, before, strict=True)))
    return found


def _set(connection: Connection, settings: dict[str, str]) -> None:
    connection.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))


def _deleted(connection: Connection, rows: Select[Any], names: list[str], keys: tuple[str, ...]) -> Iterator[Change]:
    for row in _sample(connection, rows):
        values = dict(zip(names, row, strict=True))
        lost = {name: Difference(value, None) for name, value in values.items() if name not in keys}
        yield Change("deleted", {name: values[name] for name in keys}, lost)


def _gained(values: dict[str, str | None], keys: tuple[str, ...]) -> dict[str, Difference]:
    return {name: Difference(None, value) for name, value in values.items() if name not in keys}
