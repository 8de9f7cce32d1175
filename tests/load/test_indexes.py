"""Indexes that are built after the rows: the schema is what it was, whatever stands on the table, and whether the load
goes in or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import psycopg
import pytest

from tests.conftest import Harborctl
from tests.db.dumps import dumped
from tests.inprocess import Invoke
from tests.load.conftest import failure, wait_for

Database = psycopg.Connection[Any]
Load = Callable[..., dict[str, Any]]

# Enough rows for COPY to be chosen.
ROWS = 3000
KILLS = int(os.environ.get("HARBORCTL_TEST_KILLS", "1"))
RANDOM = SystemRandom()

EVERYTHING = """
    CREATE TABLE parents (id int PRIMARY KEY);
    INSERT INTO parents SELECT generate_series(0, 9);
    CREATE FUNCTION mine(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
    CREATE TABLE t (
        id int, code text COLLATE "C" NOT NULL, name varchar(40), at date DEFAULT '2026-01-01', span int4range, p int
        REFERENCES parents,
        CONSTRAINT "the key" PRIMARY KEY (id) INCLUDE (name) WITH (fillfactor = 70),
        CONSTRAINT by_code UNIQUE NULLS NOT DISTINCT (code, p) DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT later UNIQUE (id, code) DEFERRABLE,
        CONSTRAINT apart EXCLUDE USING gist (span WITH &&) WHERE (id < 0)
    ) WITH (fillfactor = 90);
    CREATE INDEX "odd % name" ON t USING hash (name);
    CREATE INDEX part ON t (at DESC NULLS LAST, lower(name) text_pattern_ops) INCLUDE (p) WITH (deduplicate_items = off)
        WHERE p > 3 AND name IS NOT NULL;
    CREATE UNIQUE INDEX expressions ON t ((id * 2), md5(code));
    CREATE INDEX by_mine ON t (mine(id));
    CREATE INDEX brin ON t USING brin (id) WITH (pages_per_range = 8);
    ALTER INDEX expressions ALTER COLUMN 1 SET STATISTICS 77;
    COMMENT ON INDEX part IS 'it''s "partial"';
    COMMENT ON CONSTRAINT by_code ON t IS 'by code';
    COMMENT ON INDEX by_code IS 'of by code';
    ALTER TABLE t CLUSTER ON "the key";
    CREATE UNIQUE INDEX identity ON t (code DESC);
    ALTER TABLE t REPLICA IDENTITY USING INDEX identity;
    CREATE STATISTICS together ON id, p FROM t;
"""


TRIGGER = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER before BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
"""


DEFERRED = """
    ALTER TABLE t ADD FOREIGN KEY (p) REFERENCES t DEFERRABLE INITIALLY DEFERRED;
    CREATE INDEX ON t (code);
"""


def write_rows(path: Path, rows: int = ROWS, twice: int | None = None) -> Path:
    lines = [f"{number},code {number},name {number},{number % 10}" for number in range(rows)]
    if twice is not None:
        lines.append(lines[twice].replace("code", "other"))
    path.write_text("id,code,name,p\n" + "\n".join(lines) + "\n")
    return path


def oids(database: Database, table: str = "t") -> dict[str, int]:
    query = "SELECT indexrelid::regclass::text, indexrelid FROM pg_index WHERE indrelid = %s::regclass"
    return dict(database.execute(query, [table]).fetchall())


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_the_schema_is_what_it_was(
    load: Load, database: Database, database_url: str, tmp_path: Path, mode: str
) -> None:
    database.execute(EVERYTHING)
    before, indexes = dumped(database_url, "--schema-only"), oids(database)
    assert load(write_rows(tmp_path / "t.csv"), "--mode", mode)["inserted"] == ROWS
    assert dumped(database_url, "--schema-only") == before
    kept = {name for name, oid in oids(database).items() if indexes[name] == oid}
    # A function of a user's may mean other tables under another search path.
    assert kept == {"by_mine"}
    assert database.execute("SELECT count(*) FROM t WHERE id = 7 AND at = '2026-01-01'").fetchone() == (1,)
    assert database.execute("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 't'::regclass").fetchone() == (
        True,
    )


def test_what_others_depend_on_stays(load: Load, database: Database, database_url: str, tmp_path: Path) -> None:
    database.execute(EVERYTHING)
    database.execute("CREATE TABLE children (t int REFERENCES t)")
    database.execute("CREATE VIEW grouped AS SELECT id, name FROM t GROUP BY id")
    before, indexes = dumped(database_url, "--schema-only"), oids(database)
    load(write_rows(tmp_path / "t.csv"))
    assert dumped(database_url, "--schema-only") == before
    assert oids(database)['"the key"'] == indexes['"the key"']


def test_what_the_table_itself_depends_on_stays_when_it_is_replaced(
    load: Load, database: Database, database_url: str, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY REFERENCES t, code text UNIQUE, name text, p int)")
    before, indexes = dumped(database_url, "--schema-only"), oids(database)
    for _ in range(2):
        assert load(write_rows(tmp_path / "t.csv"), "--mode", "replace")["inserted"] == ROWS
    assert dumped(database_url, "--schema-only") == before
    kept = {name for name, oid in oids(database).items() if indexes[name] == oid}
    assert kept == {"t_pkey"}


@pytest.mark.parametrize(
    ("options", "setting", "rebuilt"),
    [
        ([], "SELECT 1", True),
        (["--rebuild-indexes", "never"], "SELECT 1", False),
        ([], "INSERT INTO t VALUES (-1, 'c')", False),
        (["--rebuild-indexes", "always"], "INSERT INTO t VALUES (-1, 'c')", True),
        ([], TRIGGER, False),
        (["--writer", "values"], "SELECT 1", False),
        (["--commit-every", "1000"], "SELECT 1", False),
        (["--mode", "replace", "--no-block"], "INSERT INTO t VALUES (-1)", False),
        (["--dry-run"], "SELECT 1", False),
        (["--on-error", "reject"], "SELECT 1", False),
        ([], DEFERRED, False),
        (["--mode", "replace"], DEFERRED, False),
    ],
)  # fmt: skip
def test_when_indexes_are_rebuilt(
    load: Load, database: Database, tmp_path: Path, options: list[str], setting: str, rebuilt: bool
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, code text, name text, p int)")
    database.execute(setting)
    before = oids(database)
    load(write_rows(tmp_path / "t.csv"), *options)
    assert (oids(database) != before) is rebuilt


def test_a_partition_keeps_its_indexes(load: Load, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE w (id int PRIMARY KEY, code text, name text, p int) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE t PARTITION OF w FOR VALUES FROM (0) TO (100000)")
    before = oids(database)
    load(write_rows(tmp_path / "t.csv"))
    assert oids(database) == before


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_duplicate_is_located_and_nothing_changes(
    invoke: Invoke, database: Database, database_url: str, tmp_path: Path, mode: str
) -> None:
    database.execute(EVERYTHING)
    before, indexes = dumped(database_url, "--exclude-schema=harborctl"), oids(database)
    write_rows(tmp_path / "t.csv", twice=42)
    error = failure(invoke("load", "t.csv", "--mode", mode, "--json"), 1)
    assert (error["code"], error["line"], "already exists" in error["message"] or "42" in error["message"]) == (
        "23505", ROWS + 2, True,
    )  # fmt: skip
    assert dumped(database_url, "--exclude-schema=harborctl") == before
    assert oids(database) == indexes


def test_nobody_who_reads_is_waited_for(
    harborctl: Harborctl, database: Database, database_url: str, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, code text, name text, p int)")
    before = oids(database)
    write_rows(tmp_path / "t.csv")
    with ThreadPoolExecutor() as pool, psycopg.connect(database_url) as other:
        other.execute("SELECT * FROM t")
        running = pool.submit(harborctl, "load", "t.csv", "--lock-timeout", "60")
        with suppress(TimeoutError):
            running.result(timeout=30)
        is_done = running.done()  # while the other still reads
        other.rollback()
    assert is_done
    assert running.result().code == 0
    assert oids(database) == before


def test_a_key_from_a_pipe_is_located(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, code text, name text, p int)")
    text = write_rows(tmp_path / "t.csv", twice=42).read_text()
    error = json.loads(invoke("load", "-", "-t", "t", "--json", stdin=text).stdout)["error"]
    assert (error["code"], error["line"]) == ("23505", ROWS + 2)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_load_that_is_killed_leaves_the_schema_as_it_was(
    database: Database, database_url: str, tmp_path: Path, mode: str
) -> None:
    """HARBORCTL_TEST_KILLS says how often."""
    database.execute(EVERYTHING)
    before = dumped(database_url, "--exclude-schema=harborctl")
    write_rows(tmp_path / "t.csv", 60_000)
    arguments = ["load", str(tmp_path / "t.csv"), "--mode", mode, "--no-ledger", "--url", database_url]
    began, killed = time.monotonic(), 0
    subprocess.run([sys.executable, "-m", "harborctl", *arguments, "--dry-run"], check=True, capture_output=True)
    seconds = time.monotonic() - began
    for _ in range(KILLS):
        running = subprocess.Popen([sys.executable, "-m", "harborctl", *arguments])
        with suppress(subprocess.TimeoutExpired):
            running.wait(RANDOM.uniform(0.2, 1) * seconds)
        running.kill()
        if running.wait() == 0:  # it was faster
            database.execute("TRUNCATE t")
            continue
        killed += 1
        wait_for(database, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE relation = 't'::regclass)")
        assert dumped(database_url, "--exclude-schema=harborctl") == before
    assert killed or KILLS < 5


def test_a_deferred_constraint_that_stays_is_told_as_what_it_is(
    invoke: Invoke, database: Database, tmp_path: Path
) -> None:
    """Its index stays, for the catalog writes no storage parameters of it, and no other is built while checks wait."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, code text, name text, p int, span int4range DEFAULT '[0,1)')")
    database.execute(
        "ALTER TABLE t ADD CONSTRAINT apart EXCLUDE USING gist (span WITH &&) WITH (fillfactor = 70)"
        " DEFERRABLE INITIALLY DEFERRED"
    )
    write_rows(tmp_path / "t.csv", twice=None)
    error = failure(invoke("load", "t.csv", "--json"), 1)
    assert error["code"] == "23P01", error
