"""Turns the text of a parameter into a Python value of the parameter's type, without asking a database.

What passes here is accepted by the server as that type. Dates and timestamps also know words: `today`, `-7d`,
`2026-11`.
"""

from __future__ import annotations

import calendar
import csv
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# What is bound: an interval stays text, because Python has no months.
VALUE_TYPES = ("integer", "bigint", "numeric", "text", "boolean", "date", "timestamp", "timestamptz", "interval")
# What is no value: a name that is looked up in the catalog, and written into the statement as that says it.
_NAMES = ("table", "column")
TYPE_NAMES = (*VALUE_TYPES, *_NAMES)
Scalar = int | Decimal | str | bool | date | datetime
Value = Scalar | list[Scalar] | None

_ALIASES = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "decimal": "numeric",
    "varchar": "text",
    "bool": "boolean",
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

    def value(self, text: str, now: datetime) -> Scalar | list[Scalar]:
        """The value that `text` spells. `now` is the local time, with its zone.

        Raises:
            BadValue: the text is not of this type.
        """
        if "\0" in text:
            raise BadValue("free of NUL characters, which PostgreSQL cannot store")
        if not self.is_list:
            return _READERS[self.name](text, now)
        return [_READERS[self.name](element, now) for element in _elements(text)]


def parameter_type(text: str) -> ParameterType | None:
    """The type that a report's header names, or None."""
    bare = text.lower().removesuffix("[]")
    name = _ALIASES.get(bare, bare)
    return ParameterType(name, text.endswith("[]")) if name in TYPE_NAMES else None


def _elements(text: str) -> list[str]:
    """`1,2`, or `{1,2}` as SQL writes it. Double quotes keep a comma inside an element."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    if not inner.strip():
        return []
    try:
        [elements] = csv.reader([inner], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise BadValue('a list such as a,b or a,"b,c"') from None
    return elements


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


# `m` is left out on purpose: it is months to some and minutes to others.
_STEP = r"[+-]\d{1,6}(?:d|w|mon|y|h|min)"
_RELATIVE = re.compile(rf"(?P<base>today|yesterday|tomorrow|now)?(?P<steps>(?:{_STEP})*)", re.ASCII)
_DATE_HINT = "a date such as 2026-11-30, 2026-11, today, yesterday or -7d (units: d, w, mon, y)"
_TIMESTAMP_HINT = "a timestamp such as 2026-11-30 12:00, 2026-11, now, today or -2h (units: min, h, d, w, mon, y)"


def _date(text: str, now: datetime) -> date:
    bare = text.strip().lower()
    try:
        if re.fullmatch(r"\d{4}-\d{2}", bare, re.ASCII):
            return date.fromisoformat(f"{bare}-01")
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", bare, re.ASCII):
            return date.fromisoformat(bare)
        if bare and not re.search(r"min|h|now", bare):
            return _relative(bare, now, "today").date()
    except (ValueError, OverflowError):
        pass
    raise BadValue(_DATE_HINT)


def _timestamp(text: str, now: datetime) -> datetime:
    moment = _moment(text, now)
    if moment.tzinfo is not None:
        raise BadValue("without a time zone; declare the parameter as timestamptz to take one")
    return moment


def _timestamptz(text: str, now: datetime) -> datetime:
    moment = _moment(text, now)
    try:
        # Without an offset it is meant in the zone of whoever typed it.
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, OverflowError, OSError):
        raise BadValue(_TIMESTAMP_HINT) from None


def _moment(text: str, now: datetime) -> datetime:
    bare = text.strip()
    try:
        if re.fullmatch(r"\d{4}-\d{2}", bare, re.ASCII):
            return datetime.fromisoformat(f"{bare}-01")
        if re.match(r"\d{4}-\d{2}-\d{2}(?:$|[ T]\d{2}:)", bare, re.ASCII):
            return datetime.fromisoformat(bare)
        if bare:
            return _relative(bare.lower(), now, "now")
    except (ValueError, OverflowError):
        pass
    raise BadValue(_TIMESTAMP_HINT)


def _relative(text: str, now: datetime, default_base: str) -> datetime:
    """`today-7d`, `-2h`, `yesterday`; without a zone. Raises ValueError for anything else."""
    match = _RELATIVE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    moment = now.replace(tzinfo=None)
    base = match["base"] or default_base
    if base != "now":
        moment = datetime.combine(moment.date(), time())
    moment += timedelta(days={"yesterday": -1, "tomorrow": 1}.get(base, 0))
    for amount, unit in re.findall(r"([+-]\d+)([a-z]+)", match["steps"]):
        moment = _stepped(moment, int(amount), unit)
    return moment


def _stepped(moment: datetime, amount: int, unit: str) -> datetime:
    if unit in ("mon", "y"):
        months = moment.year * 12 + moment.month - 1 + amount * (12 if unit == "y" else 1)
        year, month = divmod(months, 12)
        # As in PostgreSQL, the 31st minus a month is the last day of a shorter one.
        if not 1 <= year <= 9999:
            raise OverflowError(year)
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        return moment.replace(year=year, month=month + 1, day=day)
    unit_length = {
        "d": timedelta(days=1),
        "w": timedelta(weeks=1),
        "h": timedelta(hours=1),
        "min": timedelta(minutes=1),
    }
    return moment + amount * unit_length[unit]


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
    "text": _text,
    "table": _name,
    "column": _name,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "interval": _interval,
}
