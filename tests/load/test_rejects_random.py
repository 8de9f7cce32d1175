"""Random damage to random files: what COPY takes row by row goes in, and everything else is in the reject file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harborctl.db.engine import Database
from harborctl.load.run.loader import run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import LoadOptions, OnError, RejectOptions, WriterName
from harborctl.sources.csv.dialect import byte_dialect
from harborctl.sources.csv.records import records
from tests.conftest import engine_of, made_database, ours
from tests.load.sizes import EXAMPLES

HEADER = b"id,name,price,parent,day\n"
TABLE = (
    "CREATE TABLE parents (id integer PRIMARY KEY); INSERT INTO parents SELECT generate_series(1, 5);"
    "CREATE TABLE items (id integer PRIMARY KEY, name varchar(6) NOT NULL, price numeric(6,2) CHECK (price >= 0),"
    " parent integer REFERENCES parents, day date)"
)


@pytest.fixture(scope="module")
def url(server_url: str, template_database: str) -> Iterator[str]:
    with made_database(server_url, f"harborctl_rejects_{os.getpid()}", template=template_database) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        yield url


FIELDS: list[st.SearchStrategy[str]] = [
    st.integers(1, 30).map(str) | st.sampled_from(["", "x", "1.5", " 7 ", "99999999999"]),
    st.sampled_from(["a", "b", '"q"', '"a,b"', '"x""y"', '"two\nlines"', "", '""', "toolong", "\\N"]),
    st.sampled_from(["1", "1.5", "1e2", "-1", "", "9999", "99999", "NaN", "abc", "+3"]),
    st.sampled_from(["1", "2", "5", "6", "", "x"]),
    st.sampled_from(["2020-01-31", "2020-02-30", "yesterday", "", "Jan 3 2020", "0000-01-01", "infinity"]),
]
GOOD = st.tuples(st.integers(31, 999).map(str), st.just("fine"), st.just("1.00"), st.just("1"), st.just("2020-01-01"))
LINES = st.one_of(
    GOOD.map(",".join),
    GOOD.map(",".join),
    st.tuples(*FIELDS).map(",".join),
    st.sampled_from(["1,a", "2,b,1,1,2020-01-01,7", "", ",,,,", "3,a\udce9,1,1,", '4,b"c"d,1,1,', "5,a\x00,1,1,"]),
)


def by_copy(url: str, text: bytes) -> tuple[list[Any], int]:
    """What is in the table when each record goes in on its own or not at all, and how many records there are."""
    count = 0
    with psycopg.connect(url) as connection, connection.transaction(force_rollback=True):
        for record in records(text, byte_dialect(LoadOptions(()).dialect)):
            count += 1
            try:
                with connection.transaction(), connection.cursor() as cursor:
                    with cursor.copy("COPY items FROM STDIN (FORMAT csv)") as copy:
                        copy.write(text[record.start : record.end])
            except psycopg.Error:
                pass
        rows = connection.execute("SELECT items::text FROM items ORDER BY id").fetchall()
    return rows, count


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lines=st.lists(LINES, max_size=40), writer=st.sampled_from(["copy", "values"]))
def test_what_copy_takes_goes_in(url: str, tmp_path: Path, lines: list[str], writer: str) -> None:
    text = "".join(line + "\n" for line in lines).encode(errors="surrogateescape")
    expected, count = by_copy(url, text)
    path = tmp_path / "items.csv"
    path.write_bytes(HEADER + text)
    engine = engine_of(url)
    try:
        options = LoadOptions(
            (str(path),),
            table="items",
            writer=WriterName(writer),
            rejects=RejectOptions(OnError.REJECT, file=str(tmp_path / "r.csv"), force=True),
            ledger=False,
        )
        result = run_load(Database(ours(engine), "test", embedded=False), options, Silent())
        with engine.begin() as connection:
            rows = connection.exec_driver_sql("SELECT items::text FROM items ORDER BY id").all()
            connection.exec_driver_sql("TRUNCATE items")
    finally:
        engine.dispose()
    assert [tuple(row) for row in rows] == expected
    assert (result.rows_read, result.rejected) == (count, count - len(rows))
    if result.rejected:
        kept = (tmp_path / "r.csv").read_bytes()
        rejects = list(records(kept, byte_dialect(options.dialect)))[1:]
        assert len(rejects) == result.rejected
