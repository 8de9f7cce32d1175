"""Exactly once: reruns are recognised by content, failures that pass are retried, and a lost COMMIT is looked up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.cli.progress import Silent
from harborctl.db.engine import Database, open_database
from harborctl.load import retry
from harborctl.load.backend import PATIENCE, Backend, end_backend
from harborctl.load.run import LoadFailed, run_load
from harborctl.model import (
    ConnectionOptions,
    LoadOptions,
    LoadResult,
    Lock,
    MergeOptions,
    Mode,
    OnError,
    RejectOptions,
    RunOptions,
)
from tests.conftest import Harborctl, ours
from tests.inprocess import Invoke, invoke
from tests.load.conftest import Load, wait_for
from tests.load.proxy import after_bytes, at_commit, proxied
from tests.load.test_concurrency import together

__all__ = ["invoke"]

Connection = psycopg.Connection[Any]


@pytest.fixture
def table(database: Connection) -> Connection:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    database.execute("CREATE TABLE free (id integer, v text)")
    return database


@pytest.fixture
def load(invoke: Invoke) -> Load:
    """`harborctl load … --json` in this process."""

    def loaded(*arguments: str | Path) -> dict[str, Any]:
        result = invoke("load", *arguments, "--json")
        assert (result.code, result.stderr) == (0, ""), result
        summary: dict[str, Any] = json.loads(result.stdout)
        return summary

    return loaded


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)


def feed(tmp_path: Path, rows: int = 3, name: str = "t.csv", value: str = "a") -> Path:
    path = tmp_path / name
    path.write_text("id,v\n" + "".join(f"{number},{value}\n" for number in range(rows)))
    return path


def run(url: str, path: Path | str, table: str, mode: Mode = Mode.APPEND, **settings: Any) -> LoadResult:
    options = LoadOptions((str(path),), table=table, mode=mode, run=RunOptions(**settings))
    with open_database(ConnectionOptions(url=url)) as database:
        return run_load(database, options, Silent())


def count(connection: Connection, table: str = "free") -> Any:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row
    return row[0]


def statuses(connection: Connection) -> list[Any]:
    return [row[0] for row in connection.execute("SELECT status FROM harborctl.loads ORDER BY finished_at")]


def test_a_rerun_is_recognised_whatever_the_file_is_called(
    table: Connection, load: Load, invoke: Invoke, tmp_path: Path
) -> None:
    first = load(feed(tmp_path), "-t", "free")
    second = load(feed(tmp_path, name="other.csv"), "-t", "free")
    assert (second["status"], second["rows_read"], second["attempts"]) == ("already_loaded", 0, 1)
    assert second["earlier"]["load_id"] == first["load_id"]
    said = invoke("load", "t.csv", "-t", "free")
    assert said.code == 0
    assert f"already loaded at {second['earlier']['finished_at']} by load {first['load_id']}" in said.stdout
    assert count(table) == 3
    again = load(feed(tmp_path), "-t", "free", "--again")
    assert (again["status"], again["inserted"], count(table)) == ("loaded", 3, 6)
    assert statuses(table) == ["loaded", "already_loaded", "already_loaded", "loaded"]


@pytest.mark.parametrize(
    "change",
    [("--set", "v=x", "--skip-columns", "v"), ("--null", "a"), ("--mode", "upsert"), ("--columns", "id,v")],
)
def test_another_meaning_is_another_load(
    table: Connection, load: Load, tmp_path: Path, change: tuple[str, ...]
) -> None:
    load(feed(tmp_path), "-t", "t")
    if "upsert" not in change:
        table.execute("DELETE FROM t")
    assert load(feed(tmp_path), "-t", "t", *change)["status"] == "loaded"


def test_the_same_size_is_not_the_same_content(table: Connection, load: Load, tmp_path: Path) -> None:
    load(feed(tmp_path), "-t", "free")
    assert load(feed(tmp_path, value="b"), "-t", "free")["status"] == "loaded"


def test_a_table_made_anew_is_loaded_anew(table: Connection, load: Load, tmp_path: Path) -> None:
    load(feed(tmp_path), "-t", "free")
    table.execute("DROP TABLE free; CREATE TABLE free (id integer, v text)")
    assert load(feed(tmp_path), "-t", "free")["inserted"] == 3


def test_after_another_load_an_old_file_overwrites_again(table: Connection, load: Load, tmp_path: Path) -> None:
    a, b = feed(tmp_path), feed(tmp_path, name="b.csv", value="b")
    for path, status in ((a, "loaded"), (b, "loaded"), (b, "already_loaded"), (a, "loaded"), (a, "already_loaded")):
        assert load(path, "-t", "t", "--mode", "upsert")["status"] == status
    assert table.execute("SELECT DISTINCT v FROM t").fetchall() == [("a",)]


def test_standard_input_is_recognised_when_it_has_been_read(
    table: Connection, harborctl: Harborctl, tmp_path: Path
) -> None:
    text = feed(tmp_path, 5000).read_text()
    for status in ("loaded", "already_loaded"):
        assert json.loads(harborctl("load", "-", "-t", "free", "--json", stdin=text).stdout)["status"] == status
    assert count(table) == 5000


def test_of_two_at_once_one_goes_in(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, 20_000)
    results = together(*[lambda: run(database_url, path, "free")] * 3)
    assert sorted(result.status for result in results) == ["already_loaded", "already_loaded", "loaded"]
    assert count(table) == 20_000


def test_without_a_ledger_nothing_is_recognised(table: Connection, load: Load, tmp_path: Path) -> None:
    for _ in range(2):
        assert load(feed(tmp_path), "-t", "free", "--no-ledger")["status"] == "loaded"
    assert count(table) == 6


# -- locks


@pytest.fixture
def holder(table: Connection, database_url: str) -> Any:
    """A session that does not end its load into `t`."""
    with psycopg.connect(database_url, application_name="harborctl") as other:
        other.execute("SELECT pg_advisory_xact_lock(x'68617262'::int, 't'::regclass::oid::int)")
        yield other


def test_a_held_lock(holder: Connection, invoke: Invoke, table: Connection, tmp_path: Path) -> None:
    path = feed(tmp_path)
    arguments = ("load", path, "-t", "t", "--mode", "upsert", "--json")
    failed = invoke(*arguments, "--lock", "fail")
    assert failed.code == 5
    error = json.loads(failed.stdout)["error"]
    assert error["code"] == "locked"
    assert "harborctl of user" in error["message"]
    assert f"process {holder.info.backend_pid}, since 20" in error["message"]
    skipped = invoke(*arguments, "--lock", "skip")
    assert skipped.code == 0
    assert json.loads(skipped.stdout)["status"] == "locked"
    assert invoke(*arguments, "--lock-timeout", "0.05").code == 5
    assert invoke("load", path, "-t", "t", "--lock", "fail").code == 0  # an append takes no lock
    assert statuses(table) == ["failed", "locked", "failed", "loaded"]


def test_waiting_for_a_lock_says_for_whom(
    holder: Connection, table: Connection, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = feed(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, database_url, path, "t", Mode.UPSERT)
        wait_for(table, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
        holder.rollback()
        assert waiting.result().inserted == 3
    assert f"process {holder.info.backend_pid}, since" in caplog.text


def test_whoever_waited_for_the_same_load_has_nothing_to_do(
    holder: Connection, table: Connection, database_url: str, tmp_path: Path
) -> None:
    path = feed(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run, database_url, path, "t", Mode.UPSERT) for _ in range(2)]
        wait_for(table, "SELECT count(*) / 2 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
        holder.rollback()
        assert sorted(one.result().status for one in both) == ["already_loaded", "loaded"]


# -- what passes


def test_a_cut_connection_is_tried_again(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, 100_000)
    with proxied(database_url, after_bytes(500_000)) as (url, proxy):
        result = run(url, path, "free")
    assert (proxy.cuts, result.attempts, result.inserted) == (1, 2, 100_000)
    assert [error.code for error in result.retried] == ["connection_lost"]
    assert count(table) == 100_000
    assert statuses(table) == ["loaded"]
    assert table.execute("SELECT metadata->'attempts' FROM harborctl.loads").fetchone() == (2,)


def test_without_retries_left_it_fails(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, 100_000)
    with proxied(database_url, after_bytes(500_000)) as (url, _), pytest.raises(LoadFailed) as failed:
        run(url, path, "free", retries=0)
    assert failed.value.result.attempts == 1
    assert count(table) == 0
    assert statuses(table) == ["failed"]


def test_standard_input_is_not_tried_again(database_url: str, table: Connection, tmp_path: Path) -> None:
    with proxied(database_url, after_bytes(500_000)) as (url, _):
        done = subprocess.run(
            [sys.executable, "-m", "harborctl", "load", "-", "-t", "free", "--url", url],
            input=feed(tmp_path, 100_000).read_text(), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3
    assert "standard input is read only once" in done.stderr
    assert count(table) == 0


def test_a_deadlock_is_tried_again(table: Connection, database_url: str, tmp_path: Path) -> None:
    # The trigger raises it once: sequences do not roll back.
    table.execute("CREATE SEQUENCE calls")
    table.execute(
        "CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('calls') = 1 THEN"
        " RAISE deadlock_detected; END IF; RETURN NEW; END $$"
    )
    table.execute("CREATE TRIGGER once BEFORE INSERT ON free EXECUTE FUNCTION once()")
    table.execute("ALTER TABLE free DISABLE TRIGGER once; DROP TRIGGER once ON free")
    table.execute("CREATE TRIGGER once BEFORE INSERT ON free FOR EACH ROW EXECUTE FUNCTION once()")
    result = run(database_url, feed(tmp_path), "free")
    assert (result.attempts, result.inserted, result.retried[0].code) == (2, 3, "40P01")


def test_a_bad_row_is_not_tried_again(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("id,v\nx,1\n")
    with pytest.raises(LoadFailed) as failed:
        run(database_url, path, "free")
    assert failed.value.result.attempts == 1


# The first COMMIT is that of the row which says that the load runs, the second that of the load.
@pytest.mark.parametrize(("number", "attempts"), [(1, 2), (2, 1)])
def test_a_commit_without_an_answer(
    table: Connection, database_url: str, tmp_path: Path, number: int, attempts: int
) -> None:
    path = feed(tmp_path, 5000)
    with proxied(database_url, at_commit(number)) as (url, proxy):
        result = run(url, path, "free")
    assert (proxy.cuts, result.status, result.attempts) == (1, "loaded", attempts)
    assert any("the ledger says" in note for note in result.notes) == (number == 2)
    assert count(table) == 5000
    assert statuses(table) == ["loaded"]


def test_a_commit_without_an_answer_and_without_a_ledger(table: Connection, database_url: str, tmp_path: Path) -> None:
    options = LoadOptions((str(feed(tmp_path)),), table="free", ledger=False)
    with proxied(database_url, at_commit(1)) as (url, _), open_database(ConnectionOptions(url=url)) as database:
        with pytest.raises(LoadFailed) as failed:
            run_load(database, options, Silent())
    assert failed.value.error.code == "commit_unknown"
    assert failed.value.error.exit_code == 3


def test_a_session_that_lives_on_is_ended_soon(table: Connection, database_url: str, engine: sqlalchemy.Engine) -> None:
    with psycopg.connect(database_url) as other:
        pid = other.info.backend_pid
        query = "SELECT extract(epoch FROM backend_start) FROM pg_stat_activity WHERE pid = %s"
        row = other.execute(query, (pid,)).fetchone()
        assert row
        start = time.monotonic()
        with engine.begin() as connection:
            assert end_backend(connection, Backend(pid, row[0]))
        assert time.monotonic() - start < PATIENCE / 2
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


# -- with rejects


def run_rejecting(url: str, path: Path, *, ledger: bool = True, name: str = "r.csv") -> LoadResult:
    rejects = RejectOptions(on_error=OnError.REJECT, file=str(path.with_name(name)))
    options = LoadOptions((str(path),), table="free", rejects=rejects, ledger=ledger)
    with open_database(ConnectionOptions(url=url)) as database:
        return run_load(database, options, Silent())


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = feed(tmp_path, 5000)
    path.write_text(path.read_text() + "x,1\ny,2\n")
    return path


def test_each_attempt_puts_bad_rows_aside_anew(table: Connection, database_url: str, damaged: Path) -> None:
    # Raised once, when the reject file has been written: sequences do not roll back.
    table.execute(
        "CREATE SEQUENCE calls;"
        "CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('calls') = 1 THEN"
        " RAISE deadlock_detected; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER once BEFORE UPDATE ON harborctl.loads FOR EACH ROW"
        " WHEN (NEW.status = 'loaded_with_rejects') EXECUTE FUNCTION once()"
    )
    result = run_rejecting(database_url, damaged)
    assert (result.status, result.attempts) == ("loaded_with_rejects", 2)
    assert (result.rows_read, result.inserted, result.rejected) == (5002, 5000, 2)
    assert sum(reason.count for reason in result.reject_reasons) == 2
    assert len(damaged.with_name("r.csv").read_text().splitlines()) == 3
    assert (count(table), statuses(table)) == (5000, ["loaded_with_rejects"])


def test_what_is_in_with_rejects_is_in(table: Connection, database_url: str, damaged: Path) -> None:
    assert run_rejecting(database_url, damaged).status == "loaded_with_rejects"
    written = damaged.with_name("r.csv").read_text()
    again = run_rejecting(database_url, damaged)
    assert (again.status, again.rejected, again.reject_file) == ("already_loaded", 0, None)
    assert again.earlier
    assert again.earlier.rejected == 2
    assert damaged.with_name("r.csv").read_text() == written
    assert count(table) == 5000


def test_of_two_at_once_one_keeps_its_reject_file(table: Connection, database_url: str, damaged: Path) -> None:
    results = together(*(partial(run_rejecting, database_url, damaged, name=f"r{n}.csv") for n in range(3)))
    assert sorted(result.status for result in results) == ["already_loaded", "already_loaded", "loaded_with_rejects"]
    assert [Path(result.reject_file) for result in results if result.reject_file] == list(damaged.parent.glob("r?.csv"))
    assert count(table) == 5000


@pytest.mark.parametrize("ledger", [True, False])
def test_rejects_and_a_commit_without_an_answer(
    table: Connection, database_url: str, damaged: Path, ledger: bool
) -> None:
    with proxied(database_url, at_commit(2 if ledger else 1)) as (url, proxy):
        if ledger:
            assert run_rejecting(url, damaged).status == "loaded_with_rejects"
        else:
            with pytest.raises(LoadFailed) as failed:
                run_rejecting(url, damaged, ledger=False)
            assert failed.value.error.code == "commit_unknown"
    wait_for(table, "SELECT count(*) FROM free")  # without a ledger nobody has waited for the server to commit
    assert (proxy.cuts, count(table)) == (1, 5000)
    assert len(damaged.with_name("r.csv").read_text().splitlines()) == 3


def test_a_lost_connection_takes_the_reject_file_along(table: Connection, database_url: str, damaged: Path) -> None:
    table.execute(
        "CREATE FUNCTION ended() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
        "CREATE TRIGGER ended BEFORE UPDATE ON harborctl.loads FOR EACH ROW"
        " WHEN (NEW.status = 'loaded_with_rejects') EXECUTE FUNCTION ended()"
    )
    with pytest.raises(LoadFailed) as failed:
        run_rejecting(database_url, damaged)
    assert (failed.value.result.attempts, failed.value.error.exit_code) == (4, 3)
    assert failed.value.result.reject_file is None
    assert not damaged.with_name("r.csv").exists()


def test_merge_options_count_in_the_fingerprint(table: Connection, engine: sqlalchemy.Engine, tmp_path: Path) -> None:
    path = str(feed(tmp_path))
    database = Database(ours(engine), "test", embedded=False)
    for keep in ((), ("v",)):
        options = LoadOptions((path,), table="t", mode=Mode.UPSERT, merge=MergeOptions(keep=keep))
        assert run_load(database, options, Silent()).status == "loaded"
    assert RunOptions().lock == Lock.WAIT
