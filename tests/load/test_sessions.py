"""How many sessions a load or a job takes: it works with just those, and with fewer it says so at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg import sql

from harborctl.db import sessions
from tests.conftest import Harborctl, Run
from tests.load.conftest import failure, wait_for
from tests.pooler import needs_pgbouncer, pooled

Database = psycopg.Connection[Any]

ROWS = 3000
ANY_PASSWORD = "x"  # noqa: S105  # the test server asks for none
PLAIN, CHUNKS, JOBS = (), ("--commit-every", "1000"), ("--jobs", "2")

JOB = """
[jobs.nightly]
after = ["INSERT INTO marks VALUES ('a')", "VACUUM marks"]

[[jobs.nightly.loads]]
source = "items.csv"
table = "items"

[[jobs.nightly.loads]]
source = "items.csv"
table = "others"
mode = "upsert"
on_error = "reject"

[[jobs.nightly.reports]]
report = "load_history"
output = "history.csv"
"""


@pytest.fixture
def feed(database: Database, tmp_path: Path) -> Path:
    for name in ("items", "others"):
        database.execute(f"CREATE TABLE {name} (id integer PRIMARY KEY, name text)")
    database.execute("CREATE TABLE marks (mark text)")
    (tmp_path / "harborctl.toml").write_text(JOB)
    path = tmp_path / "items.csv"
    path.write_text("id,name\n" + "".join(f"{number},item {number}\n" for number in range(ROWS)))
    return path


@pytest.fixture
def limited(database: Database, database_url: str) -> Iterator[Any]:
    """Makes the URL of a role that may have so many sessions."""
    role = f"limited_{database.info.backend_pid}"
    name = sql.Identifier(role)
    database.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(name))
    database.execute(sql.SQL("GRANT ALL ON SCHEMA public, harborctl TO {}").format(name))

    def limit(count: int) -> str:
        for schema in ("public", "harborctl"):
            database.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA {} TO {}").format(sql.Identifier(schema), name))
        database.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(name, count))
        url = sqlalchemy.make_url(database_url).set(username=role, password=ANY_PASSWORD)
        return url.render_as_string(hide_password=False)

    yield limit
    wait_for(database, f"SELECT (count(*) = 0)::int FROM pg_stat_activity WHERE usename = '{role}'")
    database.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def rows(database: Database, table: str = "items") -> int:
    [(count,)] = database.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)


def load(harborctl: Harborctl, feed: Path, url: str, *options: str) -> Run:
    return harborctl("load", feed, "-t", "items", "--json", "--url", url, *options)


NEEDS = [(PLAIN, 1), (CHUNKS, 2), (JOBS, 3)]


@pytest.mark.parametrize(("options", "needed"), NEEDS)
def test_a_load_works_with_as_many_sessions_as_it_needs(
    harborctl: Harborctl, database: Database, limited: Any, feed: Path, options: tuple[str, ...], needed: int
) -> None:
    done = load(harborctl, feed, limited(needed), *options)
    assert (done.code, done.stderr, rows(database)) == (0, "", ROWS)


@pytest.mark.parametrize(("options", "needed"), NEEDS[1:])
def test_with_fewer_it_says_so(
    harborctl: Harborctl, database: Database, limited: Any, feed: Path, options: tuple[str, ...], needed: int
) -> None:
    error = failure(load(harborctl, feed, limited(needed - 1), *options), 3)
    assert error["code"] == "too_few_sessions"
    assert f"needs {needed} sessions at once, and only {needed - 1} can be had" in error["message"]
    assert rows(database) == 0


@needs_pgbouncer
@pytest.mark.parametrize(
    ("options", "needed", "mode"), [*((*need, "transaction") for need in NEEDS), (*NEEDS[1], "session")]
)
def test_behind_a_pooler(
    harborctl: Harborctl, database: Database, database_url: str, feed: Path, options: tuple[str, ...], needed: int,
    mode: str,
) -> None:  # fmt: skip
    with pooled(database_url, mode, needed) as url:
        done = load(harborctl, feed, f"{url}&pgbouncer=true", *options)
        assert (done.code, done.stderr, rows(database)) == (0, "", ROWS)


@needs_pgbouncer
@pytest.mark.parametrize(("options", "needed"), NEEDS[1:2])
def test_behind_a_pooler_that_has_fewer(
    harborctl: Harborctl, database: Database, database_url: str, feed: Path, options: tuple[str, ...], needed: int
) -> None:
    with pooled(database_url, "transaction", needed - 1) as url:
        start = time.monotonic()
        error = failure(load(harborctl, feed, f"{url}&pgbouncer=true", *options), 3)
        assert time.monotonic() - start < sessions.PATIENCE * 3
        assert f"only {needed - 1} can be had" in error["message"]


def test_a_job_takes_one_session(
    harborctl: Harborctl, database: Database, limited: Any, feed: Path, tmp_path: Path
) -> None:
    done = harborctl("run", "nightly", "--json", "--url", limited(1))
    summary = json.loads(done.stdout)
    statements = [step["status"] for step in summary["steps"]]
    assert (done.code, statements) == (0, ["done"] * 3), done
    assert (rows(database), rows(database, "others"), rows(database, "marks")) == (ROWS, ROWS, 1)


@needs_pgbouncer
def test_a_job_behind_a_pooler_takes_one_more(
    harborctl: Harborctl, database: Database, database_url: str, feed: Path
) -> None:
    with pooled(database_url, "transaction", 1) as url:
        done = harborctl("run", "nightly", "--json", "--url", f"{url}&pgbouncer=true")
        assert (done.code, json.loads(done.stdout)["error"]["code"]) == (3, "too_few_sessions")
        assert "a job behind a pooler needs 2 sessions" in done.stderr
    with pooled(database_url, "transaction", 2) as url:
        done = harborctl("run", "nightly", "--json", "--url", f"{url}&pgbouncer=true")
        assert (done.code, rows(database)) == (0, ROWS), done


# -- the lock of a job is lost

WAITING = """
[jobs.nightly]
after = ["SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)", "INSERT INTO marks VALUES ('a')"]

[[jobs.nightly.loads]]
source = "items.csv"
table = "items"
"""
LOCK = "locktype = 'advisory' AND classid = x'6872626a'::int::oid"
AT_WORK = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1"


@pytest.mark.parametrize("pooler", [False, pytest.param(True, marks=needs_pgbouncer)])
@pytest.mark.parametrize("rival", [False, True])
def test_a_job_whose_lock_is_lost(
    harborctl: Harborctl,
    database: Database,
    database_url: str,
    feed: Path,
    tmp_path: Path,
    *,
    pooler: bool,
    rival: bool,
) -> None:
    """It is taken again, or, if another run has it, no further step is begun."""
    (tmp_path / "harborctl.toml").write_text(WAITING)
    with (
        psycopg.connect(database_url, autocommit=True) as blocker,
        psycopg.connect(database_url) as other,
        pooled(database_url, "transaction", 3) if pooler else psycopg.connect(database_url) as pool,
        ThreadPoolExecutor(2) as threads,
    ):
        url = f"{pool}&pgbouncer=true" if pooler else database_url
        blocker.execute("SELECT pg_advisory_lock(1)")
        job = threads.submit(harborctl, "run", "nightly", "--json", "--keep-going", "--url", url)
        wait_for(database, AT_WORK)
        if rival:
            [(number,)] = database.execute(f"SELECT objid::bigint FROM pg_locks WHERE {LOCK}").fetchall()
            signed = number - 2**32 if number >= 2**31 else number
            taken = threads.submit(other.execute, "SELECT pg_advisory_xact_lock(x'6872626a'::int, %s::int)", (signed,))
            wait_for(database, f"SELECT count(*) FROM pg_locks WHERE {LOCK} AND NOT granted")
        database.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE {LOCK} AND granted")
        if rival:
            taken.result(timeout=30)
        blocker.execute("SELECT pg_advisory_unlock(1)")
        done = job.result()
    summary = json.loads(done.stdout)
    assert rows(database) == ROWS
    assert "Traceback" not in done.stderr
    # Without a pooler the session that held the lock was the one at work.
    if rival:
        assert (done.code, rows(database, "marks")) == (5 if pooler else 3, 0), done
        assert "was ended, and another run has begun meanwhile: job nightly runs already" in done.stderr
        assert not pooler or summary["error"]["code"] == "lock_lost"
    else:
        assert (done.code, rows(database, "marks")) == (0 if pooler else 3, 1), done
        assert "the session that held the lock of job nightly was ended; the lock was taken again" in done.stderr


@needs_pgbouncer
def test_timeouts_end_no_locks(
    harborctl: Harborctl, database: Database, database_url: str, feed: Path, tmp_path: Path
) -> None:
    """Each transaction of the work is shorter than the limits, all of them together are longer."""
    names = ["idle_in_transaction_session_timeout", "idle_session_timeout"]
    if database.info.server_version >= 170000:
        names.append("transaction_timeout")
    for name in names:
        limit = sql.SQL("ALTER DATABASE {} SET {} = '1500ms'")
        database.execute(limit.format(sql.Identifier(str(database.info.dbname)), sql.Identifier(name)))
    database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id % 1000 = 0 THEN PERFORM pg_sleep(0.6); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER wait BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    done = load(harborctl, feed, database_url, "--commit-every", "1000")
    assert (done.code, done.stderr) == (0, "")
    waits = ", ".join(["'SELECT pg_sleep(0.6)'"] * 3)
    (tmp_path / "harborctl.toml").write_text(f"[jobs.nightly]\nafter = [{waits}]\n" + WAITING.partition("\n\n")[2])
    with pooled(database_url, "transaction", 3) as url:
        done = harborctl("run", "nightly", "--json", "--url", f"{url}&pgbouncer=true")
        assert (done.code, done.stderr) == (0, "")


@pytest.mark.parametrize("options", [CHUNKS, JOBS])
def test_a_load_in_chunks_whose_locks_are_lost(
    harborctl: Harborctl, database: Database, database_url: str, feed: Path, options: tuple[str, ...]
) -> None:
    """The next attempt takes them again, and goes on."""
    database.execute("ALTER TABLE items DROP CONSTRAINT items_pkey")
    database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id = 1500 THEN PERFORM pg_advisory_xact_lock_shared(1); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER wait BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    with psycopg.connect(database_url, autocommit=True) as blocker, ThreadPoolExecutor(1) as threads:
        blocker.execute("SELECT pg_advisory_lock(1)")
        run = threads.submit(load, harborctl, feed, database_url, *options)
        wait_for(database, AT_WORK)
        database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks"
            " WHERE locktype = 'advisory' AND classid = x'68726263'::int::oid AND objsubid = 2"
        )
        blocker.execute("SELECT pg_advisory_unlock(1)")
        done = run.result()
    assert done.code == 0, done
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["attempts"], summary["rows_read"]) == ("loaded", 2, ROWS)
    assert "attempt 1 of 4 failed: " in done.stderr
    assert rows(database) == ROWS


def test_the_loss_of_the_locks_is_told_while_other_workers_are_busy(
    harborctl: Harborctl, database: Database, database_url: str, feed: Path
) -> None:
    """The worker whose chunk is due finds that the locks are lost, and the session that held them is looked at again
    while another still loads."""
    database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id IN (500, 1500) THEN PERFORM pg_advisory_xact_lock_shared(1 + NEW.id / 1000); END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER wait BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    busy = "locktype = 'advisory' AND NOT granted AND objid = 2"
    with psycopg.connect(database_url, autocommit=True) as blocker, ThreadPoolExecutor(1) as threads:
        blocker.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
        run = threads.submit(load, harborctl, feed, database_url, *CHUNKS, *JOBS)
        wait_for(database, AT_WORK)
        wait_for(database, f"SELECT count(*) FROM pg_locks WHERE {busy}")
        [(pid,)] = database.execute(f"SELECT pid FROM pg_locks WHERE {busy}").fetchall()
        database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks"
            " WHERE locktype = 'advisory' AND classid = x'68726263'::int::oid AND objsubid = 2"
        )
        blocker.execute("SELECT pg_advisory_unlock(1)")
        wait_for(database, f"SELECT (count(*) = 0)::int FROM pg_stat_activity WHERE pid = {pid}")
        blocker.execute("SELECT pg_advisory_unlock(2)")
        done = run.result()
    assert done.code == 0, done
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["attempts"], summary["rows_read"]) == ("loaded", 2, ROWS)
    assert "failed: the session that held the locks of this load was ended" in done.stderr
    assert rows(database) == ROWS
    assert database.execute("SELECT status FROM harborctl.loads").fetchall() == [("loaded",)]
