"""A table made from text gives the text back: columns of any values, through the server and out again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harborctl.inference.scan import Scan
from harborctl.model import CsvDialect
from harborctl.sources.files import find_files
from harborctl.sources.open import open_file

DIGITS = st.text("0123456789", min_size=1, max_size=22)
NUMBERS = st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?", fullmatch=True)
MOMENTS = st.from_regex(
    r"(0000|[0-2][0-9]{3})-[0-9]{2}-[0-9]{2}"
    r"([ T][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,7})?)?(Z|[-+]0[0-9](:?[0-9]{2})?)?)?",
    fullmatch=True,
)
# Columns of one kind, with the odd value among them.
COLUMNS = st.one_of(
    *(
        st.lists(kind, min_size=1, max_size=8)
        for kind in (
            st.integers(-(10**6), 10**6).map(str),
            st.integers(-(2**70), 2**70).map(str),
            st.decimals(-(10**6), 10**6, places=2).map(str),
            st.one_of(st.integers(-99, 99).map(str), st.decimals(-9, 9, places=3).map(str)),
            st.floats().map(repr),
            st.floats(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:.17g}"),
            DIGITS,
            NUMBERS,
            MOMENTS,
            st.one_of(NUMBERS, MOMENTS, st.text("abc ,\"'\\{}[]-+.eE0159", max_size=6)),
            st.dates().map(str),
            st.datetimes().map(str),
            st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z"),
            st.times().map(lambda time: time.isoformat()),
            st.uuids().map(str),
            st.ip_addresses().map(str),
            st.from_regex(r"[0-9.:a-f]{1,12}(/[0-9]{1,3})?", fullmatch=True),
            st.sampled_from(["true", "FALSE", "t", "f", "yes", "no", "1", "0"]),
            st.sampled_from(["P1D", "P1Y2M", "PT5M", "P2WT0.5S", "P", "PT", "1 day"]),
            st.sampled_from(['{"a": 1.0}', "[1, 2]", "{}", "[", '{"a":1,"a":2}', '{"\\u0000":1}', "{a: 1}"]),
        )
    )
)
# Equal values in other spellings, as `kinds.SPELLINGS` lists them: compared by what the server makes of both.
SPELLED = {"boolean", "timestamp", "timestamptz", "time", "interval", "uuid"}


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url) as connected:
        yield connected


def loaded(connection: psycopg.Connection[Any], kind: str, values: list[str]) -> list[str]:
    """What COPY stores of the values in a column of this type, as COPY writes it."""
    connection.execute(f"CREATE TEMP TABLE c (n serial, v {kind}) ON COMMIT DROP")
    with connection.cursor().copy("COPY pg_temp.c (v) FROM STDIN (FORMAT csv, FORCE_NOT_NULL (v))") as copy:
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows([value] for value in values)
        copy.write(text.getvalue())
    rows = connection.execute("SELECT v::text FROM pg_temp.c ORDER BY n").fetchall()
    return [row[0] for row in rows]


@example(["5", "1e5"])
@example(["1.5", "1e-07"])
@example(["5", "1.50", "1e-07"])
@example(["0.1", "-0.0"])
@example(["-0", "0"])
@example(["1", "02"])
@example(["99999999999999999999"])
@example(["10.0.0.1", "1.2.3.256"])
@example(["2024-02-29", "2024-02-30"])
@example(["t"])
@example(["2.519401427491419e+16"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COLUMNS)
def test_a_column_of_the_inferred_type_gives_its_values_back(
    connection: psycopg.Connection[Any], tmp_path: Path, values: list[str]
) -> None:
    path = tmp_path / "c.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["v"], *([value] for value in values)])
    [found] = find_files([str(path)], None)
    scan = Scan()
    scan.see_all([lambda: open_file(found, CsvDialect())])
    column = scan.seen().inferred[0]
    with connection.transaction():
        stored = loaded(connection, column.type, values)
        if column.type in SPELLED:
            rows = connection.execute(
                f"SELECT bool_and(a::{column.type} = b::{column.type}) FROM unnest(%s::text[], %s::text[]) AS u (a, b)",
                [values, stored],
            ).fetchone()
            assert rows == (True,)
        else:
            assert stored == values
