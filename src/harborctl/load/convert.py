"""Which Arrow value becomes which PostgreSQL value, exactly. Pure: no server is asked here.

COPY is the oracle. A text field goes the fast way (Arrow parses it, the binary form is sent) only where Arrow and
PostgreSQL provably read it alike; `NotPlain` sends the batch to the server as text, whose input functions judge it.
A typed value (Parquet) either arrives unchanged or is `Unstorable`: nothing is rounded, cut or moved to another zone.
Columns without a rule always travel as text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from harborctl.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harborctl.db.catalog import TargetColumn

INTEGERS = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}
FLOATS = {"float4": pa.float32(), "float8": pa.float64()}
# Types whose binary form is the UTF-8 text itself, checked by the server as it checks text.
TEXT_LIKE = frozenset({"text", "varchar", "bpchar", "json"})
JSON_TYPES = frozenset({"json", "jsonb"})

# A boolean is any unique prefix of these (boolin, parse_bool_with_len); the usual cases of each go the fast way.
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

_UNIX_EPOCH_JULIAN_DAY = 2440588


class NotPlain(Exception):
    """A text field that only the server can read with certainty."""


class Unstorable(Exception):
    """A typed value that the column cannot hold unchanged; `row` is its 0-based row."""

    def __init__(self, row: int, value: str, code: str, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.value = value
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Session:
    """What of the session decides how text is read: whether its time zone is UTC."""

    utc: bool


@dataclass(frozen=True, slots=True)
class Codec:
    """How one source column goes into one target column.

    Attributes:
        arrow: the type that the binary encoder takes; None where there is no exact binary way.
        convert: source array → array of type `arrow`. Raises NotPlain or Unstorable.
        check: source array → array whose text form may be sent. Raises Unstorable.
        to_text: checked array → `string` array in PostgreSQL's input syntax.
    """

    arrow: pa.DataType | None
    convert: Callable[[pa.Array], pa.Array]
    check: Callable[[pa.Array], pa.Array]
    to_text: Callable[[pa.Array], pa.Array]

    def text(self, array: pa.Array) -> pa.Array:
        """The column as `string`, for the server to read."""
        return self.to_text(self.check(array))


def codec(source: pa.DataType, column: TargetColumn, session: Session) -> Codec:
    """The way from a `source` column into `column`.

    Raises:
        TargetError: there is none that keeps the values as they are.
    """
    if types.is_dictionary(source):
        inner = codec(source.value_type, column, session)
        return Codec(
            inner.arrow,
            lambda array: inner.convert(array.dictionary_decode()),
            lambda array: inner.check(array.dictionary_decode()),
            inner.to_text,
        )
    if isinstance(source, pa.BaseExtensionType):
        inner = codec(source.storage_type, column, session)
        return Codec(
            inner.arrow,
            lambda array: inner.convert(array.storage),
            lambda array: inner.check(array.storage),
            inner.to_text,
        )
    if types.is_string(source):
        arrow, convert = _text_rule(column, session)
        return Codec(arrow, convert, _same, _same)
    if types.is_large_string(source) or types.is_string_view(source):
        if types.is_string_view(source) and _is_text_like(column):
            return Codec(source, _same, _same, _as_string)
        arrow, convert = _text_rule(column, session)
        return Codec(arrow, lambda array: convert(_as_string(array)), _same, _as_string)
    typed = _typed_rule(source, column)
    if typed is None:
        return Codec(None, _not_plain, _same, _text_form(source, column))
    exact, convert = typed
    if not _encodable(exact):
        return Codec(None, _not_plain, convert, _text_form(exact, column))
    return Codec(exact, convert, convert, _text_form(exact, column))


def _same(array: pa.Array) -> pa.Array:
    return array


def _as_string(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def _not_plain(_array: pa.Array) -> pa.Array:
    raise NotPlain


def _is_text_like(column: TargetColumn) -> bool:
    return column.base in TEXT_LIKE or column.kind == "e" or column.base.endswith(".citext")


def _encodable(arrow: pa.DataType) -> bool:
    return not types.is_decimal256(arrow)


# -- text fields


def _text_rule(column: TargetColumn, session: Session) -> tuple[pa.DataType | None, Callable[[pa.Array], pa.Array]]:
    """The fast way for text; without a type if all of it has to be read by the server."""
    base = column.base
    if _is_text_like(column):
        return pa.string(), _same
    if base in INTEGERS:
        return INTEGERS[base], lambda array: _integers(array, INTEGERS[base])
    if base in FLOATS:
        return FLOATS[base], lambda array: _floats(array, FLOATS[base])
    if base == "numeric" and (decimal := _decimal_type(column)):
        return decimal, lambda array: _cast(array, decimal)
    if base == "timestamptz":
        return pa.timestamp("us", "UTC"), lambda array: _instants(array, session)
    return _SIMPLE_TEXT_RULES.get(base, (None, _not_plain))


def _cast(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    try:
        return array.cast(arrow)
    except pa.ArrowInvalid as error:
        raise NotPlain from error


def _integers(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    data = array.buffers()[2]
    if data is not None and (b"x" in (text := data.to_pybytes()) or b"X" in text):
        raise NotPlain  # Arrow reads 0xFF.. as a bit pattern; PostgreSQL before 16 does not read it at all
    return _cast(array, arrow)


def _floats(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    numbers = _cast(array, arrow)
    # strtod's out-of-range answers are errors in PostgreSQL, and its spellings of NaN are fewer than Arrow's.
    if not _all(pc.is_finite(numbers)):
        raise NotPlain
    is_zero = pc.equal(pc.abs(numbers), 0)
    if pc.any(is_zero).as_py():
        zeros = array.filter(pc.fill_null(is_zero, False))
        if not _all(pc.match_substring_regex(zeros, r"^[-+]?[0.]+([eE].*)?$")):
            raise NotPlain
    return numbers


def _booleans(array: pa.Array) -> pa.Array:
    index = pc.index_in(array, value_set=_BOOLEAN_SPELLINGS)
    if index.null_count > array.null_count:
        raise NotPlain
    return pc.less(index, len(_BOOLEAN_SPELLINGS) // 2)


def _prefixes(words: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    prefixes = {word[:length] for word in words for length in range(1, len(word) + 1)}
    unique = [prefix for prefix in sorted(prefixes) if not any(word.startswith(prefix) for word in others)]
    return [spelling for prefix in unique for spelling in (prefix, prefix.upper(), prefix.capitalize())]


def _boolean_spellings() -> pa.Array:
    true, false = _prefixes(_TRUE, _FALSE), _prefixes(_FALSE, _TRUE)
    # Equal halves, so that an index tells true from false; a repeated spelling is found at its first place.
    length = max(len(true), len(false))
    return pa.array([*true, *[true[0]] * (length - len(true)), *false, *[false[0]] * (length - len(false))])


def _dates(array: pa.Array) -> pa.Array:
    return _cast(array, pa.date32())


def _timestamps(array: pa.Array) -> pa.Array:
    # Arrow also takes `2020-01-01 10`, which PostgreSQL refuses; every other form that it takes means the same there.
    if pc.any(pc.equal(pc.binary_length(array), len("YYYY-MM-DD hh"))).as_py():
        raise NotPlain
    return _in_common_era(_cast(array, pa.timestamp("us")))


def _instants(array: pa.Array, session: Session) -> pa.Array:
    if not _all(pc.match_substring_regex(array, _ZONED)):
        if not session.utc:
            raise NotPlain
        return _timestamps(array).cast(pa.timestamp("us", "UTC"))
    return _in_common_era(_cast(array, pa.timestamp("us", "UTC")))


# Offsets up to 14 hours: PostgreSQL takes less than 16, Arrow less than 24.
_ZONED = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-](0\d|1[0-4])(:?[0-5]\d)?)$"


def _in_common_era(stamps: pa.Array) -> pa.Array:
    if pc.any(pc.less(stamps.cast(pa.int64()), _YEAR_ONE_MICROSECONDS)).as_py():
        raise NotPlain  # the year 0 is 1 BC to Arrow, and an error to PostgreSQL
    return stamps


_YEAR_ONE_MICROSECONDS = -62135596800 * 10**6


def _times(array: pa.Array) -> pa.Array:
    if not _all(pc.match_substring_regex(array, r"^\d\d:\d\d:\d\d(\.\d{1,6})?$")):
        raise NotPlain
    stamps = _cast(pc.binary_join_element_wise("1970-01-01", array, " "), pa.timestamp("us"))
    return stamps.cast(pa.int64()).cast(pa.time64("us"))


def _uuids(array: pa.Array) -> pa.Array:
    if not _all(pc.match_substring_regex(array, r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")):
        raise NotPlain
    filled = pc.replace_substring(pc.fill_null(array, "0" * 32), "-", "")
    raw = bytes.fromhex(_data(filled).decode("ascii"))
    binary = pa.Array.from_buffers(pa.binary(16), len(array), [None, pa.py_buffer(raw)])
    return pc.if_else(array.is_valid(), binary, None)


def _bytes(array: pa.Array) -> pa.Array:
    if not _all(pc.match_substring_regex(array, r"^\\x([0-9a-fA-F]{2})*$")):
        raise NotPlain
    digits = pc.utf8_slice_codeunits(pc.fill_null(array, "\\x"), 2)
    raw = bytes.fromhex(_data(digits).decode("ascii"))
    ends = pc.cumulative_sum(pc.divide(pc.binary_length(digits), 2))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    binary = pa.Array.from_buffers(pa.binary(), len(array), [None, offsets.buffers()[1], pa.py_buffer(raw)])
    return pc.if_else(array.is_valid(), binary, None)


def _jsonb(array: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(b"\x01", array.cast(pa.binary()), b"")  # jsonb_recv: a version byte, then text


_BOOLEAN_SPELLINGS = _boolean_spellings()

_SIMPLE_TEXT_RULES: dict[str, tuple[pa.DataType, Callable[[pa.Array], pa.Array]]] = {
    "bool": (pa.bool_(), _booleans),
    "date": (pa.date32(), _dates),
    "timestamp": (pa.timestamp("us"), _timestamps),
    "time": (pa.time64("us"), _times),
    "uuid": (pa.binary(16), _uuids),
    "bytea": (pa.binary(), _bytes),
    "jsonb": (pa.binary(), _jsonb),
}


def _all(condition: pa.Array) -> bool:
    """Whether `condition` holds wherever it is known."""
    return pc.all(condition, min_count=0).as_py() is not False


def _data(array: pa.Array) -> bytes:
    """The concatenated bytes of a `string` array without nulls."""
    offsets = array.buffers()[1]
    view = memoryview(offsets).cast("i")
    data = array.buffers()[2]
    return data.to_pybytes()[view[array.offset] : view[array.offset + len(array)]] if data is not None else b""


def _decimal_type(column: TargetColumn) -> pa.DataType | None:
    """`numeric(p,s)` as an Arrow type; None for other scales and precisions, which the encoder does not know."""
    if column.modifier < 0:
        return None
    precision = (column.modifier - 4) >> 16 & 0xFFFF
    scale = ((column.modifier - 4 & 0x7FF) ^ 1024) - 1024  # numeric_typmod_scale in numeric.c
    return pa.decimal128(precision, scale) if precision <= 38 and 0 <= scale <= precision else None


# -- typed values


def _typed_rule(source: pa.DataType, column: TargetColumn) -> tuple[pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    """The exact way for a typed column, or None to send its text form."""
    base = column.base
    if types.is_null(source):
        arrow = _null_type(column)
        return arrow, lambda array: pa.nulls(len(array), arrow)
    if types.is_timestamp(source) and source.tz and base == "timestamp":
        raise TargetError(
            f"column {column.name} is a timestamp without time zone, but the source's is a moment in time ({source})",
            code="zone_lost",
            hint="Make the column timestamptz, or write local time into the source.",
        )
    for matches, rule in (
        (types.is_integer, _integer_rule),
        (types.is_floating, _float_rule),
        (types.is_decimal, _decimal_rule),
        (_is_temporal, _temporal_rule),
        (_is_binary, _binary_rule),
    ):
        if matches(source):
            return _exact_rule(rule(source, column), column)
    if types.is_boolean(source) and base == "bool":
        return source, _same
    return None


def _exact_rule(
    arrow: pa.DataType | None, column: TargetColumn
) -> tuple[pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    return None if arrow is None else (arrow, lambda array: _exactly(array, arrow, column))


def _null_type(column: TargetColumn) -> pa.DataType:
    return _text_rule(column, Session(utc=False))[0] or pa.string()


def _is_binary(source: pa.DataType) -> bool:
    return bool(
        types.is_binary(source)
        or types.is_large_binary(source)
        or types.is_fixed_size_binary(source)
        or types.is_binary_view(source)
    )


def _is_temporal(source: pa.DataType) -> bool:
    return bool(
        types.is_date(source) or types.is_time(source) or types.is_timestamp(source) or types.is_duration(source)
    )


def _integer_rule(_source: pa.DataType, column: TargetColumn) -> pa.DataType | None:
    return INTEGERS.get(column.base) or FLOATS.get(column.base) or _numeric(column)


def _float_rule(_source: pa.DataType, column: TargetColumn) -> pa.DataType | None:
    return FLOATS.get(column.base) or _numeric(column)


def _numeric(column: TargetColumn) -> pa.DataType | None:
    return _decimal_type(column) if column.base == "numeric" else None


def _decimal_rule(source: pa.DataType, column: TargetColumn) -> pa.DataType | None:
    if column.base != "numeric":
        return None
    if column.modifier >= 0:
        return _decimal_type(column)
    if types.is_decimal256(source) or source.scale < 0:
        return None
    return pa.decimal128(source.precision, source.scale)


def _temporal_rule(source: pa.DataType, column: TargetColumn) -> pa.DataType | None:
    base = column.base
    if base == "date" and (types.is_date(source) or (types.is_timestamp(source) and not source.tz)):
        return pa.date32()
    if base == "timestamp" and (types.is_date(source) or types.is_timestamp(source)):
        return pa.timestamp("us")
    if base == "timestamptz" and types.is_timestamp(source) and source.tz:
        return pa.timestamp("us", "UTC")
    if base == "time" and types.is_time(source):
        return pa.time64("us")
    if base == "interval" and types.is_duration(source):
        return pa.duration("us")
    if types.is_timestamp(source) and source.unit == "ns":
        return pa.timestamp("us", source.tz)
    return None


def _binary_rule(source: pa.DataType, column: TargetColumn) -> pa.DataType | None:
    if column.base == "uuid" and types.is_fixed_size_binary(source) and source.byte_width == 16:
        return source
    if column.base == "bytea":
        return pa.binary()
    return pa.string() if _is_text_like(column) else None


def _exactly(array: pa.Array, arrow: pa.DataType, column: TargetColumn) -> pa.Array:
    """`array` as `arrow`, every value unchanged.

    Raises:
        Unstorable: a value would change or does not fit.
    """
    if array.type == arrow:
        return array
    try:
        return _cast_exactly(array, arrow)
    except pa.ArrowInvalid as error:
        raise _first_unstorable(array, arrow, column) from error


def _cast_exactly(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    source = array.type
    if types.is_float16(source):
        array = array.cast(pa.float32())
    if types.is_floating(source) and types.is_decimal(arrow):
        return _shortest(array).cast(arrow)
    if types.is_floating(source) and arrow == pa.float32():
        return _narrowed(array)
    if types.is_integer(source) and types.is_decimal(arrow):
        return array.cast(pa.string()).cast(arrow)
    return array.cast(arrow)


def _shortest(array: pa.Array) -> pa.Array:
    """Floats as the shortest text that reads back as the same float."""
    return array.cast(pa.string())


def _narrowed(array: pa.Array) -> pa.Array:
    """Doubles as floats; those whose shortest text is the same number in both lose nothing that anyone wrote."""
    narrow = array.cast(pa.float32())
    if not _all(pc.or_(pc.is_nan(array), pc.equal(_shortest(narrow).cast(pa.float64()), array))):
        raise pa.ArrowInvalid("a double does not fit a float")
    return narrow


def _first_unstorable(array: pa.Array, arrow: pa.DataType, column: TargetColumn) -> Unstorable:
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast_exactly(array.slice(low, middle - low), arrow)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    value = array[low].cast(pa.string()).as_py() if not _is_binary(array.type) else array[low].as_py().hex(" ")
    if _is_binary(array.type):
        return Unstorable(low, value, "22021", f"the bytes are not UTF-8, and column {column.name} is {column.type}")
    return Unstorable(
        low,
        value,
        "22003",
        f"{value} cannot be stored in {column.type} unchanged: it is out of range, or would be rounded",
    )


# -- text forms


def _text_form(arrow: pa.DataType, column: TargetColumn) -> Callable[[pa.Array], pa.Array]:
    if types.is_nested(arrow):
        as_json = column.base in JSON_TYPES
        return lambda array: pa.array([_nested_text(value, as_json) for value in array.to_pylist()], pa.string())
    if _is_binary(arrow):
        if column.base == "uuid":
            return lambda array: _python_text(array, bytes.hex)
        return lambda array: _python_text(array, lambda value: "\\x" + value.hex())
    if types.is_duration(arrow):
        return lambda array: pc.binary_join_element_wise(
            array.cast(pa.duration("us")).cast(pa.int64()).cast(pa.string()), "microseconds", " "
        )
    if types.is_date(arrow) or types.is_timestamp(arrow):
        return _temporal_text
    if types.is_float16(arrow):
        return lambda array: _shortest(array.cast(pa.float32()))
    return _as_string


def _python_text(array: pa.Array, form: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if value is None else form(value) for value in array.to_pylist()], pa.string())


def _temporal_text(array: pa.Array) -> pa.Array:
    """ISO 8601; outside the years 1 to 9999, where Arrow's and PostgreSQL's ways of writing part, Julian days."""
    stamps = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)))
    microseconds = stamps.cast(pa.int64())
    is_usual = pc.and_(
        pc.greater_equal(microseconds, _YEAR_ONE_MICROSECONDS), pc.less(microseconds, _YEAR_10000_MICROSECONDS)
    )
    if _all(is_usual):
        return array.cast(pa.string())
    zone = "Z" if getattr(array.type, "tz", None) else ""
    return _python_text(microseconds, lambda value: _julian(value, zone))


_YEAR_10000_MICROSECONDS = 253402300800 * 10**6
_DAY_MICROSECONDS = 86400 * 10**6


def _julian(microseconds: int, zone: str) -> str:
    days, rest = divmod(microseconds, _DAY_MICROSECONDS)
    seconds, fraction = divmod(rest, 10**6)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"
    return f"J{days + _UNIX_EPOCH_JULIAN_DAY} {clock}{zone}"


def _nested_text(value: Any, as_json: bool) -> str | None:
    """A list, struct or map as JSON, or as an array or row literal."""
    if value is None:
        return None
    if as_json:
        return json.dumps(_jsonable(value), ensure_ascii=False, allow_nan=False)
    return _literal(value)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(name): _jsonable(item) for name, item in value}
        return [_jsonable(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return value


def _literal(value: Any) -> str:
    """An array literal for a list, a row literal for a struct (PostgreSQL manual, 8.15.2 and 8.16.2)."""
    if isinstance(value, list):
        return "{" + ",".join("NULL" if item is None else _element(item) for item in value) + "}"
    if isinstance(value, dict):
        return "(" + ",".join("" if item is None else _quoted(_literal(item)) for item in value.values()) + ")"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return str(value)


def _element(item: Any) -> str:
    return _literal(item) if isinstance(item, list) else _quoted(_literal(item))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
