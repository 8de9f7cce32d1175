"""Typed Arrow values → text, exactly: as PostgreSQL's input functions read it, or as JSON.

Nothing here rounds: floats are the shortest text that reads back as the same float, decimals have all their digits,
times all that their unit has. What a text cannot say is `Inexpressible`. Nested values are taken apart by Arrow, not
turned into Python objects, which know neither nanoseconds nor the year 10000.
"""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from harborctl.codecs.text_input import every
from harborctl.sources.agreement import YEAR_ONE_DAYS
from harborctl.sources.json_text import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# The digits behind the seconds' point, by unit.
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}

_DAY_SECONDS = 86400
_YEAR_10000_DAYS = 2932897  # from 1970


class Inexpressible(ValueError):
    """A value that text of this kind has no way to write."""


def is_binary(arrow: pa.DataType) -> bool:
    """Whether values of this type are bytes."""
    return bool(
        types.is_binary(arrow)
        or types.is_large_binary(arrow)
        or types.is_fixed_size_binary(arrow)
        or types.is_binary_view(arrow)
    )


def is_text(arrow: pa.DataType) -> bool:
    """Whether values of this type are text."""
    return bool(types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow))


def is_list(arrow: pa.DataType) -> bool:
    """Whether values of this type are lists, however they are laid out. A map is none."""
    return bool(
        types.is_list(arrow)
        or types.is_large_list(arrow)
        or types.is_fixed_size_list(arrow)
        or types.is_list_view(arrow)
        or types.is_large_list_view(arrow)
    )


def dimensions_of(arrow: pa.DataType) -> int:
    """How many lists lie in each other; 0 of what is no list."""
    arrow = bare(pa.nulls(0, arrow)).type
    return 1 + dimensions_of(arrow.value_type) if is_list(arrow) else 0


def bare(array: pa.Array) -> pa.Array:
    """The values without what only says how they are stored: dictionaries, runs, extension types.

    The extension types that mean something else than their storage are turned into it: a UUID into its usual text, an
    8-bit boolean into a boolean.
    """
    arrow = array.type
    if types.is_dictionary(arrow):
        return bare(array.dictionary_decode())
    if types.is_run_end_encoded(arrow):
        return bare(pc.run_end_decode(array))
    if isinstance(arrow, pa.UuidType):
        return pa.array([value and str(value) for value in array.to_pylist()], pa.string())
    if isinstance(arrow, pa.Bool8Type):
        return pc.not_equal(array.storage, 0)
    return bare(array.storage) if isinstance(arrow, pa.BaseExtensionType) else array


def text_form(array: pa.Array) -> pa.Array:
    """Values as `string`, in PostgreSQL's input syntax; lists as array literals, structs as row literals.

    Raises:
        Inexpressible: there is no such text.
        pa.ArrowInvalid, UnicodeDecodeError: a text is not UTF-8.
    """
    array = bare(array)
    arrow = array.type
    if is_text(arrow):
        return array.cast(pa.string())
    for matches, form in _FORMS:
        if matches(arrow):
            return form(array)
    if types.is_float16(arrow):
        array = array.cast(pa.float32())
    text = array.cast(pa.string())
    if types.is_decimal(arrow) and pc.any(pc.match_substring(text, "E")).as_py():
        return _strings(_plain_digits(value) for value in text.to_pylist())
    return text


def json_form(array: pa.Array) -> pa.Array:
    """Values as JSON documents, `string`. Texts become JSON strings: they are values here, not documents.

    Raises: as `text_form`; numbers that JSON lacks (NaN, infinity) and names that stand twice are Inexpressible.
    """
    return _json(array)


def _strings(texts: Iterable[str | None]) -> pa.Array:
    return pa.array(list(texts), pa.string())


def _each(array: pa.Array, form: Callable[[Any], str]) -> pa.Array:
    return _strings(None if value is None else form(value) for value in array.to_pylist())


def _plain_digits(value: str | None) -> str | None:
    return value and format(Decimal(value), "f")


# -- dates, times, intervals


def _dates(array: pa.Array) -> pa.Array:
    """ISO 8601; outside the years 1 to 9999 as PostgreSQL writes them."""
    array = array.cast(pa.date32(), safe=False)
    days = array.cast(pa.int32())
    if every(pc.and_(pc.greater_equal(days, YEAR_ONE_DAYS), pc.less(days, _YEAR_10000_DAYS))):
        return array.cast(pa.string())
    return _each(days, _date)


def _moments(array: pa.Array) -> pa.Array:
    """As dates, with a time. A moment in time has its zone's offset."""
    unit, zone = array.type.unit, array.type.tz
    counts = array.cast(pa.int64())
    seconds = pc.divide(counts, 10 ** DIGITS[unit])
    # A day from the borders no offset crosses them.
    low, high = (YEAR_ONE_DAYS + 1) * _DAY_SECONDS, (_YEAR_10000_DAYS - 1) * _DAY_SECONDS
    if every(pc.and_(pc.greater_equal(seconds, low), pc.less(seconds, high))):
        try:
            return array.cast(pa.string())
        except pa.ArrowInvalid:
            pass  # a zone that this machine does not know; the moment is known all the same
    return _each(counts, lambda count: _moment(count, unit, "Z" if zone else ""))


def _moment(count: int, unit: str, zone: str) -> str:
    days, rest = divmod(count, _DAY_SECONDS * 10 ** DIGITS[unit])
    return _date(days, f" {_clock(rest, unit)}{zone}")


def _date(days: int, rest: str = "") -> str:
    """A day and what follows it, the era last."""
    year, month, day = _civil(days)
    return f"{year:04}-{month:02}-{day:02}{rest}" if year > 0 else f"{1 - year:04}-{month:02}-{day:02}{rest} BC"


def _civil(days: int) -> tuple[int, int, int]:
    """Days since 1970 → year, month, day of the Gregorian calendar, however far back; the year 0 is 1 BC."""
    # Counted in eras of 400 years (146 097 days) that begin on the first of March, so that a leap day comes last.
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    month = march_month + 3 if march_month < 10 else march_month - 9
    return era * 400 + year_of_era + (month <= 2), month, day_of_year - (153 * march_month + 2) // 5 + 1


def _clock(count: int, unit: str) -> str:
    seconds, fraction = divmod(count, 10 ** DIGITS[unit])
    point = f".{fraction:0{DIGITS[unit]}}" if DIGITS[unit] else ""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}"


def _clocks(array: pa.Array) -> pa.Array:
    """Times of day, and durations: hours, minutes, seconds, as many hours as it takes."""
    unit = array.type.unit
    counts = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return _each(counts, lambda count: ("-" if count < 0 else "") + _clock(abs(count), unit))


def _calendar_intervals(array: pa.Array) -> pa.Array:
    def text(value: pa.MonthDayNano) -> str:
        sign = "-" if value.nanoseconds < 0 else ""
        return f"{value.months} mons {value.days} days {sign}{_clock(abs(value.nanoseconds), 'ns')}"

    return _each(array, text)


# -- bytes and nested values


def _hex(array: pa.Array) -> pa.Array:
    return _each(array, lambda value: "\\x" + value.hex())


def array_literals(array: pa.Array, element_text: Callable[[pa.Array], pa.Array], dimensions: int = 1) -> pa.Array:
    """Lists as PostgreSQL reads arrays (manual, 8.15.2), their elements as `element_text` writes them.

    Every element is quoted: it may read NULL, or be empty, or have braces in it. A list in a list is a dimension more;
    there PostgreSQL has no NULL, and takes {{}} for {}.
    """
    items = array.flatten()
    if dimensions == 1:
        return _joined(array, _quoted(element_text(items)), "{}", "NULL")
    items = bare(items)
    if pc.any(pc.equal(pc.list_value_length(items), 0)).as_py():
        raise Inexpressible("PostgreSQL's arrays cannot have an empty list in a list")
    return _joined(array, array_literals(items, element_text, dimensions - 1), "{}", "NULL")


def row_literals(array: pa.Array, texts: Sequence[pa.Array | None]) -> pa.Array:
    """Structs as PostgreSQL reads rows (manual, 8.16.2), given each attribute's texts; NULL is nothing at all."""
    nothing = pa.nulls(len(array), pa.string())
    quoted = [nothing if text is None else _quoted(text) for text in texts]
    return _where_valid(array, _around("(", _side_by_side(quoted, len(array), ",", ""), ")"))


def _joined(array: pa.Array, texts: pa.Array, around: str, null: str) -> pa.Array:
    """Each list's items, whose texts follow each other, between the two characters of `around`."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)]).cast(pa.int32())
    lists = pa.ListArray.from_arrays(ends, pc.fill_null(texts, null))
    return _where_valid(array, _around(around[0], pc.binary_join(lists, ","), around[1]))


def _side_by_side(texts: Sequence[pa.Array], rows: int, between: str, null: str) -> pa.Array:
    if not texts:
        return pa.repeat("", rows)
    return pc.binary_join_element_wise(*texts, between, null_handling="replace", null_replacement=null)


def _around(before: str, texts: pa.Array, behind: str) -> pa.Array:
    return pc.binary_join_element_wise(before, texts, behind, "")


def _where_valid(array: pa.Array, texts: pa.Array) -> pa.Array:
    return pc.if_else(array.is_valid(), texts, None) if array.null_count else texts


def _quoted(texts: pa.Array) -> pa.Array:
    for character in ("\\", '"'):
        texts = pc.replace_substring(texts, character, "\\" + character)
    return _around('"', texts, '"')


# -- JSON


def _json(array: pa.Array) -> pa.Array:
    is_document = isinstance(array.type, pa.JsonType)
    array = bare(array)
    if is_document:
        return _each(array, _document)
    arrow = array.type
    if types.is_map(arrow):
        return _json_objects_of_maps(array)
    if is_list(arrow):
        return _joined(array, _json(array.flatten()), "[]", "null")
    if types.is_struct(arrow):
        return _json_objects(array)
    texts = text_form(array)
    if types.is_floating(arrow) and not every(pc.is_finite(array)):
        raise Inexpressible("JSON has neither NaN nor infinity")
    if any(matches(arrow) for matches in _JSON_LITERALS):
        return texts
    if types.is_timestamp(arrow):
        texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    return _each(texts, json_text)


# Types whose text is JSON as it stands.
_JSON_LITERALS = (types.is_floating, types.is_integer, types.is_decimal, types.is_boolean, types.is_null)


def _json_items(array: pa.Array) -> Iterator[str]:
    return ("null" if text is None else text for text in _json(array).to_pylist())


def _document(text: str) -> str:
    """A text that says of itself to be JSON. Other text, put between brackets, might become JSON of another meaning."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Inexpressible(f"it is not JSON, though the file says so: {error}") from error
    return text


def _refuse_constant(name: str) -> None:
    raise Inexpressible(f"JSON has no {name}")


def _json_objects(array: pa.Array) -> pa.Array:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names) and array.null_count < len(array):
        raise Inexpressible("a JSON object cannot have two fields of one name")
    fields = [
        _around(json_text(name) + ":", pc.fill_null(_json(field), "null"), "")
        for name, field in zip(names, array.flatten(), strict=True)
    ]
    return _where_valid(array, _around("{", _side_by_side(fields, len(array), ",", "null"), "}"))


def _json_objects_of_maps(array: pa.Array) -> pa.Array:
    entries = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    pairs = entries.flatten()
    # JSON's keys are strings: others become the text of their JSON.
    keys = (key if key.startswith('"') else json_text(key) for key in _json_items(pairs.field("key")))
    items = zip(keys, _json_items(pairs.field("value")), strict=True)
    return _each(pc.list_value_length(entries), lambda length: _json_object(islice(items, length)))


def _json_object(items: Iterable[tuple[str, str]]) -> str:
    pairs = list(items)
    if len({name for name, _ in pairs}) < len(pairs):
        raise Inexpressible("a JSON object cannot have two fields of one name")
    return "{" + ",".join(f"{name}:{text}" for name, text in pairs) + "}"


_FORMS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (types.is_date, _dates),
    (types.is_timestamp, _moments),
    (types.is_time, _clocks),
    (types.is_duration, _clocks),
    (types.is_interval, _calendar_intervals),
    (is_binary, _hex),
    (is_list, lambda array: array_literals(array, text_form, dimensions_of(array.type))),
    (types.is_struct, lambda array: row_literals(array, [text_form(field) for field in array.flatten()])),
    (types.is_map, _json),
)
