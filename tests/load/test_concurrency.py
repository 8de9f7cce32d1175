"""Loads beside others: readers do not wait, writers of the same rows both finish, rows of others are not lost.

HARBORCTL_TEST_ROWS and HARBORCTL_TEST_ROUNDS make these tests as large as one likes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.load.merge.statements import FEW_ROWS
from harborctl.model import Limit
from tests.conftest import ours
from tests.load.conftest import wait_for
from tests.load.direct import LoadRows, counts, load_file, rows_loader
from tests.load.sizes import ROUNDS, ROWS

__all__ = ["rows_loader"]

Database = psycopg.Connection[Any]


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """Run all at once; what they return, or raise."""
    results: list[Any] = [None] * len(tasks)
    start = threading.Barrier(len(tasks))

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = tasks[number]()
        except Exception as error:  # noqa: BLE001  # it is what the test looks at
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


@pytest.mark.parametrize(
    ("mode", "settings"), [("sync", {"max_delete": Limit(percent=100)}), ("replace", {"no_block": True})]
)
def test_readers_see_the_old_rows_and_never_wait(
    database: Database, load_rows: LoadRows, database_url: str, mode: str, settings: dict[str, Any]
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    database.execute(f"INSERT INTO t SELECT n, 'old' FROM generate_series(1, {ROWS}) AS n")
    feed = "id,v\n" + "".join(f"{number},new\n" for number in range(2, ROWS + 2))
    done = threading.Event()
    seen: list[tuple[Any, ...]] = []

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as reader:
            # A lock that is not there at once is an error: how long the machine takes for a query is another matter.
            reader.execute("SET lock_timeout = '100ms'")
            while not done.is_set():
                row = reader.execute(
                    "SELECT count(*), min(v), max(v) FROM (SELECT v FROM t LIMIT 50000) AS t"
                ).fetchone()
                assert row is not None
                seen.append(row)

    def load() -> Any:
        try:
            return load_rows(feed, "t", mode, **settings)
        finally:
            done.set()

    error, result = together(read, load)
    assert error is None
    assert result.deleted == (1 if mode == "sync" else ROWS)
    assert {row[1:] for row in seen} <= {("old", "old"), ("new", "new")}
    assert len(seen) > 1


def test_upserts_in_opposite_orders_both_finish(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    count = 2000
    for round_ in range(ROUNDS):
        paths = []
        for name, numbers in (("up", range(count)), ("down", range(count - 1, -1, -1))):
            path = tmp_path / f"{name}.csv"
            path.write_text("id,v\n" + "".join(f"{number},{name}{round_}\n" for number in numbers))
            paths.append(path)
        loads = [lambda p=path: load_file(engine, p, "t", "upsert", writer=writer) for path in paths]
        for result in together(*loads):
            assert result.rows_read == count
        values = database.execute("SELECT DISTINCT v FROM t").fetchall()
        assert values in ([(f"up{round_}",)], [(f"down{round_}",)])


def test_replaces_of_one_table_both_finish(database: Database, engine: sqlalchemy.Engine, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY)")
    path = tmp_path / "t.csv"
    path.write_text("id\n1\n2\n")
    tasks = [
        lambda mode=mode, no_block=no_block: load_file(engine, path, "t", mode, no_block=no_block)
        for mode, no_block in (("replace", False), ("replace", True), ("upsert", False), ("replace", False))
    ]
    assert [result.rows_read for result in together(*tasks)] == [2, 2, 2, 2]


def test_a_row_that_another_brings_in_between_is_updated(
    database: Database, load_rows: LoadRows, database_url: str, writer: str
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text, at integer)")
    for settings, at, many, expected, value in (
        ({}, 1, 0, {"updated": 1}, "ours"),
        ({"newest_by": "at"}, 2, 0, {"updated": 1}, "ours"),
        ({"newest_by": "at"}, 0, 0, {"stale": 1}, "theirs"),
        # Into an empty table many rows go without ON CONFLICT first.
        ({}, 1, FEW_ROWS, {"inserted": FEW_ROWS, "updated": 1}, "ours"),
        ({"newest_by": "at"}, 0, FEW_ROWS, {"inserted": FEW_ROWS, "stale": 1}, "theirs"),
    ):
        database.execute("TRUNCATE t")
        feed = f"id,v,at\n1,ours,{at}\n" + "".join(f"{number},ours,1\n" for number in range(2, many + 2))
        with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
            other.execute("INSERT INTO t VALUES (1, 'theirs', 1)")
            result = pool.submit(load_rows, feed, "t", "upsert", writer=writer, **settings)
            wait_for(database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
            other.commit()
            assert counts(result.result()) == expected
        assert database.execute("SELECT v FROM t WHERE id = 1").fetchone() == (value,)


@pytest.mark.parametrize("mode", ["upsert", "ignore"])
@pytest.mark.parametrize("made", ["", "PARTITION BY HASH (id)"])
def test_an_unchanged_row_that_is_deleted_meanwhile_comes_back(
    database: Database, load_rows: LoadRows, database_url: str, mode: str, made: str
) -> None:
    database.execute(
        f"CREATE TABLE t (id integer PRIMARY KEY, v text) {made};"
        + ("CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0);" if made else "")
        + "INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    )
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("INSERT INTO t VALUES (3, 'theirs')")
        other.execute("DELETE FROM t WHERE id = 1")
        result = pool.submit(load_rows, "id,v\n1,a\n2,b\n3,ours\n", "t", mode)
        wait_for(database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        other.commit()
        accounts = {"upsert": {"inserted": 1, "updated": 1, "unchanged": 1}, "ignore": {"inserted": 1, "skipped": 2}}
        assert counts(result.result()) == accounts[mode]
    rows = database.execute("SELECT id, v FROM t ORDER BY id").fetchall()
    assert rows == [(1, "a"), (2, "b"), (3, "ours" if mode == "upsert" else "theirs")]


@pytest.mark.parametrize(
    ("mode", "settings"), [("sync", {"max_delete": Limit(percent=100)}), ("replace", {"no_block": True})]
)
def test_writers_wait_for_a_table_that_becomes_equal_to_a_file(
    database: Database, load_rows: LoadRows, database_url: str, mode: str, settings: dict[str, Any]
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("INSERT INTO t VALUES (2, 'theirs')")
        result = pool.submit(load_rows, "id,v\n1,b\n", "t", mode, **settings)
        wait_for(database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'")
        other.commit()
        assert result.result().deleted == (1 if mode == "sync" else 2)
    assert database.execute("SELECT id, v FROM t").fetchall() == [(1, "b")]


@pytest.fixture
def busy(database_url: str, engine: sqlalchemy.Engine) -> Iterator[None]:
    """Between any two statements of a load a transaction of somebody else ends, so that merges look twice."""
    with psycopg.connect(database_url, autocommit=True) as other:

        def end_one(*_: Any) -> None:
            other.execute("SELECT pg_catalog.pg_current_xact_id()")

        sqlalchemy.event.listen(ours(engine), "before_cursor_execute", end_one)
        yield


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("on_error", ["abort", "reject"])
def test_what_a_trigger_changes_is_written_once(
    database: Database, load_rows: LoadRows, writer: str, on_error: str
) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text, writes integer DEFAULT 0);"
        "INSERT INTO t VALUES (1, 'A'), (2, 'B');"
        "CREATE FUNCTION upper() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.v := upper(NEW.v); NEW.writes := NEW.writes + 1; RETURN NEW; END $$;"
        "CREATE TRIGGER upper BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION upper()"
    )
    result = load_rows("id,v\n1,A\n2,b\n3,c\n", "t", "upsert", writer=writer, on_error=on_error)
    assert counts(result) == {"inserted": 1, "updated": 1, "unchanged": 1}
    rows = database.execute("SELECT * FROM t ORDER BY id").fetchall()
    assert rows == [(1, "A", 0), (2, "B", 1), (3, "C", 1)]


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("mode", ["upsert", "ignore"])
def test_a_row_that_the_index_is_not_about_is_written_once(
    database: Database, load_rows: LoadRows, writer: str, mode: str
) -> None:
    database.execute(
        "CREATE TABLE t (id integer, live boolean); CREATE UNIQUE INDEX ON t (id) WHERE live;"
        "INSERT INTO t VALUES (2, true)"
    )
    result = load_rows("id,live\n1,f\n1,f\n2,t\n3,t\n", "t", mode, key=("id",), writer=writer)
    assert counts(result) == {"inserted": 3, "unchanged" if mode == "upsert" else "skipped": 1}
    rows = database.execute("SELECT * FROM t ORDER BY id").fetchall()
    assert rows == [(1, False), (1, False), (2, True), (3, True)]
