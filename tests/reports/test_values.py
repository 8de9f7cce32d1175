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
from sqlalchemy.exc import DBAPIError

from harborctl.reports.formats import Format
from harborctl.reports.parse import parse_report
from harborctl.reports.render import Layout, render
from harborctl.reports.run import run_report
from harborctl.reports.values import VALUE_TYPES, BadValue, Value, parameter_type
from tests.load.sizes import EXAMPLES

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
        ("double precision", "1e-5", 1e-5),
        ("float8", "-Infinity", float("-inf")),
        ("character varying", "a", "a"),
        ("timestamp  WITH time zone", "2026-11-30T12:34Z", datetime(2026, 11, 30, 12, 34, tzinfo=UTC)),
        ("timestamp without time zone[]", "2026-11", [datetime(2026, 11, 1)]),
        ("integer[]", "{1,NULL, 3}", [1, None, 3]),
        ("integer[]", "1,null", [1, None]),
        ("text[]", 'null,"null",nullable', [None, "null", "nullable"]),
        ("text[]", '{a b , "c\\"d" , "e,f",\\ x,NULL,"NULL"}', ["a b", 'c"d', "e,f", " x", None, "NULL"]),
        ("text[]", 'a,,"b""c",C:\\temp', ["a", "", 'b"c', "C:\\temp"]),
        ("column[]", 'a, "b,""c" ', ["a", '"b,""c"']),
        ("table[]", 'x.y,"My, Schema"."t"', ["x.y", '"My, Schema"."t"']),
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
        ("text", "\udcff", "in UTF-8"),
        ("double precision", "1e400", "a number that double precision can hold"),
        ("double precision", "1e-400", "a number that double precision can hold"),
        ("integer[]", "{1,,2}", "a list such as"),
        ("integer[]", "{{1},{2}}", "a list such as"),
        ("integer[]", "{1,}", "a list such as"),
        ("integer[]", "1,,2", "a whole number"),
        ("integer[]", "1,x", "a whole number"),
        ("text[]", 'a,"b', "a list such as"),
        ("text[]", "a\nb", "a list such as"),
    ],
)
def test_bad_values(type_name: str, spelled: str, must_be: str) -> None:
    with pytest.raises(BadValue, match=f"^{must_be}"):
        value(type_name, spelled)


@pytest.mark.parametrize(
    "name", ["uuid", "integer[][]", "double", "timestamp with", "time with time zone", "varchar(10)"]
)
def test_unknown_types(name: str) -> None:
    assert parameter_type(name) is None


@pytest.mark.parametrize(
    ("type_name", "spelled", "expected"),
    [
        *[(name, word, None) for name in ("integer", "date", "boolean") for word in ("", " ", "null", "NULL", "Null")],
        ("text", "", ""),
        ("text", "null", None),
        ("text", "Null", "Null"),
        ("text", "'null'", "null"),
        ("text", "'other'", "'other'"),
        ("bigint[]", "", []),
        ("bigint[]", "null", None),
        ("bigint[]", "{null}", [None]),
        ("column", "null", "null"),
    ],
)
def test_null_on_a_command_line(type_name: str, spelled: str, expected: object) -> None:
    declared = parameter_type(type_name)
    assert declared is not None
    assert declared.given(spelled, NOW) == expected


def test_lists_are_read_as_the_server_reads_them(engine: Engine) -> None:
    with engine.connect() as connection:

        @settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, max_examples=EXAMPLES * 4)
        @given(st.text('{},"\\ nulNUL a\n', max_size=8))
        def check(inner: str) -> None:
            text = "{" + inner + "}"
            try:
                ours = value("text[]", text)
            except BadValue:
                ours = "refused"
            connection.rollback()
            try:
                server = connection.exec_driver_sql("SELECT %s::text[]", (text,)).scalar_one()
            except DBAPIError:
                server = "refused"
            # What has no element, or several dimensions, is not asked for.
            assert ours == server or "{" in inner or "}" in inner

        check()


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
    "double precision": st.floats(allow_nan=False),
    "text": st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC), min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
}


def _same(sent: object, back: object) -> bool:
    if isinstance(sent, list):
        return isinstance(back, list) and len(sent) == len(back) and all(map(_same, sent, back))
    if isinstance(sent, float):  # JSON has no infinity, and 1e+22 has a decimal's digits
        return float(str(back)) == sent
    if isinstance(sent, datetime):  # the zone and the number of digits that it comes back with may differ
        return isinstance(back, str) and datetime.fromisoformat(back) == sent
    return (sent.isoformat() if isinstance(sent, date) else sent) == back


@pytest.mark.parametrize("type_name", STRATEGIES)
def test_values_come_back_from_the_server_as_they_went(engine: Engine, type_name: str) -> None:
    @settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, max_examples=30)
    @given(STRATEGIES[type_name], st.lists(st.none() | STRATEGIES[type_name], max_size=4))
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
