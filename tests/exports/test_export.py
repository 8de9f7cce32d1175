"""`harborctl export`: what is exported and loaded again is the same, and what fails leaves no file."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from tests.conftest import Harborctl
from tests.inprocess import Invoke, invoke
from tests.load.conftest import database, wait_for

__all__ = ["database", "invoke"]

Database = psycopg.Connection[Any]

EVERY = """
    CREATE TYPE mood AS ENUM ('sad', 'so "so"');
    CREATE TABLE "Odd Schema"."a.b" (
        id bigint PRIMARY KEY, t text, n numeric, n2 numeric(12, 3), f float8, b bool, d date, ts timestamp,
        tz timestamptz, i interval, j jsonb, u uuid, a int[], ta text[], m mood, by bytea,
        twice bigint GENERATED ALWAYS AS (id * 2) STORED
    );
    INSERT INTO "Odd Schema"."a.b" VALUES
        (1, E'a "b",\\n\\tü', 1.10, 7.125, 0.1, true, '2026-01-02', '2026-01-02 03:04:05.123456', '2026-01-02 03:04+02',
         '1 mon 2 days 03:04:05.5', '{"a": [1.50, null]}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,NULL}',
         '{"a,b",""}', 'so "so"', '\\x00ff'),
        (2, '', -3, 0, 'NaN', false, '0044-03-15', 'infinity', '-infinity', '-1 year', '"x"', NULL, '{}',
         '{}', 'sad', ''),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"""


def content(database: Database, table: str) -> list[Any]:
    return database.execute(f"SELECT t::text FROM {table} AS t ORDER BY id").fetchall()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz"])
def test_what_is_exported_and_loaded_again_is_the_same(
    invoke: Invoke, database: Database, tmp_path: Path, kind: str
) -> None:
    database.execute('CREATE SCHEMA "Odd Schema"')
    database.execute(EVERY)
    before = content(database, '"Odd Schema"."a.b"')
    packed = {"gz": ["--compression", "gzip"], "zst": ["--compression", "zstd"]}.get(kind.rpartition(".")[2], [])
    done = invoke("export", '"Odd Schema"."a.b"', "-o", f"x.{kind}", *packed, "--json")
    assert done.code == 0, done
    [file] = json.loads(done.stdout)["files"]
    data = (tmp_path / f"x.{kind}").read_bytes()
    assert (file["rows"], file["bytes"], file["sha256"]) == (3, len(data), hashlib.sha256(data).hexdigest())
    assert "twice" not in file["columns"]
    loaded = invoke("load", f"x.{kind}", "-t", '"Odd Schema"."a.b"', "--mode", "replace")
    assert loaded.code == 0, loaded
    assert content(database, '"Odd Schema"."a.b"') == before


def test_parquet_with_types(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE TABLE t (id int, n numeric(10, 2), at timestamptz, a int[]);"
        "INSERT INTO t VALUES (1, 1.50, '2026-01-02 03:04:05Z', '{1,2}'), (2, NULL, NULL, NULL)"
    )
    before = content(database, "t")
    assert invoke("export", "t", "-o", "t.parquet").code == 0
    assert str(pq.read_schema(tmp_path / "t.parquet").field("n").type) == "decimal128(10, 2)"
    assert invoke("load", "t.parquet", "-t", "t", "--mode", "replace").code == 0
    assert content(database, "t") == before


def test_several_tables_in_an_order_that_loads(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE SCHEMA s; CREATE TABLE s.z (id int PRIMARY KEY); CREATE TABLE s.a (id int, z int REFERENCES s.z);"
        "INSERT INTO s.z SELECT generate_series(1, 3); INSERT INTO s.a VALUES (1, 1), (2, 3)"
    )
    done = invoke("export", "s.*", "-o", "out/", "--format", "csv")
    assert (done.code, "wrote out/manifest.json" in done.stderr) == (0, True)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [(each["table"], each["path"], each["rows"]) for each in manifest["files"]] == [
        ("s.z", "s.z.csv", 3),
        ("s.a", "s.a.csv", 2),
    ]
    database.execute("TRUNCATE s.a, s.z")
    for each in manifest["files"]:
        assert invoke("load", f"out/{each['path']}", "-t", each["table"]).code == 0
    assert content(database, "s.a") == [("(1,1)",), ("(2,3)",)]


def test_some_rows_and_columns_and_a_folder_for_each_value(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    database.execute(
        'CREATE TABLE t (id int, "Kind" text, v text);'
        "INSERT INTO t VALUES (1, 'a/b', 'x'), (2, 'a/b', ':y'), (3, NULL, 'z'), (4, 'it''s 100%', 'w')"
    )
    some = invoke("export", "t", "-o", "t.csv", "--where", "v <> 'z'", "--columns", "v,id", "--order-by", "id DESC")
    assert some.code == 0, some
    assert (tmp_path / "t.csv").read_text() == "v,id\nw,4\n:y,2\nx,1\n"
    done = invoke("export", "t", "-o", "parts", "--partition-by", "Kind", "--where", "id < 5")
    assert done.code == 0, done
    found = {
        str(path.relative_to(tmp_path / "parts")): path.read_text() for path in (tmp_path / "parts").rglob("*.csv")
    }
    assert found == {
        "public.t/Kind=a%2Fb/part-0.csv": "id,v\n1,x\n2,:y\n",
        "public.t/Kind=it%27s 100%25/part-0.csv": "id,v\n4,w\n",
        "public.t/Kind=__HIVE_DEFAULT_PARTITION__/part-0.csv": "id,v\n3,z\n",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nope"], 2, "nope"),
        (["t", "-o", "t.html"], 2, "html"),
        (["t", "-o", "t.csv", "--columns", "idd"], 2, "idd"),
        (["t", "-o", "t.csv", "--where", "true) OR (true"], 1, "syntax"),
        (["t", "-o", "t.csv", "--where", "1 / (id - 1) > 0"], 1, "division"),
        (["t", "-o", "t.parquet", "--compression", "gzip"], 2, "compressed inside"),
        (["t", "-o", "there/no/t.csv", "--partition-by", "nope"], 2, "nope"),
    ],
)
def test_what_fails_leaves_nothing(
    invoke: Invoke, database: Database, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    database.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    before = set(tmp_path.rglob("*"))
    failed = invoke("export", *arguments, "--json")
    assert failed.code == code, failed
    assert told in json.loads(failed.stdout)["error"]["message"]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {path for path in before if path.is_file()}


def test_all_files_are_of_one_moment(harborctl: Harborctl, database: Database, database_url: str) -> None:
    """What is committed while the second table is waited for is not in it."""
    database.execute("CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO b VALUES (1)")
    with ThreadPoolExecutor() as pool, psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE b; INSERT INTO b VALUES (2)")
        running = pool.submit(harborctl, "export", "a", "b", "-o", "out", "--json")
        wait_for(database, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        other.commit()
        done = running.result()
    assert [each["rows"] for each in json.loads(done.stdout)["files"]] == [0, 1]
