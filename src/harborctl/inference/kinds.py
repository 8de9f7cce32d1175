"""Kinds of text: what a column's values have in common, and the PostgreSQL type that gives each of them back.

A kind takes a value only if its type, written out as text again, is that very text, or an equal value in a spelling
that is listed in `SPELLINGS`. So 007, +49 30, "1,000", 1e5, 03/04/2026 and NA are text.
PostgreSQL's output functions are the rule: https://www.postgresql.org/docs/current/datatype.html
"""

from __future__ import annotations

import ipaddress
import math
import re
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from harborctl.codecs.text_input import every, held
from harborctl.sources.agreement import has_year_zero

if TYPE_CHECKING:
    from collections.abc import Callable


class Kind(StrEnum):
    """What all values of a column are."""

    NOTHING = "nothing"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    DECIMAL = "decimal"
    DOUBLE = "double precision"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    TIME = "time"
    INTERVAL = "interval"
    UUID = "uuid"
    INET = "inet"
    JSON = "json"
    TEXT = "text"


# Of a kind, the spellings that come back as an equal value in PostgreSQL's own.
SPELLINGS = {
    Kind.BOOLEAN: "true and false, in any case",
    Kind.TIMESTAMP: "T between date and time; missing seconds; zeros at the end of a fraction",
    Kind.TIMESTAMPTZ: "any zone; T between date and time; missing seconds; zeros at the end of a fraction",
    Kind.TIME: "missing seconds; zeros at the end of a fraction",
    Kind.INTERVAL: "ISO 8601, such as P1DT2H",
    Kind.UUID: "upper case",
}

# numeric holds so many digits before the point, and so many behind it.
MOST_DIGITS = 131_072
MOST_SCALE = 16_383
# Arrow's decimals, and a numeric with a precision, hold fewer.
MOST_PRECISION = 1000

_INTEGER = r"^(0|-?[1-9][0-9]*)$"
_DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_ZERO = re.compile(r"-0*\.?0*")
_DOUBLE = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?|NaN|-?Infinity")
_BOOLEAN = r"^((?i:true|false)|t|f)$"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_TIMESTAMP = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]{_CLOCK}$"
_TIMESTAMPTZ = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]{_CLOCK}(Z|[-+][0-9]{{2}}(:?[0-9]{{2}})?)$"
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?$"
_DAYS = r"([0-9]{1,6}Y)?([0-9]{1,6}M)?([0-9]{1,6}W)?([0-9]{1,6}D)?"
_HOURS = r"([0-9]{1,6}H)?([0-9]{1,6}M)?([0-9]{1,6}(\.[0-9]{1,6})?S)?"
_INTERVAL = re.compile(rf"P(?=[0-9T]){_DAYS}(T(?=[0-9]){_HOURS})?")
_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_INET = r"^([0-9.]{7,15}|[0-9a-f:]*:[0-9a-f:]*)(/[0-9]{1,3})?$"

_JSON = msgspec.json.Decoder()


def looks_like(value: str) -> Kind:
    """The kind of a single value."""
    for kind, takes in _TAKES.items():
        if takes(pa.array([value], pa.string())):
            return kind
    return Kind.TEXT


def takes(kind: Kind, values: pa.Array) -> bool:
    """Whether every value of a `string` array without NULLs is of this kind."""
    return kind is Kind.TEXT or _TAKES[kind](values)


# -- numbers


def _booleans(values: pa.Array) -> bool:
    return every(pc.match_substring_regex(values, _BOOLEAN))


def _integers(values: pa.Array) -> bool:
    return plain_integers(values) is not None or every(pc.match_substring_regex(values, _INTEGER))


def plain_integers(values: pa.Array) -> pa.Array | None:
    """The integers that all of these are, of 18 digits at most; None may mean that nobody has looked closely.

    A value with a zero or anything else before its digits is longer than the number that it stands for. So it is enough
    to compare lengths, which takes a third of the time of a regular expression.
    """
    text = held(values)
    if len(text) > 18 * len(values) or text.translate(None, b"0123456789-"):
        return None
    try:
        numbers = values.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return numbers if len(text) == _written_length(numbers) else None


def _written_length(numbers: pa.Array) -> int:
    """How many characters these numbers take, written out up to their decimal point."""
    negative = pc.sum(pc.less(numbers, 0)).as_py() or 0
    length = len(numbers) + negative
    numbers = pc.abs(numbers) if negative else numbers
    largest, limit = pc.max(numbers).as_py() or 0, 10
    while limit <= largest:
        length += pc.sum(pc.greater_equal(numbers, limit)).as_py() or 0
        limit *= 10
    return length


def _decimals(values: pa.Array) -> bool:
    if plain_decimals(values) is not None:
        return True
    if not every(pc.match_substring_regex(values, _DECIMAL)):
        return False
    # A minus before zero would be lost.
    return not any(map(_ZERO.fullmatch, values.filter(pc.starts_with(values, "-0")).to_pylist()))


def plain_decimals(values: pa.Array) -> tuple[int, pa.Array] | None:
    """How many decimals all of them have, if as many, and the values, rounded to doubles; None for values of more than
    15 digits, and perhaps for others, too. Lengths are compared, as for integers."""
    text = held(values)
    if text.count(b".") != len(values) or b"-." in text or text.translate(None, b"0123456789.-"):
        return None
    first = values[0].as_py()
    scale = len(first) - first.find(".") - 1
    lengths = pc.min_max(pc.binary_length(values)).as_py()
    if scale < 1 or lengths["min"] < scale + 2 or lengths["max"] > 16:
        return None
    points = pc.binary_slice(values.cast(pa.binary()), -scale - 1, -scale)
    if not every(pc.equal(points, b".")):
        return None
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    is_plain = len(text) == _written_length(numbers) + len(values) * (1 + scale)
    return (scale, numbers) if is_plain else None


def _doubles(values: pa.Array) -> bool:
    return all(_is_double(value) for value in values.to_pylist())


def _is_double(value: str) -> bool:
    if _DOUBLE.fullmatch(value) is None or written_double(number := float(value)) != value:
        return False
    # Of two numbers of equal length the server never takes one that lies just between two doubles (d2s.c), Python does.
    # Only where doubles are whole numbers, or nearly so, can few digits lie there.
    return abs(number) < 2**51 or not math.isfinite(number) or not _is_between(number, value)


def _is_between(number: float, value: str) -> bool:
    exact = Fraction(value)
    return any(
        2 * exact == Fraction(number) + Fraction(math.nextafter(number, end)) for end in (0.0, math.inf, -math.inf)
    )


def written_double(number: float) -> str:
    """A float8 as the server writes it: the shortest digits that are this number, with an exponent where that is less
    than -4 or more than 14 (float8out_internal in float.c)."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    sign, digits, exponent = _shortest(number)
    if not -4 <= exponent <= 14:
        fraction = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return sign + whole + ("." + fraction if fraction else "")


def _shortest(number: float) -> tuple[str, str, int]:
    """Sign, digits without zeros at either end, and the exponent of the first of them."""
    sign = "-" if math.copysign(1, number) < 0 else ""
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign, "0", 0
    leading = len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    return sign, digits.rstrip("0"), leading + int(exponent or 0)


# -- moments


def _dates(values: pa.Array) -> bool:
    try:
        return not has_year_zero(values.cast(pa.date32()))  # takes 2024-02-29, and nothing shorter or longer
    except pa.ArrowInvalid:
        return False


def _timestamps(values: pa.Array) -> bool:
    return _cast(values, _TIMESTAMP, pa.timestamp("us"))


def _timestamptzs(values: pa.Array) -> bool:
    return _cast(values, _TIMESTAMPTZ, pa.timestamp("us", "UTC"))


def _times(values: pa.Array) -> bool:
    return every(pc.match_substring_regex(values, _TIME))


def _cast(values: pa.Array, pattern: str, arrow: pa.DataType) -> bool:
    if not every(pc.match_substring_regex(values, pattern)):
        return False
    try:
        moments = values.cast(arrow)
    except pa.ArrowInvalid:
        return False  # the 30th of February
    return not has_year_zero(moments.cast(pa.date32(), safe=False))


def _intervals(values: pa.Array) -> bool:
    return all(_INTERVAL.fullmatch(value) for value in values.to_pylist())


# -- others


def _uuids(values: pa.Array) -> bool:
    return every(pc.match_substring_regex(values, _UUID))


def _inets(values: pa.Array) -> bool:
    return every(pc.match_substring_regex(values, _INET)) and all(map(_is_inet, values.to_pylist()))


def _is_inet(value: str) -> bool:
    address, slash, bits = value.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if str(parsed) != address or (parsed.version == 6 and parsed.ipv4_mapped is not None):
        return False
    return not slash or (
        str(int(bits)) == bits and int(bits) < parsed.max_prefixlen
    )  # the server leaves a full one out


def _jsons(values: pa.Array) -> bool:
    return all(value[:1] in ("{", "[") and _is_json(value) for value in values.to_pylist())


def _is_json(value: str) -> bool:
    try:
        _JSON.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


# The first that takes a value is its kind.
_TAKES: dict[Kind, Callable[[pa.Array], bool]] = {
    Kind.INTEGER: _integers,
    Kind.DECIMAL: _decimals,
    Kind.DOUBLE: _doubles,
    Kind.DATE: _dates,
    Kind.TIMESTAMP: _timestamps,
    Kind.TIMESTAMPTZ: _timestamptzs,
    Kind.TIME: _times,
    Kind.INTERVAL: _intervals,
    Kind.UUID: _uuids,
    Kind.INET: _inets,
    Kind.JSON: _jsons,
    Kind.BOOLEAN: _booleans,
}
