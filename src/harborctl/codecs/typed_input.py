"""Typed values (Parquet, Arrow) → the column's type, every one unchanged, or `Unstorable`.

Nothing is rounded, cut or moved to another zone: not by Arrow's casts, and not by the server, which rounds numbers and
times to a column's type modifier without a word. What the server refuses by itself is left to it. A double goes into a
real, and a decimal into either, if it is what the shortest text of the stored float says: 0.1 stays 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from harborctl.codecs.literals import (
    Inexpressible,
    array_literals,
    bare,
    dimensions_of,
    is_binary,
    is_list,
    is_text,
    json_form,
    row_literals,
    text_form,
)
from harborctl.codecs.text_input import (
    FLOATS,
    INTEGERS,
    NotPlain,
    decimal_type,
    every,
    is_text_like,
    jsonb,
    numeric_scale,
)
from harborctl.errors import TargetError
from harborctl.sqlstate import (
    CHARACTER_NOT_IN_REPERTOIRE,
    DATETIME_FIELD_OVERFLOW,
    INVALID_TEXT_REPRESENTATION,
    NUMERIC_VALUE_OUT_OF_RANGE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harborctl.db.catalog import TargetColumn

    Way = Callable[[pa.Array], pa.Array]
    TextWay = Callable[[pa.DataType, TargetColumn], Way]

# PostgreSQL's first day is 4714-11-24 BC, Julian day 0. Its last timestamp lies beyond Arrow's.
_FIRST_DAY, _LAST_DAY = -2440588, 2145042905
_DAY_MICROSECONDS = 86400 * 10**6

# The parts of interval's modifier: utils/timestamp.h, datetime.h.
_ANY_DIGITS, _ALL_FIELDS = 0xFFFF, 0x7FFF
_HOUR, _MINUTE, _SECOND = 1 << 10, 1 << 11, 1 << 12


class Unstorable(Exception):
    """A value that the column cannot hold unchanged; `row` is its 0-based row."""

    def __init__(self, row: int, value: str, code: str, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.value = value
        self.code = code
        self.reason = reason


class _Inexact(ValueError):
    """Some value of an array would not arrive unchanged."""


# What says that an array holds a value that cannot go; Unstorable says it of a value inside of others.
_REFUSALS = (pa.ArrowInvalid, Inexpressible, _Inexact, UnicodeDecodeError, Unstorable)


@dataclass(frozen=True, slots=True)
class Rule:
    """How typed values go into a column. Its ways refuse arrays as a whole; `located` finds the row.

    Attributes:
        arrow: the type that the binary encoder takes; None where there is no exact binary way.
        convert: source array → array of type `arrow`.
        text: source array → `string` array in PostgreSQL's input syntax.
    """

    arrow: pa.DataType | None
    convert: Way
    text: Way


def typed_rule(source: pa.DataType, column: TargetColumn, text_of: TextWay) -> Rule:
    """The exact way of `source`, which is neither text nor bytes to be read as text, into `column`.

    `text_of` gives the way to text of any type, for what lies inside of others.

    Raises:
        TargetError: a part of every value, its day or its zone, would be lost.
    """
    base = column.base if column.kind == "b" else ""
    if base in ("json", "jsonb"):
        return Rule(*_json_way(base), json_form)
    if is_list(source) or types.is_map(source) or types.is_struct(source):
        return _nested_rule(source, column, text_of)
    if is_text_like(column):
        return Rule(pa.string(), text_form, text_form)
    _refuse_losing_parts(source, column)
    if types.is_integer(source) or types.is_floating(source) or types.is_decimal(source):
        return _number_rule(source, column, base)
    if types.is_boolean(source) and base == "bool":
        return _binary_or_text(source, _same)
    if is_binary(source) and base == "uuid":
        return Rule(source, _same, lambda array: pc.utf8_slice_codeunits(text_form(array), len("\\x")))
    if is_binary(source) and base == "bytea":
        return _binary_or_text(pa.binary(), lambda array: array.cast(pa.binary()))
    return _temporal_rule(source, column, base)


def located(way: Way, column: TargetColumn) -> Way:
    """`way`, raising Unstorable with the first row that it refuses."""

    def attempt(array: pa.Array) -> pa.Array:
        try:
            return way(array)
        except _REFUSALS as error:
            raise _first_unstorable(array, way, column, error) from error

    return attempt


def utf8(array: pa.Array) -> pa.Array:
    """Texts or bytes as `string`; refuses what is not UTF-8, which a file may hold in a column of text."""
    text = array.cast(pa.string())
    text.validate(full=True)  # 10 GB/s
    return text


def _same(array: pa.Array) -> pa.Array:
    return array


def _not_plain(_array: pa.Array) -> pa.Array:
    raise NotPlain


def _binary_or_text(arrow: pa.DataType, way: Way) -> Rule:
    """Values that have been brought to `arrow` exactly have that type's text, too."""
    return Rule(arrow, way, lambda array: text_form(way(array)))


def _as_text(check: Way) -> Rule:
    return Rule(None, _not_plain, lambda array: text_form(check(array)))


def _json_way(base: str) -> tuple[pa.DataType, Way]:
    if base == "json":
        return pa.string(), json_form
    return pa.binary(), lambda array: jsonb(json_form(array))


def _nested_rule(source: pa.DataType, column: TargetColumn, text_of: TextWay) -> Rule:
    if is_text_like(column):
        return Rule(pa.string(), json_form, json_form)
    if is_list(source) and column.element:
        return Rule(None, _not_plain, _array_text(source, column.element, column.name, text_of))
    if types.is_struct(source) and column.kind == "c":
        return Rule(None, _not_plain, _row_text(source, column, text_of))
    # Extension types such as vectors write lists as JSON does.
    return Rule(None, _not_plain, json_form)


def _array_text(source: pa.DataType, element: TargetColumn, name: str, text_of: TextWay) -> Way:
    """A list in a list is a dimension more, unless the elements are arrays themselves, by a domain."""
    dimensions = 1 if element.element else dimensions_of(source)
    item = source.value_type
    for _ in range(dimensions - 1):
        item = bare(pa.nulls(0, item)).type.value_type
    text = text_of(item, replace(element, name=f"{name}[]"))
    return lambda array: array_literals(array, text, dimensions)


def _row_text(source: pa.DataType, column: TargetColumn, text_of: TextWay) -> Way:
    """Fields go into the attributes of their names, as json_populate_record has it; what is missing is NULL."""
    names = [field.name for field in source]
    attributes = [attribute.name for attribute in column.attributes]
    for name in names:
        if name not in attributes or names.count(name) > 1:
            has = "has no attribute" if name not in attributes else "cannot take two fields named"
            raise TargetError(
                f"column {column.name} is {column.type}, which {has} {name}",
                code="unknown_field",
                column=column.name,
                hint=f"Fields go by their names, and the attributes are: {', '.join(attributes)}.",
            )
    ways = [
        (names.index(attribute.name), text_of(source.field(attribute.name).type, _inside(column, attribute)))
        if attribute.name in names
        else None
        for attribute in column.attributes
    ]

    def text(array: pa.Array) -> pa.Array:
        fields = array.flatten()
        return row_literals(array, [way and way[1](fields[way[0]]) for way in ways])

    return text


def _inside(column: TargetColumn, attribute: TargetColumn) -> TargetColumn:
    """The attribute, named with its place."""
    return replace(attribute, name=f"{column.name}.{attribute.name}")


# -- numbers


def _number_rule(source: pa.DataType, column: TargetColumn, base: str) -> Rule:
    if base in INTEGERS:
        return _binary_or_text(INTEGERS[base], lambda array: _as_integers(array, INTEGERS[base]))
    if base in FLOATS:
        return _binary_or_text(FLOATS[base], lambda array: _as_floats(array, FLOATS[base]))
    if base == "money":
        return _as_text(lambda array: _with_scale(array, 2))
    if base != "numeric":
        return _as_text(_same)
    if column.modifier >= 0:
        scale = numeric_scale(column.modifier)
        rule = _as_text(lambda array: _with_scale(array, scale))
        arrow = decimal_type(column)
        return rule if arrow is None else replace(rule, arrow=arrow, convert=partial(_as_decimals, arrow=arrow))
    if types.is_decimal(source) and source.precision <= 38 and 0 <= source.scale <= source.precision:
        return _binary_or_text(arrow := pa.decimal128(source.precision, source.scale), lambda array: array.cast(arrow))
    return _as_text(_same)


def _as_integers(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    if types.is_decimal(array.type) and array.type.bit_width < 128:
        # Of the narrower ones Arrow 26 says that an int64 cannot hold them.
        array = array.cast(pa.decimal128(array.type.precision, array.type.scale))
    return array.cast(arrow)


def _as_decimals(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    if types.is_decimal(array.type):
        return array.cast(arrow)
    if types.is_floating(array.type) and not every(pc.is_finite(array)):
        raise NotPlain  # numeric has NaN and infinity, Arrow's decimals have not
    return text_form(array).cast(arrow)


def _with_scale(array: pa.Array, scale: int) -> pa.Array:
    """The array, if none of its numbers has a digit other than 0 below 10 ** -scale."""
    text = text_form(array)
    if types.is_floating(array.type) and pc.any(pc.match_substring(text, "e")).as_py():
        text = pa.array([_without_exponent(number) for number in text.to_pylist()], pa.string())
    digits = rf"\d+(\.\d{{0,{scale}}}0*)?" if scale >= 0 else rf"(0|\d+0{{{-scale}}})(\.0*)?"
    if not every(pc.match_substring_regex(text, rf"^-?({digits}|nan|inf)$")):
        raise _Inexact
    return array


def _without_exponent(number: str | None) -> str | None:
    return number if number is None or "e" not in number else format(Decimal(number), "f")


def _as_floats(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    source = array.type
    if types.is_floating(source):
        floats = array.cast(arrow)
        if source.bit_width > arrow.bit_width:
            same = pc.equal(_shortest(floats).cast(source), array)
            if not every(pc.or_(pc.is_nan(array), same)):
                raise _Inexact
        return floats
    if types.is_integer(source):
        try:
            return array.cast(arrow)
        except pa.ArrowInvalid:  # some are beyond 2**53, where not every number has a float
            floats = _shortest(array).cast(arrow)
            numbers = zip(array.to_pylist(), floats.to_pylist(), strict=True)
            if not all(integer is None or integer == number for integer, number in numbers):
                raise _Inexact from None
            return floats
    floats = text_form(array).cast(arrow)
    wide = pa.decimal256(76, max(source.scale, 0))
    if not every(pc.equal(_shortest(floats).cast(wide), text_form(array).cast(wide))):
        raise _Inexact
    return floats


def _shortest(array: pa.Array) -> pa.Array:
    """Numbers as the shortest text that reads back as the same number."""
    return array.cast(pa.string())


# -- dates and times


def _refuse_losing_parts(source: pa.DataType, column: TargetColumn) -> None:
    if column.kind != "b" or not types.is_timestamp(source):
        return
    if source.tz and column.base in ("timestamp", "date", "time", "timetz"):
        raise TargetError(
            f"column {column.name} is {column.type}, but the source's is a moment in time ({source})",
            code="zone_lost",
            column=column.name,
            hint="Make the column timestamptz, or write local time into the source.",
        )
    if column.base in ("time", "timetz"):
        raise TargetError(
            f"column {column.name} is {column.type}, but the source's has a day, too ({source})",
            code="day_lost",
            column=column.name,
            hint="Make the column a timestamp, or write times of day into the source.",
        )


def _temporal_rule(source: pa.DataType, column: TargetColumn, base: str) -> Rule:
    is_day, is_stamp, is_time = types.is_date(source), types.is_timestamp(source), types.is_time(source)
    if (is_day or is_stamp) and base == "date":
        return _binary_or_text(pa.date32(), lambda array: _in_range(_days(array)))
    if (is_day or is_stamp) and base == "timestamp":
        return _binary_or_text(pa.timestamp("us"), lambda array: _stamps(array, column))
    if is_stamp and base == "timestamptz":
        rule = _binary_or_text(pa.timestamp("us", "UTC"), lambda array: _stamps(array, column, "UTC"))
        # Without a zone it is local time, and which is for the server to say.
        return rule if source.tz else _as_text(lambda array: _stamps(array, column))
    if is_time and base == "time":
        return _binary_or_text(pa.time64("us"), lambda array: _times(array, column))
    if is_time and base in ("timetz", "interval"):
        return _as_text(lambda array: _times(array, column))
    if types.is_duration(source) and base == "interval":
        return _binary_or_text(pa.duration("us"), lambda array: _in_steps(array.cast(pa.duration("us")), column))
    if types.is_interval(source) and base == "interval":
        return _as_text(lambda array: _calendar_intervals(array, column))
    return _as_text(_same)


def _days(array: pa.Array) -> pa.Array:
    days = array.cast(pa.date32())
    if types.is_timestamp(array.type) and not every(pc.equal(days.cast(array.type), array)):
        raise _Inexact  # Arrow drops the time of day
    return days


def _stamps(array: pa.Array, column: TargetColumn, zone: str | None = None) -> pa.Array:
    if types.is_date(array.type):
        array = array.cast(pa.date32())
    return _in_steps(_in_range(array.cast(pa.timestamp("us", zone))), column)


def _times(array: pa.Array, column: TargetColumn) -> pa.Array:
    return _in_steps(_in_range(array.cast(pa.time64("us"))), column)


def _in_range(array: pa.Array) -> pa.Array:
    """The array, if PostgreSQL has all of these days, moments or times. Its binary input takes some for infinity."""
    if types.is_date(array.type):
        counts, low, high = array.cast(pa.int32()), _FIRST_DAY, _LAST_DAY
    elif types.is_time(array.type):
        counts, low, high = array.cast(pa.int64()), 0, _DAY_MICROSECONDS
    else:
        counts, low, high = array.cast(pa.int64()), _FIRST_DAY * _DAY_MICROSECONDS, 2**63 - 1
    ends = pc.min_max(counts).as_py()
    if ends["min"] is not None and not low <= ends["min"] <= ends["max"] <= high:
        raise _Inexact
    return array


def _in_steps(array: pa.Array, column: TargetColumn) -> pa.Array:
    """The array of microseconds, if the column's modifier does not make the server round them."""
    step = _step(column)
    if step == 1:
        return array
    counts = array.cast(pa.int64())
    rounded = pc.multiply(pc.divide(counts, step), step) if step else 0
    if not every(pc.equal(counts, rounded)):
        raise _Inexact
    return array


def _step(column: TargetColumn) -> int:
    """Microseconds that the column's values are whole multiples of; 0 if it keeps nothing shorter than a day."""
    if column.modifier < 0:
        return 1
    digits, fields = column.modifier, _ALL_FIELDS
    if column.base == "interval":
        digits, fields = column.modifier & _ANY_DIGITS, column.modifier >> 16 & _ALL_FIELDS
    if fields & _SECOND:
        return int(10 ** max(0, 6 - digits))
    if fields & _MINUTE:
        return 60 * 10**6
    return 3600 * 10**6 if fields & _HOUR else 0


def _calendar_intervals(array: pa.Array, column: TargetColumn) -> pa.Array:
    values = [value for value in array.to_pylist() if value is not None]
    if column.modifier >= 0 or any(value.nanoseconds % 1000 for value in values):
        raise _Inexact  # fields that the server would cut are not looked for: no file format has such columns
    return array


# -- blaming a row


def _first_unstorable(array: pa.Array, way: Way, column: TargetColumn, error: Exception) -> Unstorable:
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            way(array.slice(low, middle - low))
        except _REFUSALS as earlier:
            high, error = middle, earlier
        except NotPlain:
            low = middle
        else:
            low = middle
    kind, told = array.type, shown(array.slice(low, 1))
    if isinstance(error, Unstorable):
        return Unstorable(low, told, error.code, error.reason)
    while is_list(kind):
        kind = kind.value_type
    if isinstance(error, UnicodeDecodeError) or is_text(kind) or is_binary(kind):
        reason = f"the bytes are not UTF-8, and column {column.name} is {column.type}"
        return Unstorable(low, told, CHARACTER_NOT_IN_REPERTOIRE, reason)
    if isinstance(error, Inexpressible):
        return Unstorable(low, told, INVALID_TEXT_REPRESENTATION, f"{told} cannot be written as {column.type}: {error}")
    return Unstorable(
        low,
        told,
        DATETIME_FIELD_OVERFLOW if types.is_temporal(kind) else NUMERIC_VALUE_OUT_OF_RANGE,
        f"{told} cannot be stored in {column.type} unchanged: it is out of range, or would be rounded",
    )


def shown(value: pa.Array) -> str:
    """A single value for people."""
    if is_text(value.type) or is_binary(value.type):
        return str(value.cast(pa.binary())[0].as_py().decode(errors="backslashreplace"))
    try:
        return str(text_form(value)[0].as_py())
    except (pa.ArrowException, ValueError):
        return str(value[0])
