"""Feeds whose columns come and go: `--extra-columns`, `--missing-columns`, and names that may be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.inprocess import Invoke
from tests.load.conftest import Load, failure

Database = psycopg.Connection[Any]


@pytest.fixture
def table(database: Database) -> Database:
    """A table with a column that may be missing, and one with a default."""
    database.execute("CREATE TABLE t (id int, name text, state text DEFAULT 'new')")
    return database


def rows(database: Database) -> list[Any]:
    """All of the table."""
    return database.execute("SELECT * FROM t ORDER BY id").fetchall()


def written(path: Path, text: str) -> Path:
    """The file, with this in it."""
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_becomes_of_columns_that_the_table_lacks(
    load: Load, invoke: Invoke, table: Database, tmp_path: Path, writer: str, suffix: str
) -> None:
    values = [{"id": 1, "name": "a", "Zip": "01067", "weight": 1.5}, {"id": 2, "name": "b", "Zip": "9", "weight": 22.5}]
    text = "id,name,Zip,weight\n1,a,01067,1.5\n2,b,9,22.5\n"
    path = written(tmp_path / f"f.{suffix}", text if suffix == "csv" else "".join(json.dumps(v) + "\n" for v in values))
    options = (path, "-t", "t", "--writer", writer)
    assert failure(invoke("load", *options, "--json"), 2)["code"] == "42703"
    load(*options, "--extra-columns", "ignore", "--no-ledger")
    assert rows(table) == [(1, "a", "new"), (2, "b", "new")]
    tried = invoke("load", *options, "--extra-columns", "add", "--dry-run", "--no-ledger")
    assert "added column Zip text" in tried.stderr
    assert len(rows(table)[0]) == 3
    summary = json.loads(invoke("load", *options, "--extra-columns", "add", "--mode", "replace", "--json").stdout)
    assert sorted(summary["notes"])[:2] == ["added column Zip text", "added column weight numeric(3,1)"]
    assert [row[3] for row in rows(table)] == ["01067", "9"]
    load(*options, "--extra-columns", "add", "--mode", "replace")  # nothing is missing any more
    piped = ("-", "-t", "t", "--format", suffix, "--extra-columns", "add", "--mode", "replace")
    result = invoke("load", *piped, stdin=path.read_text().replace("weight", "mass"))
    assert (result.code, "added column mass numeric(3,1)" in result.stderr) == (0, True)


def test_a_load_that_fails_adds_no_column(invoke: Invoke, table: Database, tmp_path: Path, writer: str) -> None:
    path = written(tmp_path / "f.csv", "id,extra\n1,2\nx,3\n")
    options = ("load", path, "-t", "t", "--extra-columns", "add", "--writer", writer, "--json")
    assert failure(invoke(*options), 1)["line"] == 3
    assert table.execute(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
    ).fetchone() == (3,)
    assert json.loads(invoke(*options, "--on-error", "reject").stdout)["rejected"] == 1
    assert rows(table) == [(1, None, "new", 2)]


def test_what_becomes_of_columns_that_the_file_lacks(
    load: Load, invoke: Invoke, table: Database, tmp_path: Path, writer: str
) -> None:
    path = written(tmp_path / "f.csv", "id\n1\n")
    options = (path, "-t", "t", "--writer", writer, "--no-ledger", "--mode", "replace")
    load(*options)
    assert rows(table) == [(1, None, "new")]
    load(*options, "--missing-columns", "null")
    assert rows(table) == [(1, None, None)]
    error = failure(invoke("load", *options, "--missing-columns", "error", "--json"), 2)
    assert "columns name, state of public.t are required" in error["message"]
    table.execute("UPDATE t SET state = 'x'")
    table.execute("ALTER TABLE t ALTER state SET NOT NULL")
    assert failure(invoke("load", *options, "--missing-columns", "null", "--json"), 2)["code"] == "23502"


def test_files_of_one_load_may_differ(load: Load, invoke: Invoke, table: Database, tmp_path: Path, writer: str) -> None:
    one, other = written(tmp_path / "1.csv", "id,name\n1,a\n"), written(tmp_path / "2.csv", "state,id\nold,2\n")
    options = (one, other, "-t", "t", "--writer", writer)
    assert "--missing-columns null" in failure(invoke("load", *options, "--json"), 2)["hint"]
    load(*options, "--missing-columns", "null")
    assert rows(table) == [(1, "a", None), (2, None, "old")]


def test_names_that_may_be_missing(load: Load, invoke: Invoke, table: Database, tmp_path: Path) -> None:
    options = ("-t", "t", "--map", "nm?=name", "--map", "label?=name", "--skip-columns", "junk?,id2?", "--no-ledger")
    load(written(tmp_path / "1.csv", "id,nm,junk\n1,a,x\n"), *options)
    load(written(tmp_path / "2.csv", "id,label\n2,b\n"), *options)
    load(written(tmp_path / "3.jsonl", '{"id": 3, "label": "c", "junk": 1}\n'), *options)
    assert rows(table) == [(1, "a", "new"), (2, "b", "new"), (3, "c", "new")]
    both = invoke("load", written(tmp_path / "4.csv", "id,nm,label\n4,a,b\n"), *options, "--json")
    assert failure(both, 2)["code"] == "42701"
    wrong = invoke("load", tmp_path / "1.csv", "-t", "t", "--map", "nmm=name", "--json")
    assert failure(wrong, 2)["code"] == "42703"


def test_a_feed_of_thirty_nights_is_one_job(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    """Columns come, go and are renamed, and the command stays the same."""
    options = ("-t", "feed", "--create", "--key", "id", "--mode", "upsert", "--extra-columns", "add",
               "--map", "phone?=tel", "--map", "telephone?=tel", "--skip-columns", "debug?")  # fmt: skip
    for night in range(30):
        columns = {"id": str(night), ("tel", "phone", "telephone")[night // 10]: f"0{night}"}
        if night >= 5:
            columns["city"] = "Kiel"
        if night % 7 == 3:
            columns["debug"] = "x"
        if night >= 20:
            columns["score"] = f"{night}.5"
        path = written(tmp_path / f"{night}.csv", f"{','.join(columns)}\n{','.join(columns.values())}\n")
        result = invoke("load", path, *options, "--json")
        assert (result.code, json.loads(result.stdout)["inserted"]) == (0, 1), (night, result)
    found = database.execute("SELECT count(*), count(tel), count(city), count(score), max(tel) FROM feed").fetchone()
    assert found == (30, 30, 25, 10, "09")
