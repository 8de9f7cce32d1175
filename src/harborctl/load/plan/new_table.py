"""The table that is made for a source: names and types of its columns. Pure data; no server is asked here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import TargetError, UsageError
from harborctl.inference.columns import TextColumn
from harborctl.inference.kinds import Kind, looks_like
from harborctl.load.plan.dialect import has_dialect, null_rule, pointed
from harborctl.load.plan.source_columns import SourceColumns, listed, snake
from harborctl.model import Names
from harborctl.nearest import did_you_mean
from harborctl.sqlstate import DUPLICATE_COLUMN, FEATURE_NOT_SUPPORTED, TOO_MANY_COLUMNS, UNDEFINED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harborctl.inference.scan import Seen
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Columns

    Rule = Callable[[pa.Array], pa.Array]

# NAMEDATALEN - 1 and MaxHeapAttributeNumber: https://www.postgresql.org/docs/current/limits.html
MOST_NAME_BYTES = 63
MOST_COLUMNS = 1600

# Kinds that a name of a column hardly has, and a value in the first row has often.
_VALUES = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.DOUBLE, Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.UUID})


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A column to be.

    Attributes:
        type: in SQL, as it was inferred or as the user wrote it.
        given: the user has named the type.
    """

    name: str
    type: str
    given: bool = False


def new_columns(source: Seen, options: LoadOptions, written: Mapping[str, str]) -> list[NewColumn]:
    """The columns of the table for this source, in its order, then those of --set and --touch.

    Args:
        written: the types of --type as the server writes them.

    Raises:
        TargetError: names are missing, stand twice, or are too long; the header looks like data.
        UsageError: an option names a column that is not there.
    """
    if source.named and not options.dialect.columns:
        _refuse_data_as_header(source)
    named = _named(source, options)
    constants, touch = options.columns.constants, options.merge.touch
    own = [name for _, name in named]
    also = [*constants, *([touch] if touch and touch not in own else ())]
    given = _given_types(written, [*own, *also])
    types = [*(source.inferred[place].type for place, _ in named), *map(_type_of, constants.values()), "timestamptz"]
    columns = [
        NewColumn(name, given.get(name, kind), name in given) for name, kind in zip([*own, *also], types, strict=False)
    ]
    if not own:
        raise TargetError(f"{source.name} has no columns to make a table of", code=UNDEFINED_COLUMN)
    if len(columns) > MOST_COLUMNS:
        raise TargetError(
            f"{source.name} has {len(columns):,} columns, and a table can have {MOST_COLUMNS:,}",
            code=TOO_MANY_COLUMNS,
            hint="Leave some of them out with --skip-columns.",
        )
    return columns


def field_rules(options: LoadOptions, source: Columns, position: int) -> Rule | None:
    """What becomes of a column's fields before they are values, as it will in the load; None if nothing does."""
    if not has_dialect(source):
        return None
    own, dialect = SourceColumns(source, options.columns), options.dialect
    name = source.schema.names[position]
    names = own.mapped.get(position) or [snake(name) if options.create.names is Names.SNAKE else name]
    rules = [rule for each in names if (rule := null_rule(dialect, each))]
    if not rules and dialect.decimal == ".":
        return None

    def ruled(array: pa.Array) -> pa.Array:
        for rule in rules:
            array = rule.of(array)
        return array if dialect.decimal == "." else pointed(array, dialect.decimal)

    return ruled


def new_key(columns: Sequence[NewColumn], options: LoadOptions) -> tuple[str, ...]:
    """The primary key: what --key names.

    Raises:
        TargetError: the mode goes by a key, and none is named.
        UsageError: it names what is no column.
    """
    names = [column.name for column in columns]
    if not options.merge.key and options.mode.by_key:
        raise TargetError(
            f"mode {options.mode} goes by a key, and the new table has none",
            code="no_key",
            hint=f"Say --key COLUMNS, of {listed(names)}.",
        )
    return tuple(_key_column(wanted, names) for wanted in options.merge.key)


def _key_column(wanted: str, names: Sequence[str]) -> str:
    if wanted in names:
        return wanted
    if found := [name for name in names if name.lower() == wanted.lower()]:
        return found[0]
    if "(" in wanted:
        raise UsageError(
            f"--key {wanted} is an expression, and the key of a new table is made of columns",
            code=FEATURE_NOT_SUPPORTED,
        )
    raise UsageError(
        f"--key names column {wanted}, which the table would not have",
        code=UNDEFINED_COLUMN,
        hint=did_you_mean(wanted, names) or f"Its columns would be: {listed(names)}.",
    )


def _named(source: Seen, options: LoadOptions) -> list[tuple[int, str]]:
    """Positions in the source, and the columns that these fill."""
    own = SourceColumns(source, options.columns)
    named: list[tuple[int, str]] = []
    for position in source.inferred:
        if position in own.skipped:
            continue
        name = source.schema.names[position]
        # A last column without a name is what a delimiter at the end of a header makes.
        if source.named and not name and position == max(source.inferred) and position and position not in own.mapped:
            continue
        names = own.mapped.get(position) or [_name(source, own, position, name, options.create.names)]
        named.extend((position, each) for each in names)
    _check_names(source, own, named, [*options.columns.constants])
    return named


def _type_of(value: str) -> str:
    column = TextColumn("")
    column.see(pa.array([value], pa.string()), lambda row: row)
    return column.inferred().type


def _name(source: Columns, own: SourceColumns, position: int, name: str, names: Names) -> str:
    if not source.named:
        return f"column_{position + 1}"
    if not name.strip():
        raise TargetError(
            f"column {position + 1} of {source.name} has no name",
            code="42602",
            hint=f"Give it one with {own.map_option(position, 'NAME')}, or leave it out with"
            f" {own.skip_option([position])}.",
        )
    return snake(name) if names is Names.SNAKE else name


def _check_names(source: Columns, own: SourceColumns, named: Sequence[tuple[int, str]], others: Sequence[str]) -> None:
    seen: dict[str, str] = {name.lower(): name for name in others}
    for position, name in named:
        if len(name.encode()) > MOST_NAME_BYTES:
            raise TargetError(
                f"the name {name} is longer than {MOST_NAME_BYTES} bytes",
                code="42622",
                hint=f"Give it a shorter one with {own.map_option(position, 'NAME')}.",
            )
        if "\0" in name:
            raise TargetError(f"the name of column {position + 1} of {source.name} holds a zero byte", code="42602")
        if (other := seen.get(name.lower())) is not None:
            same = "twice" if other == name else f"beside {other}, which differs in case only"
            raise TargetError(
                f"{source.name} has the column {name} {same}",
                code=DUPLICATE_COLUMN,
                hint=f"Give one another name with {own.map_option(position, 'NAME')}, or leave it out with"
                f" {own.skip_option([position])}.",
            )
        seen[name.lower()] = name


def _given_types(given: Mapping[str, str], names: Sequence[str]) -> Mapping[str, str]:
    for name in given:
        if name not in names:
            raise UsageError(
                f"--type names column {name}, which the table would not have",
                code=UNDEFINED_COLUMN,
                hint=did_you_mean(name, names) or f"Its columns would be: {listed(names)}.",
            )
    return given


def _refuse_data_as_header(source: Seen) -> None:
    names = [source.schema.names[position] for position in source.inferred if source.schema.names[position]]
    if names and all(looks_like(name) in _VALUES for name in names):
        raise TargetError(
            f"the header of {source.name} looks like a row of data: {', '.join(names[:5])}",
            code="no_header",
            hint="If it is one, say --no-header; if these are names, say --columns.",
        )
