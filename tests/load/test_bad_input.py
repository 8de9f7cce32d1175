"""What cannot be loaded: one clear message, the contract's exit code, nothing committed, the ledger saying so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Harborctl
from tests.inprocess import Invoke
from tests.load.conftest import failure

GOOD = "id,name,price\n1,a,1\n2,b,2\n"


@pytest.fixture(autouse=True)
def items(database: psycopg.Connection[Any]) -> None:
    database.execute("CREATE TABLE items (id integer PRIMARY KEY, name varchar(3) NOT NULL, price numeric(5,2))")


def nothing_committed(database: psycopg.Connection[Any], status: str = "failed") -> None:
    assert database.execute("SELECT count(*) FROM items").fetchall() == [(0,)]
    assert database.execute("SELECT status FROM harborctl.loads").fetchall() == [(status,)]


@pytest.mark.parametrize(
    ("text", "line", "column", "value", "code"),
    [
        (GOOD + "x,c,3\n", 4, "id", "x", "22P02"),
        (GOOD + "99999999999,c,3\n", 4, "id", "99999999999", "22003"),
        (GOOD + "3,long,3\n", 4, "name", "long", "22001"),
        (GOOD + "3,,3\n", 4, "name", None, "23502"),
        (GOOD + "3,c,12345\n", 4, "price", "12345", "22003"),
        (GOOD + "2,c,3\n", 4, None, None, "23505"),
        ('id,name,price\n1,"a\nb",1\n2,"c\r\n",2\nx,d,3\n', 6, "id", "x", "22P02"),
        (GOOD + "3,c\n", 4, "price", None, "22P04"),
        (GOOD + "3,c,3,4\n", 4, None, None, "22P04"),
        (GOOD + '3,"c,3\n4,d,4\n', 4, None, None, "22P04"),
        (GOOD + "3,\x00,3\n", 4, "name", "\x00", "22021"),
    ],
)
def test_a_bad_row_is_named(
    invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path, writer: str,
    text: str, line: int, column: str | None, value: str | None, code: str,
) -> None:  # fmt: skip
    (tmp_path / "items.csv").write_text(text, newline="")
    error = failure(invoke("load", "items.csv", "--json", "--writer", writer), 1)
    assert (error["file"], error["line"], error["column"], error["code"]) == ("items.csv", line, column, code)
    if value is not None and value != "\x00":
        assert error["value"] == value
    nothing_committed(database)


def test_a_bad_row_far_down_a_large_file_is_named(
    harborctl: Harborctl, database: psycopg.Connection[Any], tmp_path: Path
) -> None:
    lines = [f'{number},"a\n",1' for number in range(300_000)]
    lines[250_000] = "250000,toolong,1"
    (tmp_path / "items.csv").write_text("id,name,price\n" + "\n".join(lines))
    error = failure(harborctl("load", "items.csv", "--json"), 1)
    assert (error["line"], error["column"], error["value"]) == (500_002, "name", "toolong")
    nothing_committed(database)


def test_invalid_bytes_are_located(invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(b"id,name,price\n1,a,1\n2,\xe9,1\n")
    error = failure(invoke("load", "items.csv", "--json"), 1)
    assert (error["line"], error["column"], error["code"]) == (3, "name", "22021")
    assert "--encoding" in error["hint"]
    nothing_committed(database)


@pytest.mark.parametrize(
    ("header", "message", "hint"),
    [
        ("id,nam,price", "has no column nam", "The nearest is name"),
        ("id,price,zzz", "has no column zzz", "--skip-columns"),
        ("id,price", "column name of public.items is required", "--set name=VALUE"),
        ("id,id,name", "filled twice", "--skip-columns"),
    ],
)
def test_columns_that_do_not_fit(
    invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path, header: str, message: str, hint: str
) -> None:
    (tmp_path / "items.csv").write_text(header + "\n" + ",".join("1" * (header.count(",") + 1)) + "\n")
    error = failure(invoke("load", "items.csv", "--json"), 2)
    assert message in error["message"]
    assert hint in error["hint"]
    nothing_committed(database)


def test_files_that_cannot_be_read(invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(GOOD)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "notes.txt").write_text("hello")
    pq.write_table(pa.table({"id": [1], "name": ["a"]}), tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    for source, code, words in (
        ("item.csv", "no_such_file", "Did you mean items.csv?"),
        ("*.nothing", "no_such_file", "no file matches"),
        (".", "is_a_folder", "is a folder"),
        ("empty.csv", "empty_file", "not even a header"),
        ("notes.txt", "unknown_format", "--format"),
        ("cut.parquet", "bad_parquet", "cut short"),
    ):
        result = invoke("load", source, "-t", "items", "--json")
        error = failure(result, 2)
        assert error["code"] == code
        assert words in result.stderr
    assert database.execute("SELECT count(*) FROM items").fetchall() == [(0,)]
    assert database.execute("SELECT DISTINCT status, count(*) FROM harborctl.loads GROUP BY 1").fetchall() == [
        ("failed", 6)
    ]


def test_a_table_that_is_missing(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "item.csv").write_text(GOOD)
    error = failure(invoke("load", "item.csv", "--json"), 2)
    assert error["code"] == "42P01"
    assert "Did you mean public.items?" in error["hint"]


def test_upsert_without_a_key(invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(GOOD)
    error = failure(invoke("load", "items.csv", "-m", "upsert", "-k", "price", "--json"), 2)
    assert "no unique constraint" in error["message"]
    assert "(id)" in error["hint"]
    nothing_committed(database)


def test_no_privilege(invoke: Invoke, database: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(GOOD)
    role = f"poor_{database.info.dbname}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON items TO {role}")
    database.execute(
        f"GRANT USAGE ON SCHEMA harborctl TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA harborctl TO {role}"
    )
    try:
        url = psycopg.conninfo.conninfo_to_dict(database_url)
        host = f"host={url['host']}&port={url.get('port', 5432)}"
        poor = f"postgresql://{role}:x@/{url['dbname']}?{host}"
        error = failure(invoke("load", "items.csv", "--json", "--url", poor), 1)
        assert error["code"] == "42501"
        nothing_committed(database)
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
