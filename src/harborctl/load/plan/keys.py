"""Which unique index of the target a load goes by, and which of its columns take part in the merge. Pure.

The server infers the index of ON CONFLICT from its parts and its condition, as `db.catalog` has them from the server.
https://www.postgresql.org/docs/current/sql-insert.html#SQL-ON-CONFLICT
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harborctl import sqlstate
from harborctl.errors import AccessDenied, TargetError, UsageError
from harborctl.model import Mode
from harborctl.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harborctl.db.catalog import Target, UniqueKey
    from harborctl.model import MergeOptions

# `''::text` in an expression as the server writes it, spaces taken out.
_CAST = re.compile(r"""::[\w."]+(\(\d+(,\d+)?\))?(\[\])*""")

# Types without an order: no value of theirs is newer than another.
_UNORDERED = frozenset({"json", "xml", "jsonpath", "point", "line", "polygon", "xid", "cid", "aclitem"})

_RELATIONS = {"v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True, slots=True)
class MergePlan:
    """How rows meet.

    Attributes:
        key: the index that says which rows are the same.
        overwritten: columns that an update sets, and a difference in which makes a row different.
        newest_by: the column whose highest value wins.
        touch: the column that becomes now() in each row written.
        update_only: rows whose key is new are left alone.
    """

    key: UniqueKey
    overwritten: tuple[str, ...]
    newest_by: str | None
    touch: str | None
    update_only: bool = False


def plan_merge(
    target: Target, mode: Mode, options: MergeOptions, names: Sequence[str], ways_out: Mapping[str, str]
) -> MergePlan:
    """Settle the key and the parts of the columns `names`, which the load fills; `ways_out` says how not to.

    Raises:
        TargetError: the target has no such key, or cannot be merged into by it.
        UsageError: an option names a column that is not there.
    """
    if target.kind not in "rp":
        raise TargetError(
            f"{target.label} is a {_RELATIONS[target.kind]}, which has no unique index for mode {mode} to go by",
            code=sqlstate.WRONG_OBJECT_TYPE,
            hint="Name the table below it." if target.kind == "v" else "Load it with --mode append.",
        )
    key = _chosen_key(target, mode, options.key, names)
    for name in key.columns:
        if name not in names:
            raise TargetError(
                f"the source lacks column {name}, which the key {key.label} of {target.label} is on",
                code=sqlstate.UNDEFINED_COLUMN,
                column=name,
                hint=f"Name one with --map SOURCE={name}, or choose another --key.",
            )
    for option, given in (
        ("--keep", options.keep),
        ("--touch", _one(options.touch)),
        ("--newest-by", _one(options.newest_by)),
    ):
        for name in given:
            _check_column(target, option, name)
    if options.newest_by and options.newest_by not in names:
        raise UsageError(
            f"--newest-by names column {options.newest_by}, which the source lacks",
            code=sqlstate.UNDEFINED_COLUMN,
            hint="Name a column that both the source and the table have.",
        )
    if options.newest_by:
        _check_order(target, options.newest_by)
    _check_touch(target, options.touch, ways_out)
    part_columns = {part.text for part in key.parts if part.is_column}
    overwritten = tuple(name for name in names if name not in part_columns and name not in options.keep)
    if mode is not Mode.IGNORE:
        _check_identity(target, overwritten, ways_out)
    _check_rights(target, mode, [*key.columns, *(overwritten if mode is not Mode.IGNORE else ())])
    return MergePlan(key, overwritten, options.newest_by, options.touch, options.update_only)


def _chosen_key(target: Target, mode: Mode, wanted: Sequence[str], names: Sequence[str]) -> UniqueKey:
    usable = [key for key in target.keys if not key.obstacle]
    if wanted:
        key = _matching(target, usable, wanted)
    else:
        # Without a primary key the only other unique index is no guess either.
        candidates = [key for key in usable if key.is_primary] or [
            key for key in usable if key.is_plain and set(key.columns) <= set(names)
        ]
        if len(candidates) != 1:
            raise TargetError(
                f"{target.label} has no primary key for mode {mode} to go by{_obstacles(target)}",
                code="no_key",
                hint=_choices(usable),
            )
        key = candidates[0]
    if mode is Mode.SYNC and key.condition:
        raise TargetError(
            f"the index on {key.label} does not hold for all rows of {target.label}, so that mode sync cannot go by it",
            code=sqlstate.INVALID_COLUMN_REFERENCE,
            hint=_choices([other for other in usable if not other.condition]),
        )
    return key


def _matching(target: Target, usable: Sequence[UniqueKey], wanted: Sequence[str]) -> UniqueKey:
    """The index whose parts are what the user wrote; else the only one that reads exactly these columns."""
    names = _folded(target, wanted)
    exact = [key for key in usable if {_squeezed(part.text) for part in key.parts} == names]
    reading = [key for key in usable if not key.condition and set(key.columns) == names]
    found = sorted(exact, key=lambda key: key.condition is not None) or reading
    if not found or (not exact and len(found) > 1):
        known = {column.name for column in target.columns}
        unknown = [name for name in wanted if name.isidentifier() and not {name, name.lower()} & known]
        if unknown:
            _check_column(target, "--key", unknown[0])
        raise TargetError(
            f"no unique constraint or index of {target.label} is on ({', '.join(wanted)}){_obstacles(target)}",
            code=sqlstate.INVALID_COLUMN_REFERENCE,
            hint=_choices(usable),
        )
    return found[0]


def _folded(target: Target, wanted: Iterable[str]) -> set[str]:
    """Names as the target spells them, expressions without spaces."""
    spelled = {column.name.lower(): column.name for column in target.columns}
    exact = {column.name for column in target.columns}
    return {name if name in exact else spelled.get(name.lower(), _squeezed(name)) for name in wanted}


def _squeezed(expression: str) -> str:
    """Without spaces and casts, which the server adds; calls of functions, as they may be written, in lower case."""
    return _CAST.sub("", "".join(expression.split()).lower()) if "(" in expression else expression


def _obstacles(target: Target) -> str:
    hindered = [f"that on {key.label} is {key.obstacle}" for key in target.keys if key.obstacle]
    return f"; {', '.join(hindered)}, which no load can go by" if hindered else ""


def _choices(keys: Sequence[UniqueKey]) -> str:
    labels = "; ".join(key.label for key in keys)
    return (
        f"Say --key COLUMNS; unique there: {labels}." if labels else "Add a primary key or a unique constraint to it."
    )


def _one(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _check_column(target: Target, option: str, name: str) -> None:
    names = [column.name for column in target.columns]
    if name not in names:
        raise UsageError(
            f"{option} names column {name}, which {target.label} lacks",
            code=sqlstate.UNDEFINED_COLUMN,
            hint=did_you_mean(name, names) or f"Its columns are: {', '.join(names)}.",
        )


def _check_order(target: Target, name: str) -> None:
    column = target.column(name)
    if column and column.base in _UNORDERED:
        raise UsageError(
            f"--newest-by names column {name}, whose type {column.type} has no order",
            code=sqlstate.UNDEFINED_FUNCTION,
            hint="Name a column with a time or a number.",
        )


def _check_touch(target: Target, touch: str | None, ways_out: Mapping[str, str]) -> None:
    column = target.column(touch) if touch else None
    if column is None:
        return
    if column.base not in {"timestamptz", "timestamp", "date"} or column.generated:
        raise UsageError(
            f"--touch names column {touch}, which cannot hold a time",
            code=sqlstate.DATATYPE_MISMATCH,
            hint="Name a timestamp column.",
        )
    if column.name in ways_out:
        raise UsageError(
            f"--touch names column {touch}, which the source fills",
            code=sqlstate.DUPLICATE_COLUMN,
            hint=f"Choose another column, or {ways_out[column.name]}.",
        )


def _check_rights(target: Target, mode: Mode, names: Sequence[str]) -> None:
    if any(column.name in names and not column.readable for column in target.columns):
        listed = ", ".join(dict.fromkeys(names))
        raise AccessDenied(
            f"mode {mode} compares rows: it must read the columns {listed} of {target.label}, and this user may not",
            code=sqlstate.INSUFFICIENT_PRIVILEGE,
            hint=f"Its owner can GRANT SELECT ({listed}) ON {target.label} to this user.",
        )


def _check_identity(target: Target, overwritten: Iterable[str], ways_out: Mapping[str, str]) -> None:
    for name in overwritten:
        column = target.column(name)
        if column and column.always_identity:
            raise TargetError(
                f"column {name} of {target.label} is GENERATED ALWAYS AS IDENTITY and cannot be updated",
                code=sqlstate.GENERATED_ALWAYS,
                column=name,
                hint=f"Use it for new rows only with --keep {name}, or {ways_out[name]}.",
            )
