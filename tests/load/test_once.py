"""Exactly once: reruns are recognised by content, failures that pass are retried, and a lost COMMIT is looked up."""

from __future__ import annotations

import gzip
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

from harborctl.db.engine import Database, open_database
from harborctl.db.migrations import downgrade, upgrade
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.session import retry
from harborctl.load.session.backend import PATIENCE, end_signed, new_key
from harborctl.load.write.bad_row import Silent
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
from tests.conftest import ours
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


@pytest.mark.parametrize("mode", ["ignore", "upsert", "sync", "replace"])
def test_modes_that_may_do_it_again_do(table: Connection, load: Load, tmp_path: Path, mode: str) -> None:
    path = feed(tmp_path)
    load(path, "-t", "t", "--mode", mode)
    again = load(path, "-t", "t", "--mode", mode)
    assert (again["status"], again["rows_read"]) == ("loaded", 3)
    assert again["inserted"] == (3 if mode == "replace" else 0)
    table.execute("TRUNCATE t")
    assert load(path, "-t", "t", "--mode", mode)["inserted"] == 3
    table.execute("UPDATE t SET v = 'by hand' WHERE id = 1")
    load(path, "-t", "t", "--mode", mode)
    assert count(table, "t WHERE v = 'by hand'") == (mode == "ignore")


def test_standard_input_is_recognised_when_it_has_been_read(table: Connection, invoke: Invoke, tmp_path: Path) -> None:
    text = feed(tmp_path, 5000).read_text()
    for status in ("loaded", "already_loaded"):
        assert json.loads(invoke("load", "-", "-t", "free", "--json", stdin=text).stdout)["status"] == status
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
        assert sorted((one.result().inserted, one.result().unchanged) for one in both) == [(0, 3), (3, 0)]


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
        "CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('public.calls') = 1 THEN"
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
    key, others_key = new_key(), new_key()
    with psycopg.connect(database_url) as lost, psycopg.connect(database_url) as another:
        lost.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        another.execute("SELECT pg_advisory_xact_lock(%s), pg_advisory_xact_lock(0)", (others_key,))
        start = time.monotonic()
        with engine.begin() as connection:
            assert end_signed(connection, key)
        assert time.monotonic() - start < PATIENCE / 2
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
        another.execute("SELECT 1")


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
        "CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('public.calls') = 1 THEN"
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


# -- appends: file by file, and only what can be vouched for


def statuses_of(summary: dict[str, Any]) -> list[Any]:
    return [file["status"] for file in summary["files"]]


def test_files_that_are_in_are_left_out(table: Connection, load: Load, invoke: Invoke, tmp_path: Path) -> None:
    files = [feed(tmp_path, 2, f"{name}.csv", name) for name in "bc"]
    first = load(*files, "-t", "free")
    assert {file["load_id"] for file in first["files"]} == {first["load_id"]}
    files.insert(0, feed(tmp_path, 3, "a.csv", "new"))
    told = load(*files, "-t", "free", "--dry-run")
    assert (told["status"], told["rows_read"], statuses_of(told)[1:]) == ("dry_run", 3, ["already_loaded"] * 2)
    second = load(*files, "-t", "free")
    assert (second["status"], second["rows_read"]) == ("loaded", 3)
    assert [file["load_id"] for file in second["files"]] == [second["load_id"], first["load_id"], first["load_id"]]
    assert load(*files[::-1], "-t", "free")["status"] == "already_loaded"
    assert count(table) == 7
    feed(tmp_path, 4, "d.csv", "d")
    said = invoke("load", tmp_path / "*.csv", "-t", "free").stdout
    assert said.startswith(f"public.free ← {tmp_path}/d.csv\n")
    assert f"already loaded: {tmp_path}/b.csv, by load {first['load_id']}\n" in said


@pytest.mark.parametrize("how", ["gzip", "format", "name", "stdin"])
def test_the_same_content_however_it_comes(
    table: Connection, load: Load, invoke: Invoke, tmp_path: Path, how: str
) -> None:
    path = feed(tmp_path)
    load(path, "-t", "free")
    if how == "gzip":
        packed = tmp_path / "u.csv.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert load(packed, "-t", "free", "--dry-run")["status"] == "already_loaded"
        assert load(packed, "-t", "free")["status"] == "already_loaded"
        other = feed(tmp_path, 2, "v.csv", "other")
        assert statuses_of(load(other, packed, "-t", "free")) == ["loaded", "already_loaded"]
        assert count(table) == 5
        return
    if how == "stdin":
        run = invoke("load", "-", "-t", "free", "--json", stdin=path.read_text())
        assert json.loads(run.stdout)["status"] == "already_loaded"
    elif how == "format":
        assert load(path, "-t", "free", "--format", "csv")["status"] == "already_loaded"
    else:
        assert load(path.rename(tmp_path / "x.csv"), "-t", "free")["status"] == "already_loaded"
    assert count(table) == 3


def test_what_is_not_in_any_more_goes_in(table: Connection, load: Load, tmp_path: Path) -> None:
    a, b = feed(tmp_path), feed(tmp_path, 2, "b.csv", "b")
    load(a, "-t", "free")
    load(b, "-t", "free", "--mode", "replace")
    assert load(a, "-t", "free")["inserted"] == 3
    assert load(b, "-t", "free")["status"] == "already_loaded"  # by the replace
    table.execute("TRUNCATE free")
    assert load(a, "-t", "free")["inserted"] == 3
    assert load(b, "-t", "free")["inserted"] == 2  # the load of a has found the table empty
    table.execute("DELETE FROM free")
    assert load(a, b, "-t", "free")["inserted"] == 5
    load(feed(tmp_path, 5, "c.csv"), "-t", "t")
    load(feed(tmp_path, 4, "d.csv"), "-t", "t", "--mode", "sync", "--max-delete", "50%")
    table.execute("DELETE FROM t WHERE id < 4")
    table.execute("INSERT INTO t VALUES (99, 'other')")
    assert load(feed(tmp_path, 5, "c.csv"), "-t", "t")["inserted"] == 5


@pytest.mark.parametrize("change", ["TRUNCATE {0}; INSERT INTO {0} VALUES (7, 'x')", "VACUUM FULL {0}"])
@pytest.mark.parametrize("kind", ["plain", "partitioned", "view"])
def test_what_nobody_can_know_fails(
    table: Connection, invoke: Invoke, load: Load, tmp_path: Path, change: str, kind: str
) -> None:
    table.execute(
        "CREATE TABLE parts (id integer, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE part1 PARTITION OF parts DEFAULT; CREATE VIEW seen AS SELECT * FROM free"
    )
    target, beneath = {"plain": ("free",) * 2, "partitioned": ("parts", "part1"), "view": ("seen", "free")}[kind]
    done = load(feed(tmp_path), "-t", target)
    for statement in change.format(beneath).split("; "):
        table.execute(statement)
    for settings in ((), ("--dry-run",)):
        failed = invoke("load", "t.csv", "-t", target, "--json", *settings)
        error = json.loads(failed.stdout)["error"]
        assert (failed.code, error["code"]) == (1, "rewritten")
        assert done["load_id"] in error["message"]
        assert "--again" in error["hint"]
    assert load("t.csv", "-t", target, "--again")["inserted"] == 3
    assert load("t.csv", "-t", target)["status"] == "already_loaded"


def test_a_new_partition_is_no_new_storage(table: Connection, load: Load, tmp_path: Path) -> None:
    table.execute("CREATE TABLE parts (id integer, v text) PARTITION BY RANGE (id)")
    table.execute("CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (9)")
    load(feed(tmp_path), "-t", "parts")
    table.execute("CREATE TABLE part2 PARTITION OF parts FOR VALUES FROM (9) TO (99)")
    assert load(feed(tmp_path), "-t", "parts")["status"] == "already_loaded"


@pytest.mark.parametrize(
    ("change", "named"),
    [(("--null", "a"), "--null"), (("--map", "v=w", "--skip-columns", "id"), "--map, --skip-columns")],
)
def test_the_same_content_with_another_meaning(
    table: Connection, invoke: Invoke, load: Load, tmp_path: Path, change: tuple[str, ...], named: str
) -> None:
    table.execute("ALTER TABLE free ADD w text")
    done = load(feed(tmp_path), "-t", "free")
    failed = invoke("load", "t.csv", "-t", "free", *change, "--json")
    error = json.loads(failed.stdout)["error"]
    assert (failed.code, error["code"]) == (1, "same_content")
    assert all(part in error["message"] for part in (done["load_id"], "t.csv", named))
    assert load("t.csv", "-t", "free", *change, "--again")["inserted"] == 3


def test_constants_make_other_rows(table: Connection, load: Load, tmp_path: Path) -> None:
    table.execute("ALTER TABLE free ADD w text")
    path = feed(tmp_path)
    for value in "ab":
        assert load(path, "-t", "free", "--set", f"w={value}")["inserted"] == 3
    assert load(path, "-t", "free", "--set", "w=a")["status"] == "already_loaded"
    assert count(table) == 6


def test_equal_files_of_one_load_all_go_in(table: Connection, invoke: Invoke, tmp_path: Path) -> None:
    files = [feed(tmp_path, name=name) for name in ("a.csv", "b.csv")]
    first = invoke("load", *files, "-t", "free")
    assert (first.code, count(table)) == (0, 6)
    assert f"note: {files[1]} has the same content as {files[0]}" in first.stderr
    assert json.loads(invoke("load", *files, "-t", "free", "--json").stdout)["status"] == "already_loaded"


def test_rejects_that_were_never_put_right(table: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,v\n1,a\nx,b\n")
    assert invoke("load", "t.csv", "-t", "t", "--on-error", "reject").code == 4
    again = invoke("load", "t.csv", "-t", "t", "--on-error", "reject")
    assert (again.code, "t.rejects.csv" in again.stderr, "never put right" in again.stderr) == (4, True, True)
    assert invoke("load", "t.csv", "-t", "t", "--dry-run", "--json").code == 4
    mended = tmp_path / "t.rejects.csv"
    mended.write_text(mended.read_text().replace("\nx,", "\n2,"))
    assert invoke("load", mended, "-t", "t").code == 0  # by its whole path, and before by its name
    assert invoke("load", "t.csv", "-t", "t", "--on-error", "reject").code == 0
    assert count(table, "t") == 2


def test_appends_of_one_file_into_a_table_with_a_key(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, 20_000)
    results = together(*[lambda: run(database_url, path, "t")] * 3)
    assert sorted(result.status for result in results) == ["already_loaded", "already_loaded", "loaded"]
    assert count(table, "t") == 20_000
    with pytest.raises(LoadFailed) as failed:  # a duplicate key that is none of the same file's
        run(database_url, feed(tmp_path, 1, "again.csv", "b"), "t")
    assert failed.value.error.code == "23505"


def test_loads_of_an_older_version_are_known_as_a_whole(
    table: Connection, engine: sqlalchemy.Engine, load: Load, invoke: Invoke, tmp_path: Path
) -> None:
    downgrade(engine, "ledger_0001")
    files = [feed(tmp_path), feed(tmp_path, 2, "b.csv", "b")]
    assert load(*files, "-t", "free")["inserted"] == 5
    assert load(*files, "-t", "free")["status"] == "already_loaded"
    assert load(files[0], "-t", "t", "--mode", "upsert")["inserted"] == 3
    upgrade(engine, "ledger")
    engine.dispose()
    assert load(*files, "-t", "free")["status"] == "already_loaded"
    table.execute("TRUNCATE free")
    assert load(*files, "-t", "free")["inserted"] == 5
    assert count(table) == 5


def test_a_restored_ledger_vouches_for_nothing(table: Connection, invoke: Invoke, load: Load, tmp_path: Path) -> None:
    load(feed(tmp_path), "-t", "free")
    # As after a dump and its restoration: the rows are the same, and the tables have other oids.
    table.execute("UPDATE harborctl.loads SET ledger_oid = 1; CREATE TABLE new AS TABLE free; DROP TABLE free")
    table.execute("ALTER TABLE new RENAME TO free")
    failed = invoke("load", "t.csv", "-t", "free", "--json")
    assert json.loads(failed.stdout)["error"]["code"] == "rewritten"
    table.execute("TRUNCATE free")
    assert load("t.csv", "-t", "free")["inserted"] == 3
