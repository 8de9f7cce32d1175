"""From a parameter's text to its value, and from there through the server and back."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from harborctl.reports.formats import Format
from harborctl.reports.parse import parse_report
from harborctl.reports.render import Layout, render
from harborctl.reports.run import run_report
from harborctl.reports.values import VALUE_TYPES, BadValue, Value, parameter_type

NOW = datetime(2026, 3, 31, 15, 30, tzinfo=timezone(timedelta(hours=2)))


def value(type_name: str, spelled: str) -> Value:
    declared = parameter_type(type_name)
    assert declared is not None
    return declared.value(spelled, NOW)


@pytest.mark.parametrize(
    ("type_name", "spelled", "expected"),
    [
        ("integer", " 5 ", 5),
        ("integer", "-2147483648", -(2**31)),
        ("int", "+7", 7),
        ("bigint", "9223372036854775807", 2**63 - 1),
        ("numeric", "12.50", Decimal("12.50")),
        ("numeric", ".5e-3", Decimal("0.0005")),
        ("text", " as it is ", " as it is "),
        ("text", "", ""),
        ("boolean", "Yes", True),
        ("boolean", "0", False),
        ("date", "2026-11-30", date(2026, 11, 30)),
        ("date", "2026-11", date(2026, 11, 1)),
        ("date", "today", date(2026, 3, 31)),
        ("date", "Yesterday", date(2026, 3, 30)),
        ("date", "tomorrow", date(2026, 4, 1)),
        ("date", "-7d", date(2026, 3, 24)),
        ("date", "+2w", date(2026, 4, 14)),
        ("date", "-1mon", date(2026, 2, 28)),
        ("date", "today-1y+1d", date(2025, 4, 1)),
        ("timestamp", "2026-11-30", datetime(2026, 11, 30)),
        ("timestamp", "2026-11", datetime(2026, 11, 1)),
        ("timestamp", "2026-11-30 12:34:56.5", datetime(2026, 11, 30, 12, 34, 56, 500000)),
        ("timestamp", "2026-11-30T12:34", datetime(2026, 11, 30, 12, 34)),
        ("timestamp", "now", datetime(2026, 3, 31, 15, 30)),
        ("timestamp", "-2h", datetime(2026, 3, 31, 13, 30)),
        ("timestamp", "today-30min", datetime(2026, 3, 30, 23, 30)),
        ("timestamptz", "2026-11-30T12:34Z", datetime(2026, 11, 30, 12, 34, tzinfo=UTC)),
        ("interval", "1 month 2 days", "1 month 2 days"),
        ("interval", "7d", "7d"),
        ("interval", "-12:30", "-12:30"),
        ("interval", "P1Y2M3DT4H", "P1Y2M3DT4H"),
        ("integer[]", "1, 2,3", [1, 2, 3]),
        ("integer[]", "{1,2}", [1, 2]),
        ("integer[]", "", []),
        ("integer[]", "{}", []),
        ("text[]", 'a,"b,c",d', ["a", "b,c", "d"]),
        ("date[]", "today,2026-11", [date(2026, 3, 31), date(2026, 11, 1)]),
    ],
)
def test_values(type_name: str, spelled: str, expected: object) -> None:
    assert value(type_name, spelled) == expected


@pytest.mark.parametrize(
    ("type_name", "spelled", "must_be"),
    [
        ("integer", "", "a whole number"),
        ("integer", "1.0", "a whole number"),
        ("integer", "1_000", "a whole number"),
        ("integer", "٣", "a whole number"),
        ("integer", "9" * 5000, "a whole number"),
        ("integer", "2147483648", "between -2147483648 and 2147483647"),
        ("bigint", "9223372036854775808", "between -9223372036854775808 and 9223372036854775807"),
        ("numeric", "1,5", "a number such as 12 or 12.50"),
        ("numeric", "1e200000", "a number that PostgreSQL can store"),
        ("boolean", "maybe", "true or false"),
        ("date", "2026-02-30", "a date such as"),
        ("date", "30.11.2026", "a date such as"),
        ("date", "now", "a date such as"),
        ("date", "-7m", "a date such as"),
        ("date", "-2h", "a date such as"),
        ("date", "", "a date such as"),
        ("date", "+999999y", "a date such as"),
        ("timestamp", "2026-11-30 25:00", "a timestamp such as"),
        ("timestamp", "2026-11-30T12:00+02:00", "without a time zone"),
        ("timestamptz", "soon", "a timestamp such as"),
        ("interval", "7", "an interval such as"),
        ("interval", "P", "an interval such as"),
        ("interval", "1 fortnight", "an interval such as"),
        ("text", "a\0b", "free of NUL characters"),
        ("integer[]", "1,x", "a whole number"),
        ("text[]", 'a,"b', "a list such as"),
        ("text[]", "a\nb", "a list such as"),
    ],
)
def test_bad_values(type_name: str, spelled: str, must_be: str) -> None:
    with pytest.raises(BadValue, match=f"^{must_be}"):
        value(type_name, spelled)


def test_unknown_types() -> None:
    assert parameter_type("uuid") is None
    assert parameter_type("integer[][]") is None


def returned(engine: Engine, type_name: str, bound: Value) -> object:
    """What comes back for a value that goes in, by way of JSON."""
    report = parse_report("r", "r.sql", f"-- param: v {type_name}\nSELECT :v AS v, :v IS NULL AS empty")
    with run_report(engine, report, {"v": bound}) as result:
        document = json.loads("".join(render(result, Format.JSON, Layout())), parse_float=Decimal)
    assert document[0]["empty"] is (bound is None)
    return document[0]["v"]


STRATEGIES: dict[str, st.SearchStrategy[Value]] = {
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=9),
    "text": st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC), min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
}


def _same(sent: object, back: object) -> bool:
    if isinstance(sent, list):
        return isinstance(back, list) and len(sent) == len(back) and all(map(_same, sent, back))
    if isinstance(sent, datetime):  # the zone and the number of digits that it comes back with may differ
        return isinstance(back, str) and datetime.fromisoformat(back) == sent
    return (sent.isoformat() if isinstance(sent, date) else sent) == back


@pytest.mark.parametrize("type_name", STRATEGIES)
def test_values_come_back_from_the_server_as_they_went(engine: Engine, type_name: str) -> None:
    @settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, max_examples=30)
    @given(STRATEGIES[type_name], st.lists(STRATEGIES[type_name], max_size=4))
    def check(single: Value, several: list[Any]) -> None:
        assert _same(single, returned(engine, type_name, single))
        assert _same(several, returned(engine, f"{type_name}[]", several))

    check()


@pytest.mark.parametrize("type_name", [*VALUE_TYPES, *(f"{name}[]" for name in VALUE_TYPES)])
def test_null_has_a_type(engine: Engine, type_name: str) -> None:
    assert returned(engine, type_name, None) is None


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("1 month 2 days", "1 mon 2 days"),
        ("7d", "7 days"),
        ("2w", "14 days"),
        ("-12:30", "-12:30:00"),
        ("1 y 3 hrs 5 mins 2.5 secs", "1 year 03:05:02.5"),
        ("3 days ago", "-3 days"),
        ("P1Y2M3DT4H5M6.7S", "1 year 2 mons 3 days 04:05:06.7"),
        ("10 milliseconds 5 us", "00:00:00.010005"),
    ],
)
def test_what_passes_for_an_interval_is_one_to_the_server(engine: Engine, spelled: str, expected: str) -> None:
    bound = value("interval", spelled)
    assert returned(engine, "interval", bound) == expected


@pytest.mark.parametrize("spelled", ["NaN", "-inf", "Infinity"])
def test_numbers_that_are_none(engine: Engine, spelled: str) -> None:
    bound = value("numeric", spelled)
    expected = {"NaN": "NaN", "-inf": "-Infinity", "Infinity": "Infinity"}[spelled]
    assert returned(engine, "numeric", bound) == expected
