"""`harborctl load` as a user runs it: what goes in, what is said, and what the ledger holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Harborctl
from tests.inprocess import Invoke
from tests.load.conftest import Load

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def items(database: psycopg.Connection[Any]) -> str:
    database.execute(
        "CREATE TABLE items (id integer PRIMARY KEY, name varchar(10), price numeric(8,2) DEFAULT 1.00,"
        " code text UNIQUE, doubled integer GENERATED ALWAYS AS (id * 2) STORED, seen timestamptz DEFAULT now())"
    )
    return "items"


def rows(database: psycopg.Connection[Any], query: str = "SELECT id, name, price FROM items ORDER BY id") -> list[Any]:
    return database.execute(query).fetchall()


def test_append_fills_named_columns_and_leaves_the_others_to_the_database(
    harborctl: Harborctl, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    file = tmp_path / "items.csv"
    file.write_text('name,id\nrope,1\n"",2\n,3\n"a ""b"",\nc",4\n')
    result = harborctl("load", file, "--writer", writer, "--json")
    assert (result.code, result.stderr) == (0, "")
    summary = json.loads(result.stdout)
    assert rows(database, "SELECT id, name, price::text, doubled, seen IS NOT NULL FROM items ORDER BY id") == [
        (1, "rope", "1.00", 2, True),
        (2, "", "1.00", 4, True),
        (3, None, "1.00", 6, True),
        (4, 'a "b",\nc', "1.00", 8, True),
    ]
    assert summary["status"] == "loaded"
    assert summary["table"] == "public.items"
    assert (summary["mode"], summary["writer"]) == ("append", writer)
    assert (summary["rows_read"], summary["inserted"]) == (4, 4)
    assert summary["files"] == [
        {
            "path": str(file),
            "bytes": file.stat().st_size,
            "rows": 4,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "content_bytes": file.stat().st_size,
            "status": "loaded",
            "load_id": summary["load_id"],
        }
    ]
    assert summary["error"] is None
    assert "password" not in summary["database"]


def test_upsert_counts_what_it_did(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    database.execute("INSERT INTO items (id, name, price) VALUES (1, 'same', 1), (2, 'old', 2), (3, 'kept', 3)")
    before = rows(database, "SELECT ctid, xmin FROM items WHERE id IN (1, 3) ORDER BY id")
    file = tmp_path / "feed.csv"
    file.write_text("id,name,price\n1,same,1.00\n2,lost,5\n2,new,7\n4,added,4\n")
    summary = load(file, "--table", "items", "--mode", "upsert", "--writer", writer)
    counts = {name: summary[name] for name in ("rows_read", "inserted", "updated", "unchanged", "duplicates")}
    assert counts == {"rows_read": 4, "inserted": 1, "updated": 1, "unchanged": 1, "duplicates": 1}
    assert [(i, n, str(p)) for i, n, p in rows(database)] == [
        (1, "same", "1.00"),
        (2, "new", "7.00"),
        (3, "kept", "3.00"),
        (4, "added", "4.00"),
    ]
    assert rows(database, "SELECT ctid, xmin FROM items WHERE id IN (1, 3) ORDER BY id") == before


def test_upsert_by_another_unique_key(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    database.execute("INSERT INTO items (id, name, code) VALUES (1, 'a', 'x')")
    file = tmp_path / "feed.csv"
    file.write_text("code,name,id\nx,b,1\ny,c,2\n")
    summary = load(file, "-t", "items", "-m", "upsert", "-k", "code", "--writer", writer)
    assert (summary["inserted"], summary["updated"]) == (1, 1)
    assert rows(database, "SELECT code, name FROM items ORDER BY code") == [("x", "b"), ("y", "c")]


def test_parquet_and_csv_of_the_same_rows_give_the_same_table(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "name": ["é", None], "price": pa.array(["1.5", "2"])})
    pq.write_table(table, tmp_path / "items.parquet")
    load(tmp_path / "items.parquet", "--writer", writer)
    assert [(i, n, str(p)) for i, n, p in rows(database)] == [(1, "é", "1.50"), (2, None, "2.00")]


def test_many_files_and_globs_go_into_one_table(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    (tmp_path / "part2.csv").write_text("name,id\nb,2\n")
    (tmp_path / "part1.csv").write_text("id,name\n1,a\n")
    pq.write_table(pa.table({"id": pa.array([3]), "name": ["c"]}), tmp_path / "last.parquet")
    summary = load("part*.csv", "last.parquet", "--table", "items", "--writer", writer)
    assert [file["path"] for file in summary["files"]] == ["part1.csv", "part2.csv", "last.parquet"]
    assert [(i, n) for i, n, _ in rows(database)] == [(1, "a"), (2, "b"), (3, "c")]


def test_column_options(load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str) -> None:
    (tmp_path / "feed.csv").write_text("No,title,junk\n1,a,x\n")
    options = (
        "--map",
        "No=id",
        "--map",
        "title=name",
        "--skip-columns",
        "junk",
        "--set",
        "price=9.5",
        "--set",
        "code=é",
    )
    load(tmp_path / "feed.csv", "-t", "items", *options, "--writer", writer)
    assert rows(database, "SELECT id, name, price::text, code FROM items") == [(1, "a", "9.50", "é")]


def test_csv_dialect(load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str) -> None:
    text = "made by hand\n\n1;'it''s; ok';NULL\n2;é;-\n"
    (tmp_path / "feed.txt").write_bytes(text.encode("latin-1"))
    dialect = ("--delimiter", ";", "--quote", "'", "--encoding", "latin-1", "--null", "NULL", "--null", "-")
    shape = ("--format", "csv", "--no-header", "--columns", "id,name,code", "--skip-lines", "2")
    load(tmp_path / "feed.txt", "-t", "items", *dialect, *shape, "--writer", writer)
    assert rows(database, "SELECT id, name, code FROM items ORDER BY id") == [(1, "it's; ok", None), (2, "é", None)]


def test_without_header_and_names_columns_go_by_position(
    load: Load, database: psycopg.Connection[Any], items: str, writer: str
) -> None:
    load("-", "-t", "items", "--no-header", "--writer", writer, stdin="1,a,5\n2,b,6\n")
    assert [(i, n, str(p)) for i, n, p in rows(database)] == [(1, "a", "5.00"), (2, "b", "6.00")]


def test_a_header_only_loads_nothing(load: Load, items: str, tmp_path: Path, writer: str) -> None:
    (tmp_path / "items.csv").write_text("id,name\n")
    summary = load(tmp_path / "items.csv", "--writer", writer)
    assert (summary["status"], summary["rows_read"]) == ("loaded", 0)


def test_auto_takes_values_for_small_loads_and_copy_for_large_ones(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path
) -> None:
    (tmp_path / "items.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(2000)))
    assert load(tmp_path / "items.csv")["writer"] == "values"
    database.execute("TRUNCATE items")
    (tmp_path / "items.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(200_000)))
    summary = load(tmp_path / "items.csv")
    assert (summary["writer"], summary["inserted"]) == ("copy", 200_000)
    assert rows(database, "SELECT count(*), sum(id) FROM items") == [(200_000, sum(range(200_000)))]


def test_a_bare_name_is_found_outside_the_search_path(
    load: Load, database: psycopg.Connection[Any], writer: str
) -> None:
    summary = load(SAMPLES / "products.csv", "--writer", writer)
    assert summary["table"] == "harbor.products"
    assert rows(database, "SELECT count(*) FROM harbor.products") == [(summary["inserted"],)]


def test_odd_names(load: Load, database: psycopg.Connection[Any], tmp_path: Path, writer: str) -> None:
    database.execute(
        'CREATE SCHEMA "My ""S"; CREATE TABLE "My ""S"."t.ä%" ("a b" int PRIMARY KEY, "c:d" text, "%(x)s" text)'
    )
    (tmp_path / "x.csv").write_text('a b,c:d,%(x)s\n1,":x %s",y\n')
    for mode in ("append", "upsert"):
        load(tmp_path / "x.csv", "-t", '"My ""S"."t.ä%"', "--writer", writer, "--mode", mode)
    assert rows(database, 'SELECT * FROM "My ""S"."t.ä%"') == [(1, ":x %s", "y")]


def test_the_ledger_row_commits_with_the_rows(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n2\n")
    summary = load(tmp_path / "items.csv", "--writer", writer)
    ledger = rows(
        database,
        "SELECT id::text, target_schema, target_table, mode, writer, status, rows_read, inserted,"
        " backend_start IS NOT NULL FROM harborctl.loads",
    )
    assert ledger == [(summary["load_id"], "public", "items", "append", writer, "loaded", 2, 2, True)]
    assert rows(database, "SELECT path, rows, sha256 FROM harborctl.files") == [
        (summary["files"][0]["path"], 2, summary["files"][0]["sha256"])
    ]


def test_no_row_goes_in_without_its_ledger_row(
    invoke: Invoke, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    database.execute("ALTER TABLE harborctl.loads ADD CHECK (status <> 'loaded') NOT VALID")
    (tmp_path / "items.csv").write_text("id\n1\n2\n")
    result = invoke("load", "items.csv", "--writer", writer, "--json")
    assert result.code == 1
    assert rows(database) == []
    assert rows(database, "SELECT status FROM harborctl.loads") == [("failed",)]


def test_rows_that_a_trigger_drops_are_not_called_inserted(
    load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path, writer: str
) -> None:
    database.execute(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.id % 2 = 1 THEN RETURN NULL; END IF; RAISE NOTICE 'even'; RETURN NEW; END $$;"
        "CREATE TRIGGER odd BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION odd()"
    )
    (tmp_path / "items.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(20_000)))
    summary = load(tmp_path / "items.csv", "--writer", writer)
    assert (summary["rows_read"], summary["inserted"], summary["skipped"]) == (20_000, 10_000, 10_000)
    assert rows(database, "SELECT count(*) FROM items") == [(10_000,)]


def test_the_summary_for_people_goes_to_stdout(harborctl: Harborctl, items: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    result = harborctl("load", "items.csv")
    assert (result.code, result.stderr) == (0, "")
    assert "public.items ← items.csv" in result.stdout
    assert "inserted" in result.stdout
    quiet = harborctl("load", "-", "-t", "items", "--quiet", stdin="id\n2\n")
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_a_reader_that_goes_away_is_no_failure(items: str, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    command = [sys.executable, "-m", "harborctl", "load", str(tmp_path / "items.csv"), "--url", database_url]
    for options in ([], ["--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                [*command, "-m", "upsert", *options], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
            )
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_database_without_ledger_is_left_alone(
    invoke: Invoke, load: Load, database: psycopg.Connection[Any], items: str, tmp_path: Path
) -> None:
    database.execute("DROP SCHEMA harborctl CASCADE")
    (tmp_path / "items.csv").write_text("id\n1\n")
    refused = invoke("load", tmp_path / "items.csv", "--json")
    assert refused.code == 2
    assert json.loads(refused.stdout)["error"]["code"] == "no_ledger"
    assert "harborctl migrate up ledger" in refused.stderr
    assert rows(database) == []
    load(tmp_path / "items.csv", "--no-ledger")
    assert len(rows(database)) == 1
    assert rows(database, "SELECT to_regnamespace('harborctl')") == [(None,)]


@pytest.mark.parametrize(
    ("rows_before", "rows_loaded", "when", "analyzed"),
    [
        (0, 10, "auto", True),
        (1000, 10, "auto", False),
        (1000, 200, "auto", True),
        (0, 10, "never", False),
        (1000, 1, "always", True),
    ],
)
def test_statistics_follow_large_changes(
    load: Load,
    database: psycopg.Connection[Any],
    items: str,
    rows_before: int,
    rows_loaded: int,
    when: str,
    analyzed: bool,
) -> None:
    database.execute(f"INSERT INTO items (id) SELECT -n FROM generate_series(1, {rows_before}) AS n")
    database.execute("ANALYZE items")
    text = "id\n" + "".join(f"{number}\n" for number in range(rows_loaded))
    load("-", "-t", "items", "--analyze", when, stdin=text)
    expected = rows_before + rows_loaded if analyzed else rows_before
    assert rows(database, "SELECT reltuples::int FROM pg_class WHERE relname = 'items'") == [(max(expected, 0),)]
