"""Loads behind a real PgBouncer, which hands one session to many clients: none of them is harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.load.ledger.history import past_loads
from tests.conftest import engine_of, ours
from tests.load.conftest import wait_for
from tests.load.proxy import COMMIT, Cut, at_commit, proxied
from tests.pooler import needs_pgbouncer, pooled

pytestmark = needs_pgbouncer

Database = psycopg.Connection[Any]


@pytest.fixture
def feed(database: Database, tmp_path: Path) -> Path:
    """A file, and the tables of a load and of an innocent client."""
    database.execute("CREATE TABLE items (id integer PRIMARY KEY, name text); CREATE TABLE others (id integer)")
    path = tmp_path / "items.csv"
    path.write_text("id,name\n" + "".join(f"{number},item {number}\n" for number in range(5000)))
    return path


@contextmanager
def loading(url: str, feed: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A load that runs while the block does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harborctl", "load", str(feed), "-t", "items", "--url", url, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(feed.parent)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def rows(database: Database, table: str) -> int:
    [(count,)] = database.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)


@pytest.mark.parametrize("options", [(), ("--commit-every", "2000")], ids=["plain", "chunks"])
def test_a_retry_ends_no_session_that_is_a_strangers_by_now(
    database: Database, database_url: str, feed: Path, options: tuple[str, ...]
) -> None:
    with pooled(database_url, "transaction", 3) as url, psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE items IN EXCLUSIVE MODE")
        with loading(url + "&pgbouncer=true", feed, "--lock-timeout", "0.2", *options) as process:
            assert process.stderr
            assert "attempt 1 of 4 failed" in process.stderr.readline()
            # The pool's sessions are handed out again, all of them but one, that the next attempt will have, and two.
            with psycopg.connect(url, prepare_threshold=None) as innocent:
                innocent.execute("INSERT INTO others VALUES (1)")
                blocker.rollback()
                out, err = process.communicate(timeout=60)
                assert (process.returncode, err) == (0, ""), out
                innocent.commit()
    assert (rows(database, "items"), rows(database, "others")) == (5000, 1)


@pytest.mark.parametrize("ledger", [True, False])
def test_whoever_has_the_session_after_a_commit_without_an_answer_keeps_it(
    database: Database, database_url: str, feed: Path, ledger: bool
) -> None:
    at: Cut = at_commit(2 if ledger else 1)
    with (
        pooled(database_url, "transaction", 2) as pool,
        psycopg.connect(pool, prepare_threshold=None) as other,
        psycopg.connect(pool, prepare_threshold=None) as innocent,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting: list[Future[Any]] = []

        def cut(data: bytes, passed: int) -> bool:
            if hit := at(data, passed):
                # First in the queue for the only session that the pool has left: the load's own.
                waiting.append(threads.submit(innocent.execute, "INSERT INTO others VALUES (1)"))
                time.sleep(0.3)
            return hit

        other.execute("SELECT 1")
        options = () if ledger else ("--no-ledger",)
        with (
            proxied(pool, cut, linger=1) as (url, proxy),
            loading(url + "&pgbouncer=true", feed, *options) as process,
        ):
            wait_for(database, "SELECT count(*) FROM items")
            waiting[0].result(timeout=30)
            other.rollback()
            out, err = process.communicate(timeout=60)
            assert process.returncode == (0 if ledger else 3), (out, err)
        innocent.commit()
    assert proxy.cuts == 1
    assert (rows(database, "items"), rows(database, "others")) == (5000, 1)


@pytest.mark.parametrize(("mode", "options"), [("transaction", ("--commit-every", "2000")), ("session", ())])
def test_a_killed_load_whose_session_lives_on_is_lost(
    database: Database, database_url: str, feed: Path, mode: str, options: tuple[str, ...]
) -> None:
    """It holds up no other load of the same file, and history does not say that it runs."""
    engine = ours(engine_of(database_url))

    def status() -> Any:
        [load] = past_loads(engine, table=None, status=None, since=None, limit=9)
        return load["status"]

    with pooled(database_url, mode, 4) as url, psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE items IN EXCLUSIVE MODE")
        with loading(url + "&pgbouncer=true", feed, "--lock-timeout", "1", *options) as process:
            wait_for(database, "SELECT count(*) FROM pg_locks WHERE NOT granted")
            assert status() == "running"
            assert process.stderr
            assert "attempt 1 of 4 failed" in process.stderr.readline()  # killed now, it has no transaction
        blocker.rollback()
        wait_for(database, "SELECT (count(*) = 0)::int FROM pg_locks WHERE locktype = 'advisory'")
        assert status() == "lost"
        with loading(url + "&pgbouncer=true", feed) as process:
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, ""), out
    assert rows(database, "items") == 5000


def test_what_a_lost_answer_has_committed_is_told(database: Database, database_url: str, feed: Path) -> None:
    """Of a load in chunks, also when no attempt is left to find it out."""
    with proxied(database_url, at_chunk(2)) as (url, proxy):
        with loading(url, feed, "--commit-every", "2000", "--retries", "0") as process:
            out, err = process.communicate(timeout=60)
    summary = json.loads(out)
    assert (process.returncode, proxy.cuts) == (3, 1), err
    assert (summary["chunks"], summary["rows_read"]) == (2, 4000) == (2, rows(database, "items"))
    assert "4,000 rows in 2 chunks are committed" in err


def at_chunk(number: int) -> Cut:
    """Cut between the COMMIT of this chunk and its answer."""
    seen = 0

    def cut(data: bytes, _passed: int) -> bool:
        nonlocal seen
        if b"harborctl.chunks" in data and b"INSERT" in data:
            seen += 1
        return seen >= number and COMMIT in data

    return cut
