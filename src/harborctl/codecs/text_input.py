"""Text fields → Arrow values, where Arrow and PostgreSQL provably read a text alike; else `NotPlain`.

The rules are pure and know one type each. What they refuse is not wrong: the server reads it, by its input functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.sources.agreement import YEAR_ONE_DAYS, has_year_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from harborctl.db.catalog import TargetColumn

INTEGERS = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}
FLOATS = {"float4": pa.float32(), "float8": pa.float64()}
# Types whose binary form is the UTF-8 text itself, checked by the server as it checks text.
TEXT_LIKE = frozenset({"text", "varchar", "bpchar", "citext"})

# A boolean is any unique prefix of these (boolin, parse_bool_with_len); the usual cases of each go the fast way.
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

_DAY_MICROSECONDS = 86400 * 10**6


class NotPlain(Exception):
    """A field that only the server can read with certainty."""


@dataclass(frozen=True, slots=True)
class Session:
    """What of the session decides how text is read: whether its time zone is UTC."""

    utc: bool


def is_text_like(column: TargetColumn) -> bool:
    """Whether the column's binary form is its text."""
    return column.kind == "e" or (column.kind == "b" and column.base in TEXT_LIKE)


def text_rule(column: TargetColumn, session: Session) -> tuple[pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    """The type that the text of `column` is sent as, and the way there: `string` array → array, raising NotPlain.

    None if all of it has to be read by the server.
    """
    base = column.base
    if is_text_like(column):
        return pa.string(), _same
    if column.kind != "b":  # composites, ranges and the like may be named as they please: date, int4
        return None
    if base in INTEGERS:
        return INTEGERS[base], lambda array: _integers(array, INTEGERS[base])
    if base in FLOATS:
        return FLOATS[base], lambda array: _floats(array, FLOATS[base])
    if base == "numeric" and (decimal := decimal_type(column)):
        return decimal, lambda array: _decimals(array, decimal)
    if base == "timestamptz":
        return pa.timestamp("us", "UTC"), lambda array: _instants(array, session)
    return _SIMPLE_RULES.get(base)


def decimal_type(column: TargetColumn) -> pa.DataType | None:
    """`numeric(p,s)` as an Arrow type; None for other scales and precisions, which the encoder does not know."""
    if column.modifier < 0:
        return None
    precision = (column.modifier - 4) >> 16 & 0xFFFF
    scale = numeric_scale(column.modifier)
    return pa.decimal128(precision, scale) if precision <= 38 and 0 <= scale <= precision else None


def numeric_scale(modifier: int) -> int:
    """The scale of a numeric that has a modifier; may be negative (numeric_typmod_scale in numeric.c)."""
    return ((modifier - 4 & 0x7FF) ^ 1024) - 1024


def held(array: pa.Array) -> bytes:
    """The characters of a `string` or `binary` array, one value after the other, of this slice only."""
    offsets, data = array.buffers()[1:3]
    if offsets is None or data is None or len(array) == 0:
        return b""
    bounds = memoryview(offsets).cast("i")
    return bytes(memoryview(data)[bounds[array.offset] : bounds[array.offset + len(array)]])


def every(condition: pa.Array) -> bool:
    """Whether `condition` holds wherever it is known."""
    return pc.all(condition, min_count=0).as_py() is not False


def _same(array: pa.Array) -> pa.Array:
    return array


def _cast(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    try:
        return array.cast(arrow)
    except pa.ArrowInvalid as error:
        raise NotPlain from error


# -- numbers


def _integers(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    text = held(array)
    if b"x" in text or b"X" in text:
        raise NotPlain  # Arrow reads 0xFF.. as a bit pattern; PostgreSQL before 16 does not read it at all
    return _cast(array, arrow)


def _floats(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    numbers = _cast(array, arrow)
    # strtod's out-of-range answers are errors in PostgreSQL, and its spellings of NaN are fewer than Arrow's.
    if not every(pc.is_finite(numbers)):
        raise NotPlain
    is_zero = pc.equal(pc.abs(numbers), 0)
    if pc.any(is_zero).as_py():
        zeros = array.filter(pc.fill_null(is_zero, False))
        if not every(pc.match_substring_regex(zeros, r"^[-+]?[0.]+([eE].*)?$")):
            raise NotPlain
    return numbers


def _decimals(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    text = held(array)
    if b"e" in text or b"E" in text:
        raise NotPlain  # Arrow also takes 1e+-1
    return _cast(array, arrow)


@dataclass(frozen=True, slots=True)
class Numeral:
    """A type by its name in the server's messages, and what any text looks like that some version of it reads."""

    type: str
    pattern: str


# From version 16 on it also takes 0x1F, 0o17, 0b11 and 1_000.
_SPACE = r"[\s\v]*"
_DIGITS = "[-+0-9a-fA-FxXoO_.]+"
_INTEGER = f"^{_SPACE}{_DIGITS}{_SPACE}$"
_NUMERIC = f"^{_SPACE}({_DIGITS}|[-+]?[iI][a-zA-Z]+|[nN][aA][nN]){_SPACE}$"
_NUMERALS = {
    "int2": Numeral("smallint", _INTEGER),
    "int4": Numeral("integer", _INTEGER),
    "int8": Numeral("bigint", _INTEGER),
    "numeric": Numeral("numeric", _NUMERIC),
}


def numeral_of(column: TargetColumn) -> Numeral | None:
    """What the column takes, if it is a number whose text is told from others by its looks."""
    return _NUMERALS.get(column.base)


# -- booleans


def _booleans(array: pa.Array) -> pa.Array:
    spellings = _boolean_spellings()
    index = pc.index_in(array, value_set=spellings)
    if index.null_count > array.null_count:
        raise NotPlain
    return pc.less(index, len(spellings) // 2)


def _prefixes(words: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    prefixes = {word[:length] for word in words for length in range(1, len(word) + 1)}
    unique = [prefix for prefix in sorted(prefixes) if not any(word.startswith(prefix) for word in others)]
    return [spelling for prefix in unique for spelling in (prefix, prefix.upper(), prefix.capitalize())]


@cache  # Arrow imports pandas, where that is installed, for the first array of Python objects: 0.2 s
def _boolean_spellings() -> pa.Array:
    true, false = _prefixes(_TRUE, _FALSE), _prefixes(_FALSE, _TRUE)
    # Equal halves, so that an index tells true from false; a repeated spelling is found at its first place.
    length = max(len(true), len(false))
    return pa.array([*true, *[true[0]] * (length - len(true)), *false, *[false[0]] * (length - len(false))])


# -- dates and times


def _dates(array: pa.Array) -> pa.Array:
    days = _cast(array, pa.date32())
    if has_year_zero(days):
        raise NotPlain
    return days


def _timestamps(array: pa.Array) -> pa.Array:
    # Arrow also takes `2020-01-01 10`, which PostgreSQL refuses; every other form that it takes means the same there.
    if pc.any(pc.equal(pc.binary_length(array), len("YYYY-MM-DD hh"))).as_py():
        raise NotPlain
    return _in_common_era(_cast(array, pa.timestamp("us")))


def _instants(array: pa.Array, session: Session) -> pa.Array:
    if not every(pc.match_substring_regex(array, _ZONED)):
        if not session.utc:
            raise NotPlain
        return _timestamps(array).cast(pa.timestamp("us", "UTC"))
    return _in_common_era(_cast(array, pa.timestamp("us", "UTC")))


# Offsets up to 14 hours: PostgreSQL takes less than 16, Arrow less than 24.
_ZONED = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-](0\d|1[0-4])(:?[0-5]\d)?)$"


def _in_common_era(stamps: pa.Array) -> pa.Array:
    # As with dates; an offset may have moved the last hours of the year 0 into the first day of the year 1.
    if pc.any(pc.less(stamps.cast(pa.int64()), (YEAR_ONE_DAYS + 1) * _DAY_MICROSECONDS)).as_py():
        raise NotPlain
    return stamps


def _times(array: pa.Array) -> pa.Array:
    if not every(pc.match_substring_regex(array, r"^\d\d:\d\d:\d\d(\.\d{1,6})?$")):
        raise NotPlain
    stamps = _cast(pc.binary_join_element_wise("1970-01-01", array, " "), pa.timestamp("us"))
    return stamps.cast(pa.int64()).cast(pa.time64("us"))


# -- bytes and documents


def _uuids(array: pa.Array) -> pa.Array:
    if not every(pc.match_substring_regex(array, r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")):
        raise NotPlain
    filled = pc.replace_substring(pc.fill_null(array, "0" * 32), "-", "")
    raw = bytes.fromhex(held(filled).decode("ascii"))
    binary = pa.Array.from_buffers(pa.binary(16), len(array), [None, pa.py_buffer(raw)])
    return pc.if_else(array.is_valid(), binary, None)


def _bytes(array: pa.Array) -> pa.Array:
    if not every(pc.match_substring_regex(array, r"^\\x([0-9a-fA-F]{2})*$")):
        raise NotPlain
    digits = pc.utf8_slice_codeunits(pc.fill_null(array, "\\x"), 2)
    raw = bytes.fromhex(held(digits).decode("ascii"))
    ends = pc.cumulative_sum(pc.divide(pc.binary_length(digits), 2))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    binary = pa.Array.from_buffers(pa.binary(), len(array), [None, offsets.buffers()[1], pa.py_buffer(raw)])
    return pc.if_else(array.is_valid(), binary, None)


def jsonb(array: pa.Array) -> pa.Array:
    """Documents as jsonb_recv takes them: a version byte, then the text."""
    return pc.binary_join_element_wise(b"\x01", array.cast(pa.binary()), b"")


_SIMPLE_RULES: dict[str, tuple[pa.DataType, Callable[[pa.Array], pa.Array]]] = {
    "bool": (pa.bool_(), _booleans),
    "date": (pa.date32(), _dates),
    "timestamp": (pa.timestamp("us"), _timestamps),
    "time": (pa.time64("us"), _times),
    "uuid": (pa.binary(16), _uuids),
    "bytea": (pa.binary(), _bytes),
    "json": (pa.string(), _same),
    "jsonb": (pa.binary(), jsonb),
}
