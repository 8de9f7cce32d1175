"""How a source goes into a target, settled before the first row moves. Pure data; no server is asked here."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.codecs.codec import Codec, Session, codec
from harborctl.errors import TargetError, UsageError
from harborctl.load.plan.dialect import NullRule, check_forced, has_dialect, null_rule, with_decimal
from harborctl.load.plan.keys import MergePlan, plan_merge
from harborctl.load.plan.source_columns import MOST_NAMES, SourceColumns, listed
from harborctl.load.plan.target_names import TargetNames
from harborctl.model import ExtraColumns, MissingColumns, Mode, SourceFormat, WriterName
from harborctl.nearest import did_you_mean, nearest
from harborctl.sources.batch import REJECT_COLUMNS, WithoutHeader
from harborctl.sqlstate import DUPLICATE_COLUMN, GENERATED_ALWAYS, NOT_NULL_VIOLATION, UNDEFINED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.db.catalog import Target, TargetColumn
    from harborctl.model import ColumnOptions, LoadOptions
    from harborctl.sources.batch import Batch, Columns, Source

# What else than the delimiter given separates the fields of a file whose header is a single name with it.
_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
DELIMITERS = tuple(_SIGNS)


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """One target column that the load fills: from the source column at `position`, or with the constant text.

    `nulls` says which of its fields are NULL, if the source alone does not.
    """

    target: TargetColumn
    position: int | None
    constant: str | None
    codec: Codec
    nulls: NullRule | None = None


class Route(Enum):
    """Where rows are written to."""

    DIRECT = "direct"  # the target
    STAGED = "staged"  # a temporary table, from which one statement takes them into the target


@dataclass(frozen=True, slots=True)
class Plan:
    """One source into one target. Writer and route are settled, by `route`, when the first rows have been read.

    Attributes:
        merge: in the modes that go by a key, how rows meet.
        unnamed: positions of columns that go nowhere, for want of a name, and must be empty.
        lacks: required columns of the target that the source does not fill: it can only update rows.
        copies: whether rows travel by COPY; else by INSERT, which also writer `copy` needs for a view.
        isolates: whether rows are written so that bad ones can be told from the others; else the first one ends it.
    """

    target: Target
    mode: Mode
    columns: tuple[PlannedColumn, ...]
    merge: MergePlan | None = None
    unnamed: tuple[int, ...] = ()
    lacks: tuple[str, ...] = ()
    writer: WriterName = WriterName.AUTO
    route: Route = Route.DIRECT
    copies: bool = False
    isolates: bool = False

    @property
    def positions(self) -> list[int]:
        """Of the columns that are read from the source, where each stands there; one may fill several."""
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
            next(read) if column.position is not None else _repeated(column.constant, batch.records.num_rows)
            for column in self.columns
        ]


def _repeated(constant: str | None, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.string()) if constant is None else pa.repeat(constant, rows)


def make_plan(source: Columns, target: Target, options: LoadOptions, session: Session) -> Plan:
    """Settle columns and key.

    Raises:
        TargetError: columns are unknown, missing, twice there or not loadable, or the mode has no key to go by.
        UsageError: an option names a column that neither side has.
    """
    own = SourceColumns(source, options.columns)
    taken = _from_source if source.named else _by_position
    named_as = TargetNames(target, options)
    read = taken(source, own, named_as, options.columns)
    constants = [(name, _constant_column(named_as, name), value) for name, value in options.columns.constants.items()]
    _refuse_twice(source, own, read.columns, {column.name for _, column, _ in constants})
    names = {column.name for _, column in read.columns} | {column.name for _, column, _ in constants}
    missing = [c.name for c in target.columns if c.required and c.name not in {*names, options.merge.touch}]
    if target.before_triggers:  # they may fill it in
        missing = []
    if read.unknown and options.columns.extra is not ExtraColumns.IGNORE:
        raise _unknown(source, own, target, read.unknown, names, missing)
    # Rows that are there have it already.
    if missing and options.mode not in {Mode.UPSERT, Mode.SYNC}:
        raise _missing(source, target, missing)
    if not read.columns:
        raise TargetError(f"no column of {source.name} goes into {target.label}", code=UNDEFINED_COLUMN)
    ways_out = {column.name: own.way_out(position) for position, column in read.columns}
    ways_out |= {column.name: f"take --set {name}=… away" for name, column, _ in constants}
    columns = [
        _planned(source, own, column, position, options, session)
        for position, column in sorted(read.columns, key=lambda each: (each[0], target.columns.index(each[1])))
    ]
    columns += [
        PlannedColumn(column, None, value, codec(pa.string(), column, session))
        for _, column, value in sorted(constants, key=lambda each: target.columns.index(each[1]))
    ]
    if has_dialect(source):
        check_forced(source, options.dialect, [column.name for _, column in read.columns])
    if options.columns.missing is not MissingColumns.DEFAULT:
        columns += _of_missing(source, target, options, session, names)
    filled = [column.target.name for column in columns]
    merge = plan_merge(target, options.mode, options.merge, filled, ways_out) if options.mode.by_key else None
    return Plan(target, options.mode, tuple(columns), merge, read.unnamed, tuple(missing))


def _of_missing(
    source: Columns, target: Target, options: LoadOptions, session: Session, filled: set[str]
) -> list[PlannedColumn]:
    """NULL for what the source lacks, as the options want it.

    Raises:
        TargetError: they want an error, or NULL cannot stand there.
    """
    wants_null = options.columns.missing is MissingColumns.NULL
    lacking = [
        column
        for column in target.columns
        if column.name not in {*filled, options.merge.touch} and not column.generated and not column.always_identity
    ]
    refused = [column.name for column in lacking if not wants_null or column.not_null]
    if refused:
        raise _missing(source, target, refused)
    return [PlannedColumn(column, None, None, codec(pa.string(), column, session)) for column in lacking]


def settle_columns(sources: Sequence[Source], target: Target, options: LoadOptions) -> None:
    """Give all sources without a header the same columns: what any of them has and the table takes, or options name."""
    without = [each for each in sources if each.format is SourceFormat.JSONL and isinstance(each, WithoutHeader)]
    if not without:
        return
    given = options.columns
    filled = {*given.constants, *(goal for _, goal in given.maps), options.merge.touch}
    own = [column.name for column in target.columns if not column.generated and column.name not in filled]
    named = [*(name for name, _ in given.maps), *given.skipped]
    names = [*own, *named, *(name.removesuffix("?") for name in named)]
    takes_all = given.extra is not ExtraColumns.ERROR
    found = [source.all_names() if takes_all else source.look_for(names) for source in without]
    every = {name.lower(): name for of_one in found for name in of_one} or {name.lower(): name for name in names}
    for source, of_one in zip(without, found, strict=True):
        own_names = {name.lower() for name in of_one}  # in its own spelling
        source.settle([*of_one, *(name for folded, name in every.items() if folded not in own_names)])


def _codec(source: Columns, own: SourceColumns, position: int, column: TargetColumn, session: Session) -> Codec:
    try:
        is_there = position < len(source.schema)
        return codec(source.schema.field(position).type if is_there else pa.string(), column, session)
    except TargetError as error:
        if not error.hint:
            error.hint = f"Write it as text, or {own.way_out(position)}."
        raise


def _planned(
    source: Columns, own: SourceColumns, column: TargetColumn, position: int, options: LoadOptions, session: Session
) -> PlannedColumn:
    way = _codec(source, own, position, column, session)
    if not has_dialect(source):
        return PlannedColumn(column, position, None, way)
    nulls = null_rule(options.dialect, column.name)
    way = with_decimal(replace(way, direct=None) if nulls else way, column, options.dialect.decimal)
    return PlannedColumn(column, position, None, way, nulls)


@dataclass(frozen=True, slots=True)
class _Read:
    """What becomes of a source's columns.

    Attributes:
        columns: positions, and the columns of the target that they fill.
        unknown: positions of columns that the target lacks.
        unnamed: see `Plan`.
    """

    columns: list[tuple[int, TargetColumn]]
    unknown: list[int] = field(default_factory=list)
    unnamed: tuple[int, ...] = ()


def _from_source(source: Columns, own: SourceColumns, named_as: TargetNames, _: ColumnOptions) -> _Read:
    target = named_as.target
    found = _Read([])
    unnamed: list[int] = []
    named = [
        position
        for position, name in enumerate(own.names)
        if name not in REJECT_COLUMNS or target.column(name) or position in own.mapped
    ]
    for position in named:
        name = own.names[position]
        if position in own.mapped:
            found.columns.extend((position, _mapped(own, position, goal, named_as)) for goal in own.mapped[position])
        elif position in own.skipped:
            continue
        elif not name:
            unnamed.append(position)
        elif column := named_as.find(name):
            found.columns.append((position, _loadable(column, target, own.way_out(position))))
        else:
            found.unknown.append(position)
    if [position for position in unnamed if position != named[-1]]:
        raise _nameless(source, own, unnamed)
    return replace(found, unnamed=tuple(unnamed))


def _by_position(source: Columns, own: SourceColumns, named_as: TargetNames, options: ColumnOptions) -> _Read:
    target = named_as.target
    loadable = [c for c in target.columns if not c.generated and c.name not in options.constants]
    found = _Read([])
    # A file that is empty, and has no header either, has no rows of as many columns as there should be.
    for position in range(len(source.schema) or len(loadable)):
        if position in own.mapped:
            found.columns.extend((position, _mapped(own, position, goal, named_as)) for goal in own.mapped[position])
        elif position in own.skipped:
            continue
        elif position < len(loadable):
            found.columns.append((position, loadable[position]))
        elif options.extra is not ExtraColumns.IGNORE:
            raise TargetError(
                f"{source.name} has {len(source.schema)} columns, {target.label} takes {len(loadable)}",
                code=UNDEFINED_COLUMN,
                hint="Name the file's columns with --columns, or leave the ones that are too many out with "
                f"{own.skip_option(range(len(loadable), len(source.schema)))}.",
            )
    return found


def _mapped(own: SourceColumns, position: int, name: str, named_as: TargetNames) -> TargetColumn:
    column = named_as.find(name)
    if column is None:
        raise _no_such_target("--map", name, named_as.target)
    return _loadable(column, named_as.target, own.way_out(position))


def _constant_column(named_as: TargetNames, name: str) -> TargetColumn:
    column = named_as.find(name)
    if column is None:
        raise _no_such_target("--set", name, named_as.target)
    return _loadable(column, named_as.target, f"take --set {name}=… away")


def _loadable(column: TargetColumn, target: Target, way_out: str) -> TargetColumn:
    if column.generated:
        raise TargetError(
            f"column {column.name} of {target.label} is generated by the database",
            code=GENERATED_ALWAYS,
            column=column.name,
            hint=f"{way_out[0].upper()}{way_out[1:]}.",
        )
    return column


# -- what can be wrong, said so that the hint works when it is followed


def _no_such_target(option: str, name: str, target: Target) -> UsageError:
    names = [column.name for column in target.columns if not column.generated]
    return UsageError(
        f"{option} names column {name}, which {target.label} lacks",
        code=UNDEFINED_COLUMN,
        hint=did_you_mean(name, names) or f"Its columns are: {listed(names)}.",
    )


def _nameless(source: Columns, own: SourceColumns, unnamed: Sequence[int]) -> TargetError:
    places = ", ".join(f"#{position + 1}" for position in unnamed)
    several = len(unnamed) > 1
    return TargetError(
        f"{source.name} has {'columns' if several else 'a column'} without a name: {places}",
        code=UNDEFINED_COLUMN,
        hint=f"Leave {'them' if several else 'it'} out with {own.skip_option(unnamed)}, or say with"
        f" {own.map_option(unnamed[0], 'COLUMN')} where {places.split(',')[0]} goes.",
    )


def _refuse_twice(
    source: Columns, own: SourceColumns, columns: Sequence[tuple[int, TargetColumn]], constants: set[str]
) -> None:
    for name in dict.fromkeys(column.name for _, column in columns):
        positions = [position for position, column in columns if column.name == name]
        if name in constants:
            raise TargetError(
                f"column {name} would be filled twice: by --set, and from {source.name}",
                code=DUPLICATE_COLUMN,
                hint=f"Leave the file's column out with {own.skip_option(positions)}, or take --set {name}=… away.",
            )
        if len(positions) > 1:
            places = " and ".join(f"#{position + 1}" for position in positions)
            first = next((position for position in positions if position in own.mapped), positions[0])
            others = [position for position in positions if position != first]
            raise TargetError(
                f"column {name} would be filled twice: by the columns {places} of {source.name}",
                code=DUPLICATE_COLUMN,
                hint=f"Leave out all but one: {own.skip_option(others)} takes {own.reference(first)}.",
            )


def _unknown(
    source: Columns, own: SourceColumns, target: Target, positions: list[int], filled: set[str], missing: list[str]
) -> TargetError:
    """All columns that the target lacks, and what they were probably meant to be."""
    free = [column.name for column in target.columns if column.name not in filled and not column.generated]
    renames: dict[int, str] = {}
    for position in positions:
        if match := nearest(own.names[position], free):
            free.remove(match)
            renames[position] = match
    refuse_other_delimiter(source)
    names = [own.names[position] for position in positions]
    lacking = [name for name in missing if name not in renames.values()]
    also = f", and {source.name} lacks {listed(lacking)}, which {_be(lacking)} required" if lacking else ""
    return TargetError(
        f"{target.label} has no column{_s(names)} {listed(names)}, which {source.name} has{also}",
        code=UNDEFINED_COLUMN,
        column=names[0],
        hint=_ways_out(own, positions, renames),
    )


def refuse_other_delimiter(source: Columns) -> None:
    """See whether the one column of a source has a name that is made of several.

    Raises:
        TargetError: it has.
    """
    name = source.schema.names[0] if len(source.schema) == 1 else ""
    delimiter = next((sign for sign in DELIMITERS if sign in name), None)
    if delimiter is not None:
        spelled = "tab" if delimiter == "\t" else delimiter
        raise TargetError(
            f"{source.name} has a single column, {name}: its fields seem to be separated by {_SIGNS[delimiter]}",
            code=UNDEFINED_COLUMN,
            column=name,
            hint=f"Say --delimiter {shlex.quote(spelled)}, or --detect.",
        )


def _ways_out(own: SourceColumns, unknown: Sequence[int], renames: dict[int, str]) -> str:
    maps = " ".join(own.map_option(position, name) for position, name in renames.items())
    left = [position for position in unknown if position not in renames]
    if not renames:
        them, first = ("it", "it") if len(unknown) == 1 else ("them", own.reference(unknown[0]))
        where = own.map_option(unknown[0], "COLUMN")
        return f"Leave {them} out with {own.skip_option(unknown)}, or say with {where} where {first} goes."
    if len(unknown) == 1:
        match = renames[unknown[0]]
        return f"The nearest is {match}; rename with {maps}, or leave it out with {own.skip_option(unknown)}."
    others = f"; leave the others out with {own.skip_option(left)}" if left else ""
    return f"Rename what was probably meant with {maps}{others}."


def _missing(source: Columns, target: Target, names: list[str]) -> TargetError:
    constant = "a constant" if len(names) == 1 else "constants"
    values = " ".join(f"--set {shlex.quote(f'{name}=VALUE')}" for name in names[:MOST_NAMES])
    return TargetError(
        f"column{_s(names)} {listed(names)} of {target.label} {_be(names)} required, and {source.name} has none of"
        f" {'that name' if len(names) == 1 else 'these names'}",
        code=NOT_NULL_VIOLATION,
        column=names[0],
        hint=f"Name one with --map {shlex.quote(f'SOURCE={names[0]}')}, or give {constant} with {values}.",
    )


def _s(names: Sequence[str]) -> str:
    return "" if len(names) == 1 else "s"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
