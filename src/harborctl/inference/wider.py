"""The type that holds the values of two."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from harborctl.errors import TargetError
from harborctl.inference.kinds import MOST_PRECISION
from harborctl.sqlstate import DATATYPE_MISMATCH

if TYPE_CHECKING:
    from harborctl.inference.columns import Inferred

# Of integers, narrowest first, how many digits each has at most.
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")


def wider(one: Inferred, other: Inferred) -> Inferred:
    """Of a column in two sources.

    Raises:
        TargetError: no type but text holds both, and one of them is no text.
    """
    found = _wider(one.type, other.type)
    if found is None:
        raise TargetError(
            f"column {one.name} is {one.type} in one source, and {other.type} in another",
            code=DATATYPE_MISMATCH,
            column=one.name,
            hint=f"Say which type it is to have with --type '{one.name}=TYPE'.",
        )
    return replace(one if one.type == found else replace(other, name=one.name), type=found)


def _wider(one: str, other: str) -> str | None:
    if one == other:
        return one
    kinds = {one, other}
    if kinds <= _DIGITS.keys():
        return max(one, other, key=lambda name: _DIGITS[name])
    if kinds == {"real", "double precision"}:
        return "double precision"
    first, second = _width(one), _width(other)
    if first and second:
        whole, scale = max(first[0], second[0]), max(first[1], second[1])
        return f"numeric({whole + scale},{scale})" if whole + scale <= MOST_PRECISION else "numeric"
    if all(_width(name) or name == "numeric" for name in kinds):
        return "numeric"
    return "text" if "text" in kinds else None


def _width(name: str) -> tuple[int, int] | None:
    """How many digits stand before the point and behind it."""
    if name in _DIGITS:
        return _DIGITS[name], 0
    found = _NUMERIC.fullmatch(name)
    return (int(found[1]) - int(found[2]), int(found[2])) if found else None
