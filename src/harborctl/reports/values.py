"""Turns the text of a parameter into a Python value of the parameter's type, without asking a database.

What passes here is accepted by the server as that type. Dates and timestamps also know words: `today`, `-7d`,
`2026-11`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from harborctl.reports.moments import read_date, read_timestamp, read_timestamptz

if TYPE_CHECKING:
    from collections.abc import Callable

# What is bound: an interval stays text, because Python has no months.
NUMBER_TYPES = ("integer", "bigint", "numeric", "double precision")
VALUE_TYPES = (*NUMBER_TYPES, "text", "boolean", "date", "timestamp", "timestamptz", "interval")
# What is no value: a name that is looked up in the catalog, and written into the statement as that says it.
_NAMES = ("table", "column")
TYPE_NAMES = (*VALUE_TYPES, *_NAMES)
Scalar = int | float | Decimal | str | bool | date | datetime
Value = Scalar | list[Scalar | None] | None

_ALIASES = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "decimal": "numeric",
    "float": "double precision",
    "float8": "double precision",
    "varchar": "text",
    "character varying": "text",
    "bool": "boolean",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}


class BadValue(ValueError):
    """The text is not of the type. The message continues "must be …"."""


@dataclass(frozen=True, slots=True)
class ParameterType:
    """The declared type of a parameter: one of `TYPE_NAMES`, or a list of it."""

    name: str
    is_list: bool = False

    @property
    def is_identifier(self) -> bool:
        """Whether its values are names of tables or columns, not data."""
        return self.name in _NAMES

    def __str__(self) -> str:
        return f"{self.name}[]" if self.is_list else self.name

    @property
    def is_number(self) -> bool:
        """Whether its values, or the elements of its lists, are numbers."""
        return self.name in NUMBER_TYPES

    def given(self, text: str, now: datetime) -> Value:
        """As `value`, of what was typed on a command line, where NULL has to be a word.

        `null` is NULL, and so is nothing at all where it could be nothing else; the text of these four letters is
        written `'null'`. Names are never NULL.
        """
        if self.is_identifier:
            return self.value(text, now)
        if self.name != "text":
            return (
                None if text.strip().lower() in (("null",) if self.is_list else ("null", "")) else self.value(text, now)
            )
        if text in ("null", "NULL"):
            return None
        return self.value(text[1:-1] if text in ("'null'", "'NULL'") else text, now)

    def value(self, text: str, now: datetime) -> Scalar | list[Scalar | None]:
        """The value that `text` spells. `now` is the local time, with its zone.

        Raises:
            BadValue: the text is not of this type.
        """
        if "\0" in text:
            raise BadValue("free of NUL characters, which PostgreSQL cannot store")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise BadValue("in UTF-8")
        read = _READERS[self.name]
        if not self.is_list:
            return read(text, now)
        elements = _raw_elements(text) if self.is_identifier else _elements(text)
        return [None if element is None else read(element, now) for element in elements]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number must lie between, both included; None where there is no bound."""

    low: Decimal | None
    high: Decimal | None

    def check(self, value: object) -> None:
        """Raises BadValue if the number is out of bounds. NULL is not."""
        if not isinstance(value, (int, float, Decimal)):
            return
        out = math.isnan(value) or (self.low is not None and value < self.low)
        if out or (self.high is not None and value > self.high):
            raise BadValue(self.sentence)

    @property
    def sentence(self) -> str:
        """For people: `between 1 and 366`."""
        if self.low is None:
            return f"at most {self.high}"
        return f"at least {self.low}" if self.high is None else f"between {self.low} and {self.high}"

    def __str__(self) -> str:
        low, high = ("" if bound is None else str(bound) for bound in (self.low, self.high))
        return f"[{low}..{high}]"


def parameter_type(text: str) -> ParameterType | None:
    """The type that a report's header names, or None."""
    words = " ".join(text.lower().split())
    bare = words.removesuffix("[]").rstrip()
    name = _ALIASES.get(bare, bare)
    return ParameterType(name, words.endswith("[]")) if name in TYPE_NAMES else None


# `a,"b,c"`, as CSV has it. What stands behind the last element is the end, which is matched as a separator.
_IN_LINE = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*+)"\s*|(?P<bare>[^",\r\n][^,\r\n]*+)?)(?P<end>,|\Z)')
# `{a,"b,c"}`: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
_BLANK = r"[ \t\n\r\f\v]*+"
_IN_BRACES = re.compile(
    rf'{_BLANK}(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<bare>(?:[^"\\,{{}}]|\\.)+?)){_BLANK}(?P<end>,|\Z)', re.DOTALL
)
_RAW = re.compile(r'(?P<bare>(?:"(?:[^"]|"")*+"|[^",])*+)(?P<end>,|\Z)')
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_A_LIST = 'a list such as a,b or a,"b,c" or {a,NULL}'


def _elements(text: str) -> list[str | None]:
    """`1,2`, or `{1,2}` as SQL writes it. Double quotes keep a comma inside an element; NULL without them is NULL."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        found = _split(_IN_BRACES, inner[1:-1])
        return [None if _is_null(bare) else _ESCAPED.sub(r"\1", bare or quoted or "") for bare, quoted in found]
    found = _split(_IN_LINE, inner)
    return [None if _is_null(bare) else bare or (quoted or "").replace('""', '"') for bare, quoted in found]


def _is_null(bare: str | None) -> bool:
    return bare is not None and bare.strip().lower() == "null"


def _raw_elements(text: str) -> list[str]:
    """The elements with their quotes, which mean something in a name."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    return [bare or "" for bare, _ in _split(_RAW, inner)]


def _split(element: re.Pattern[str], text: str) -> list[tuple[str | None, str | None]]:
    found: list[tuple[str | None, str | None]] = []
    position, goes_on = 0, bool(text.strip())
    while goes_on:
        match = element.match(text, position)
        if match is None:
            raise BadValue(_A_LIST)
        groups = match.groupdict()
        found.append((groups["bare"], groups.get("quoted")))
        position, goes_on = match.end(), match["end"] == ","
    return found


def _integer(bits: int) -> Callable[[str, datetime], int]:
    limit = 2 ** (bits - 1)

    def read(text: str, _now: datetime) -> int:
        # Not int(text) alone: Python also takes 1_000 and other scripts' digits. 20 characters bound the work.
        number = int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", text) else None
        if number is None:
            raise BadValue("a whole number")
        if not -limit <= number < limit:
            raise BadValue(f"between {-limit} and {limit - 1}")
        return number

    return read


_NUMERIC = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,6})?|[+-]?(?:inf|infinity)|nan", re.IGNORECASE | re.ASCII
)


def _numeric(text: str, _now: datetime) -> Decimal:
    bare = text.strip()
    if not _NUMERIC.fullmatch(bare):
        raise BadValue("a number such as 12 or 12.50")
    number = Decimal(bare)
    # https://www.postgresql.org/docs/current/datatype-numeric.html: up to 131072 digits before the point, 16383 after.
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and (number.adjusted() >= 131072 or exponent < -16383):
        raise BadValue("a number that PostgreSQL can store")
    return number


def _double(text: str, now: datetime) -> float:
    number = _numeric(text, now)
    value = float(number)
    # As the server says: "1e400" is out of range for type double precision.
    if number.is_finite() and (math.isinf(value) or (value == 0 and number != 0)):
        raise BadValue("a number that double precision can hold")
    return value


def _text(text: str, _now: datetime) -> str:
    return text


def _name(text: str, _now: datetime) -> str:
    if not text.strip():
        raise BadValue("a name")
    return text.strip()


_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def _boolean(text: str, _now: datetime) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise BadValue("true or false") from None


_DATE_HINT = "a date such as 2026-11-30, 2026-11, today, yesterday or -7d (units: d, w, mon, y)"
_TIMESTAMP_HINT = "a timestamp such as 2026-11-30 12:00, 2026-11, now, today or -2h (units: min, h, d, w, mon, y)"


def _date(text: str, now: datetime) -> date:
    try:
        return read_date(text, now)
    except (ValueError, OverflowError):
        raise BadValue(_DATE_HINT) from None


def _timestamp(text: str, now: datetime) -> datetime:
    try:
        moment = read_timestamp(text, now)
    except (ValueError, OverflowError):
        raise BadValue(_TIMESTAMP_HINT) from None
    if moment.tzinfo is not None:
        raise BadValue("without a time zone; declare the parameter as timestamptz to take one")
    return moment


def _timestamptz(text: str, now: datetime) -> datetime:
    try:
        return read_timestamptz(text, now)
    except (ValueError, OverflowError):
        raise BadValue(_TIMESTAMP_HINT) from None


_UNITS = (
    r"microseconds?|us|milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|hours?|hrs?|h|days?|d|weeks?|w"
    r"|months?|mons?|years?|yrs?|y"
)
_QUANTITY = rf"[+-]?\d{{1,8}}(?:\.\d{{1,6}})?\s*(?:{_UNITS})"
_CLOCK = r"[+-]?\d{1,6}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?"
_INTERVAL = re.compile(
    rf"{_QUANTITY}(?:\s*{_QUANTITY})*(?:\s+{_CLOCK})?(?:\s+ago)?|{_CLOCK}"
    r"|P(?=.)(?:\d{1,8}Y)?(?:\d{1,8}M)?(?:\d{1,8}W)?(?:\d{1,8}D)?"
    r"(?:T(?=.)(?:\d{1,8}H)?(?:\d{1,8}M)?(?:\d{1,8}(?:\.\d{1,6})?S)?)?",
    re.IGNORECASE | re.ASCII,
)


def _interval(text: str, _now: datetime) -> str:
    """A subset of https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-INTERVAL-INPUT"""
    bare = text.strip()
    if not _INTERVAL.fullmatch(bare):
        raise BadValue("an interval such as 7 days, 1 month or 12:30")
    return bare


_READERS: dict[str, Callable[[str, datetime], Scalar]] = {
    "integer": _integer(32),
    "bigint": _integer(64),
    "numeric": _numeric,
    "double precision": _double,
    "text": _text,
    "table": _name,
    "column": _name,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "interval": _interval,
}
