"""How a source goes into a target, settled before the first row moves. Pure data; no server is asked here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.db.catalog import nearest
from harborctl.errors import TargetError, UsageError
from harborctl.load.convert import Codec, Session, codec
from harborctl.load.keys import NO_SUCH_COLUMN, MergePlan, plan_merge
from harborctl.sources.batch import REJECT_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.db.catalog import Target, TargetColumn
    from harborctl.model import ColumnOptions, LoadOptions, Mode
    from harborctl.sources.batch import Batch, Columns

NOT_NULL_VIOLATION = "23502"


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """One target column that the load fills: from the source column at `position`, or with the constant text."""

    target: TargetColumn
    position: int | None
    constant: str | None
    codec: Codec


@dataclass(frozen=True, slots=True)
class Plan:
    """One source into one target.

    Attributes:
        merge: in the modes that go by a key, how rows meet.
    """

    target: Target
    mode: Mode
    columns: tuple[PlannedColumn, ...]
    merge: MergePlan | None = None

    @property
    def positions(self) -> list[int]:
        """The source columns to read, in the order in which their batches are expected."""
        return [column.position for column in self.columns if column.position is not None]

    @property
    def direct_types(self) -> list[pa.DataType | None]:
        """For each of `positions` the type that its text may be read as right away."""
        return [column.codec.direct for column in self.columns if column.position is not None]

    @property
    def names(self) -> tuple[str, ...]:
        """The target columns that are filled."""
        return tuple(column.target.name for column in self.columns)

    def arrays(self, batch: Batch) -> list[pa.Array]:
        """The batch's columns and the constants, one array a planned column, still of the source's types."""
        read = iter(batch.records.columns)
        return [
            pa.repeat(column.constant, batch.records.num_rows) if column.position is None else next(read)
            for column in self.columns
        ]


def make_plan(source: Columns, target: Target, options: LoadOptions, session: Session) -> Plan:
    """Settle columns and key.

    Raises:
        TargetError: a column is unknown, missing, twice there or not loadable, or the mode has no key to go by.
        UsageError: an option names a column that neither side has.
    """
    columns = [*_from_source(source, target, options.columns, session), *_constants(target, options.columns, session)]
    columns.sort(key=lambda column: target.columns.index(column.target))
    names = [column.target.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise TargetError(
                f"column {name} would be filled twice", code="42701", hint="Leave one out with --skip-columns."
            )
    for column in target.columns:
        if column.required and column.name not in (*names, options.merge.touch):
            raise TargetError(
                f"column {column.name} of {target.label} is required, and {source.name} has none of that name",
                code=NOT_NULL_VIOLATION,
                column=column.name,
                hint=f"Name one with --map SOURCE={column.name}, or give a constant with --set {column.name}=VALUE.",
            )
    if all(column.position is None for column in columns):
        raise TargetError(f"no column of {source.name} goes into {target.label}", code=NO_SUCH_COLUMN)
    columns.sort(key=lambda column: (column.position is None, column.position))
    names = [column.target.name for column in columns]
    merge = plan_merge(target, options.mode, options.merge, names) if options.mode.by_key else None
    return Plan(target, options.mode, tuple(columns), merge)


def _from_source(source: Columns, target: Target, options: ColumnOptions, session: Session) -> list[PlannedColumn]:
    names = source.schema.names
    for option, given in (("--map", options.renames), ("--skip-columns", options.skipped)):
        for name in given:
            if name not in names:
                raise UsageError(
                    f"{option} names column {name}, which {source.name} lacks",
                    code=NO_SUCH_COLUMN,
                    hint=_suggestion(name, names) or f"Its columns are: {', '.join(names)}.",
                )
    if not source.named:
        return _by_position(source, target, options, session)
    planned = []
    for position, name in enumerate(names):
        # A header that ends in a delimiter names a last column ''; rows end in one, too, and it is always empty.
        if name in options.skipped or (name == "" and position == len(names) - 1):
            continue
        if name in REJECT_COLUMNS and target.column(name) is None:
            continue
        column = _target_column(target, options.renames.get(name, name), source.name)
        planned.append(_planned(column, position, source.schema.field(position).type, target, session))
    return planned


def _by_position(source: Columns, target: Target, options: ColumnOptions, session: Session) -> list[PlannedColumn]:
    loadable = [c for c in target.columns if not c.generated and c.name not in options.constants]
    if len(source.schema) > len(loadable):
        raise TargetError(
            f"{source.name} has {len(source.schema)} columns, {target.label} takes {len(loadable)}",
            code=NO_SUCH_COLUMN,
            hint="Name the file's columns with --columns.",
        )
    return [
        _planned(column, position, source.schema.field(position).type, target, session)
        for position, column in enumerate(loadable[: len(source.schema)])
        if source.schema.field(position).name not in options.skipped
    ]


def _constants(target: Target, options: ColumnOptions, session: Session) -> list[PlannedColumn]:
    planned = []
    for name, constant in options.constants.items():
        column = _loadable(_target_column(target, name, "--set"), target)
        planned.append(PlannedColumn(column, None, constant, codec(pa.string(), column, session)))
    return planned


def _planned(
    column: TargetColumn, position: int, source_type: pa.DataType, target: Target, session: Session
) -> PlannedColumn:
    return PlannedColumn(_loadable(column, target), position, None, codec(source_type, column, session))


def _loadable(column: TargetColumn, target: Target) -> TargetColumn:
    if column.generated:
        raise TargetError(
            f"column {column.name} of {target.label} is generated by the database",
            code="428C9",
            column=column.name,
            hint=f"Leave it out with --skip-columns {column.name}.",
        )
    return column


def _target_column(target: Target, name: str, source: str) -> TargetColumn:
    """By exact name, else ignoring case and spaces around it if that is clear."""
    if exact := target.column(name):
        return exact
    similar = [column for column in target.columns if column.name.lower() == name.strip().lower()]
    if len(similar) == 1:
        return similar[0]
    names = [column.name for column in target.columns]
    raise TargetError(
        f"{target.label} has no column {name}, which {source} has",
        code=NO_SUCH_COLUMN,
        column=name,
        hint=_suggestion(name, names) or f"Leave it out with --skip-columns '{name}', or --map it to another column.",
    )


def _suggestion(name: str, names: Sequence[str]) -> str | None:
    match = nearest(name, names)
    return (
        f"The nearest is {match}; rename with --map '{name}={match}', or leave it out with --skip-columns."
        if match
        else None
    )
