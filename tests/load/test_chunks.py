"""Loads in chunks: `--commit-every` goes on where it was ended, `--jobs` loads by several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harborctl.db.engine import open_database
from harborctl.errors import ConnectionFailed, HarborctlError
from harborctl.load.ledger import chunks
from harborctl.load.run import drive, workers
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.session import retry
from harborctl.load.write.bad_row import Silent
from harborctl.model import (
    ConnectionOptions,
    CsvDialect,
    LoadOptions,
    LoadResult,
    MergeOptions,
    Mode,
    OnDuplicate,
    OnError,
    RejectOptions,
    RowRange,
    RunOptions,
    SourceFormat,
)
from harborctl.sources import splits
from harborctl.sources.files import SourceFile
from harborctl.sources.open import open_file
from harborctl.sources.splits import divisible
from tests.load.conftest import wait_for
from tests.load.proxy import after_bytes, at_commit, proxied
from tests.load.test_concurrency import together

Connection = psycopg.Connection[Any]


@pytest.fixture
def table(database: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(chunks, "SMALLEST_SPLIT", 20_000)
    monkeypatch.setattr(drive, "WATCH", 0.1)
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    return database


def feed(tmp_path: Path, rows: range, bad: int | None = None, value: str = "a\nb") -> Path:
    """Rows of two lines each, so that not every line end ends a record; the row `bad` has no number."""
    path = tmp_path / "t.csv"
    lines = (f'{"x" if number == bad else number},"{value}{number}"\n' for number in rows)
    path.write_text("id,v\n" + "".join(lines))
    return path


def run(
    url: str,
    *paths: Path,
    mode: Mode = Mode.APPEND,
    rejects: RejectOptions = RejectOptions(),  # noqa: B008  # frozen
    merge: MergeOptions = MergeOptions(),  # noqa: B008  # frozen
    **settings: Any,
) -> LoadResult:
    options = LoadOptions(
        tuple(map(str, paths)), table="t", mode=mode, rejects=rejects, merge=merge, run=RunOptions(**settings)
    )
    with open_database(ConnectionOptions(url=url)) as database:
        return run_load(database, options, Silent())


def refusal(url: str, *paths: Path, **settings: Any) -> LoadFailed:
    with pytest.raises(LoadFailed) as failed:
        run(url, *paths, **settings)
    return failed.value


def line(failed: LoadFailed) -> int | None:
    return failed.error.location.line if failed.error.location else None


def in_table(connection: Connection) -> tuple[int, int, int]:
    row = connection.execute("SELECT count(*), count(DISTINCT id), coalesce(max(id), -1) FROM t").fetchone()
    assert row
    return (row[0], row[1], row[2])


def ledger(connection: Connection) -> list[Any]:
    query = (
        "SELECT status, rows_read, (SELECT count(*) FROM harborctl.chunks WHERE load_id = id),"
        " (SELECT coalesce(sum(rows), 0)::int FROM harborctl.chunks WHERE load_id = id)"
        " FROM harborctl.loads ORDER BY started_at"
    )
    return connection.execute(query).fetchall()


# -- cutting


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.text('a,"\r\n', max_size=6), st.text("ab", max_size=3)), max_size=30),
    st.integers(1, 8),
    st.integers(1, 64),
    st.integers(1, 40),
)
def test_splits_of_csv_are_its_records(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], count: int, size: int, block: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.csv"
    quoted = ['"' + first.replace('"', '""') + '",' + second + "\n" for first, second in rows]
    path.write_text("x,y\n" + "".join(quoted), newline="")
    file, dialect = SourceFile("cut.csv", path, SourceFormat.CSV), CsvDialect()
    source = open_file(file, dialect)
    divided = divisible(file, source, dialect)
    source.close()
    text = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "SCAN_BYTES", block)
        by_rows = list(divided.cuts(divided.head, divided.end, rows=count, size=0))
        by_size = list(divided.cuts(divided.head, divided.end, rows=None, size=size))
    for cuts in (by_rows, by_size):
        assert b"".join(text[start:end] for start, end, _ in cuts) == text[4:]
        assert all(one[1] == other[0] for one, other in pairwise(cuts))
    parts = [text[start:end].decode() for start, end, _ in by_rows]
    assert parts == ["".join(quoted[start : start + count]) for start in range(0, len(quoted), count)]
    ends = {4 + len("".join(quoted[:number]).encode()) for number in range(len(quoted) + 1)}
    assert {end for _, end, _ in by_size} <= ends


# -- --commit-every


@pytest.mark.parametrize("mode", [Mode.APPEND, Mode.IGNORE, Mode.UPSERT])
def test_a_fixed_row_lets_the_load_go_on(
    table: Connection, database_url: str, tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    path = feed(tmp_path, range(10_500), bad=5_500)
    failed = refusal(database_url, path, mode=mode, commit_every=1000)
    assert (line(failed), failed.error.exit_code) == (2 + 2 * 5_500, 1)
    assert "5,000 rows in 5 chunks are committed" in (failed.error.hint or "")
    assert (failed.result.chunks, failed.result.rows_read) == (5, 5000)
    assert in_table(table) == (5000, 5000, 4999)
    assert ledger(table) == [("failed", 5000, 5, 5000)]
    result = run(database_url, feed(tmp_path, range(10_500)), mode=mode, commit_every=1000)
    assert "going on with load" in caplog.text
    assert (result.status, result.inserted, result.chunks) == ("loaded", 10_500, 11)
    assert result.load_id == failed.result.load_id
    assert in_table(table) == (10_500, 10_500, 10_499)
    assert ledger(table) == [("loaded", 10_500, 11, 10_500)]
    rows = table.execute("SELECT first_row, last_row FROM harborctl.chunks ORDER BY number").fetchall()
    assert rows == [(first, min(first + 999, 10_500)) for first in range(1, 10_501, 1000)]
    again = [run(database_url, path, mode=mode, commit_every=rows) for rows in (1000, None)]
    status = "already_loaded" if mode is Mode.APPEND else "loaded"
    assert [(one.status, one.inserted) for one in again] == [(status, 0)] * 2


def test_a_file_that_was_changed_is_refused(table: Connection, database_url: str, tmp_path: Path) -> None:
    refusal(database_url, feed(tmp_path, range(3000), bad=2500), commit_every=1000)
    path = feed(tmp_path, range(3000), value="c\nd")
    assert refusal(database_url, path, commit_every=1000).error.code == "source_changed"
    assert in_table(table)[0] == 2000
    assert [row[0] for row in ledger(table)] == ["failed", "failed"]


def test_a_part_of_a_load_is_not_loaded_twice_without_chunks(
    table: Connection, database_url: str, tmp_path: Path
) -> None:
    refusal(database_url, feed(tmp_path, range(3000), bad=2500), commit_every=1000)
    path = feed(tmp_path, range(3000))
    assert refusal(database_url, path).error.code == "unfinished"
    assert run(database_url, path, commit_every=500).inserted == 3000


def test_parquet_goes_on_as_well(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    numbers = pa.array(range(10_000), pa.int32())
    pq.write_table(pa.table({"id": numbers, "v": numbers.cast(pa.string())}), path, row_group_size=1500)
    table.execute("ALTER TABLE t ADD CONSTRAINT few CHECK (id < 7000)")
    failed = refusal(database_url, path, commit_every=2000)
    assert (line(failed), failed.result.chunks) == (7001, 3)
    table.execute("ALTER TABLE t DROP CONSTRAINT few")
    assert run(database_url, path, commit_every=2000).chunks == 5
    assert in_table(table) == (10_000, 10_000, 9_999)


@pytest.mark.parametrize("cut", [after_bytes(60_000), *(at_commit(number) for number in range(1, 8))])
def test_chunks_and_a_cut_connection(table: Connection, database_url: str, tmp_path: Path, cut: Any) -> None:
    path = feed(tmp_path, range(5000))
    with proxied(database_url, cut) as (url, proxy):
        result = run(url, path, commit_every=1000)
    assert (proxy.cuts, result.attempts) == (1, 2)
    assert in_table(table) == (5000, 5000, 4999)
    assert ledger(table) == [("loaded", 5000, 5, 5000)]


@pytest.mark.parametrize("mode", [Mode.APPEND, Mode.UPSERT])
def test_two_at_once_in_chunks(table: Connection, database_url: str, tmp_path: Path, mode: Mode) -> None:
    path = feed(tmp_path, range(20_000))
    results = together(*[lambda: run(database_url, path, mode=mode, commit_every=3000)] * 2)
    assert sorted(result.inserted for result in results) == [0, 20_000]
    assert {result.status for result in results} <= {"loaded"} | ({"already_loaded"} if mode is Mode.APPEND else set())
    assert in_table(table)[0] == 20_000


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"mode": Mode.SYNC, "commit_every": 1}, "not_divisible"),
        ({"mode": Mode.REPLACE, "jobs": 2, "commit_every": 1}, "not_divisible"),
        (
            {"mode": Mode.UPSERT, "merge": MergeOptions(on_duplicate=OnDuplicate.FIRST), "commit_every": 1},
            "not_divisible",
        ),
        (
            {"mode": Mode.UPSERT, "merge": MergeOptions(on_duplicate=OnDuplicate.ERROR), "commit_every": 1},
            "not_divisible",
        ),
        (
            {"mode": Mode.IGNORE, "merge": MergeOptions(on_duplicate=OnDuplicate.ERROR), "commit_every": 1},
            "not_divisible",
        ),
    ],
)
def test_what_cannot_go_in_chunks(
    table: Connection, database_url: str, tmp_path: Path, settings: dict[str, Any], code: str
) -> None:
    assert refusal(database_url, feed(tmp_path, range(3)), **settings).error.code == code


REJECTS = RejectOptions(on_error=OnError.REJECT)


def test_what_decides_on_the_whole_load(table: Connection, database_url: str, tmp_path: Path) -> None:
    expected = RejectOptions(expected=RowRange(5))
    failed = refusal(database_url, feed(tmp_path, range(20)), rejects=expected, commit_every=5)
    assert (failed.error.code, failed.error.exit_code) == ("not_divisible", 2)
    assert "--expect-rows" in failed.error.message
    assert "Leave" in (failed.error.hint or "")
    assert in_table(table)[0] == 0


def test_rejects_of_modes_that_load_by_one_connection(
    table: Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(database_url, feed(tmp_path, range(20), bad=7), mode=Mode.UPSERT, rejects=REJECTS, jobs=2)
    assert (result.status, result.inserted, result.rejected) == ("loaded_with_rejects", 19, 1)


def test_several_processes_load_as_many_rows_as_are_expected(
    table: Connection, database_url: str, tmp_path: Path
) -> None:
    path = feed(tmp_path, range(5000))
    few = RejectOptions(expected=RowRange(5001))
    assert refusal(database_url, path, rejects=few, jobs=2).error.code == "unexpected_rows"
    assert in_table(table)[0] == 0
    assert run(database_url, path, rejects=RejectOptions(expected=RowRange(5000, 5000)), jobs=2).inserted == 5000


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        (Mode.APPEND, {"jobs": 2}),
        *((mode, {"commit_every": 1000}) for mode in (Mode.APPEND, Mode.IGNORE, Mode.UPSERT)),
    ],
)
def test_checks_of_rows(
    table: Connection, database_url: str, tmp_path: Path, mode: Mode, settings: dict[str, Any]
) -> None:
    path = feed(tmp_path, range(5000))
    failed = refusal(database_url, path, mode=mode, rejects=RejectOptions(checks=("id <> 2500",)), **settings)
    assert (line(failed), failed.error.code) == (2 + 2 * 2500, "check")
    assert in_table(table)[0] == (2000 if "commit_every" in settings else 0)
    wrong = refusal(database_url, path, mode=mode, rejects=RejectOptions(checks=("idd > 1",)), **settings)
    assert wrong.error.exit_code == 2
    assert run(database_url, path, mode=mode, rejects=RejectOptions(checks=("id >= 0",)), **settings).inserted == 5000
    assert in_table(table) == (5000, 5000, 4999)


@pytest.mark.parametrize("settings", [{"commit_every": 1000}, {"jobs": 2}])
def test_further_bad_rows(table: Connection, database_url: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    path = feed(tmp_path, range(9000), bad=2500)
    path.write_text(path.read_text().replace("\n7000,", "\ny,").replace("\n8000,", "\nz,"))
    failed = refusal(database_url, path, **settings)
    lines = {error.line for error in failed.result.errors} | {line(failed)}
    assert lines == {2 + 2 * number for number in (2500, 7000, 8000)}


def test_sources_that_cannot_be_entered_in_the_middle(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1, "v": "a"}\n')
    assert refusal(database_url, path, commit_every=1).error.code == "not_divisible"
    assert refusal(database_url, Path("-"), commit_every=1).error.code == "not_divisible"


# -- --jobs


def test_several_processes_load_one_file(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, range(20_000))
    result = run(database_url, path, jobs=2)
    assert (result.status, result.inserted, result.files[0].rows) == ("loaded", 20_000, 20_000)
    assert result.chunks > 4
    assert in_table(table) == (20_000, 20_000, 19_999)
    pids = table.execute("SELECT count(DISTINCT xmin::text) FROM t").fetchone()
    assert pids == (2,)
    assert table.execute(
        "SELECT bool_and(last_row = next - 1) FROM (SELECT last_row, lead(first_row) OVER (ORDER BY first_row) AS next"
        " FROM harborctl.chunks) AS c WHERE next IS NOT NULL"
    ).fetchone() == (True,)
    assert run(database_url, path).status == "already_loaded"
    assert run(database_url, path, jobs=3).status == "already_loaded"


def test_several_processes_and_a_bad_row(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, range(20_000), bad=15_000)
    failed = refusal(database_url, path, jobs=2)
    assert line(failed) == 2 + 2 * 15_000
    assert in_table(table)[0] == 0
    assert ledger(table) == [("failed", 0, 0, 0)]
    result = run(database_url, feed(tmp_path, range(20_000)), jobs=2)
    assert (result.inserted, in_table(table)[0]) == (20_000, 20_000)


@pytest.mark.parametrize(("settings", "rows"), [({}, 0), ({"commit_every": 2000}, 2000)])
def test_the_first_of_several_bad_rows_is_told(
    table: Connection, database_url: str, tmp_path: Path, settings: dict[str, Any], rows: int
) -> None:
    path = feed(tmp_path, range(20_000), bad=3_999)  # the last of its chunk; that of the next is found before it
    path.write_text(path.read_text().replace("\n4000,", "\ny,", 1))
    failed = refusal(database_url, path, jobs=2, **settings)
    assert line(failed) == 2 + 2 * 3_999
    assert in_table(table)[0] == rows


@pytest.mark.parametrize("settings", [{}, {"commit_every": 2000}])
@pytest.mark.parametrize(("row", "key"), [(3000, 100), (1999, 2001)])
def test_several_processes_meet_the_same_key(
    table: Connection, database_url: str, tmp_path: Path, row: int, key: int, settings: dict[str, Any]
) -> None:
    """One waits for the other, which commits only when both are done: the server sees no deadlock in that."""
    path = feed(tmp_path, range(20_000))
    path.write_text(path.read_text().replace(f"\n{row},", f"\n{key},", 1))
    failed = refusal(database_url, path, jobs=2, **settings)
    assert (failed.error.code, line(failed)) == ("23505", 2 + 2 * max(row, key))
    assert in_table(table)[0] == (2_000 if settings else 0)


def test_rows_that_refer_to_others_go_by_one_connection(table: Connection, database_url: str, tmp_path: Path) -> None:
    table.execute("ALTER TABLE t ADD parent integer REFERENCES t")
    path = tmp_path / "tree.csv"
    path.write_text("id,v,parent\n" + "".join(f"{n},{'x' * 50},{19_999 - n}\n" for n in range(20_000)))
    result = run(database_url, path, jobs=2)
    assert result.inserted == 20_000
    assert "refer to others" in result.notes[0]


def test_several_processes_and_a_deferred_constraint(table: Connection, database_url: str, tmp_path: Path) -> None:
    """What one of them would hear at COMMIT keeps the others from committing."""
    table.execute(
        "CREATE TABLE parents (id integer PRIMARY KEY); INSERT INTO parents SELECT generate_series(0, 19999);"
        "DELETE FROM parents WHERE id IN (3000, 6000, 19990);"
        "ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES parents DEFERRABLE INITIALLY DEFERRED"
    )
    failed = refusal(database_url, feed(tmp_path, range(20_000)), jobs=2)
    assert failed.error.code == "23503"
    assert in_table(table)[0] == 0


def test_a_process_that_waits_for_the_others_is_not_ended(table: Connection, database_url: str, tmp_path: Path) -> None:
    """One of them has nothing left to load while the other one's last rows take their time."""
    path = feed(tmp_path, range(20_000))
    table.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 19999) EXECUTE FUNCTION slow()"
    )
    table.execute(f"ALTER DATABASE {table.info.dbname} SET idle_in_transaction_session_timeout = '200ms'")
    result = run(database_url, path, jobs=2)
    assert (result.inserted, result.attempts) == (20_000, 1)


def test_several_processes_commit_on_their_own(table: Connection, database_url: str, tmp_path: Path) -> None:
    failed = refusal(database_url, feed(tmp_path, range(20_000), bad=15_000), jobs=2, commit_every=2000)
    assert in_table(table) == (failed.result.rows_read,) * 2 + (failed.result.rows_read - 1,)
    assert failed.result.rows_read == 14_000
    assert run(database_url, feed(tmp_path, range(20_000)), jobs=2, commit_every=2000).inserted == 20_000
    assert in_table(table) == (20_000, 20_000, 19_999)


@pytest.mark.parametrize("number", range(1, 6))
def test_several_processes_and_a_cut_connection(
    table: Connection, database_url: str, tmp_path: Path, number: int
) -> None:
    path = feed(tmp_path, range(20_000))
    with proxied(database_url, at_commit(number)) as (url, proxy):
        result = run(url, path, jobs=2)
    assert (proxy.cuts, result.inserted) == (1, 20_000)
    assert in_table(table) == (20_000, 20_000, 19_999)


def test_a_crash_between_the_commits_of_processes(
    table: Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after the first COMMIT of rows: what is in carries the digest of the whole file."""
    commit = workers.WorkerProcess.commit
    committed: list[int] = []

    def once(lane: workers.WorkerProcess, numbered: Sequence[tuple[int, chunks.Chunk]]) -> None:
        if committed:
            raise ConnectionFailed("cut", code="cut")
        committed.append(len(numbered))
        commit(lane, numbered)

    with monkeypatch.context() as patch:
        patch.setattr(workers.WorkerProcess, "commit", once)
        failed = refusal(database_url, feed(tmp_path, range(20_000)), jobs=2, retries=0)
    assert 0 < failed.result.chunks == committed[0]
    assert in_table(table)[0] == failed.result.rows_read < 20_000
    changed = feed(tmp_path, range(20_000), bad=19_999)
    assert refusal(database_url, changed, jobs=2).error.code == "source_changed"
    assert refusal(database_url, changed, commit_every=1000).error.code == "source_changed"
    result = run(database_url, feed(tmp_path, range(20_000)), jobs=2)
    assert (result.inserted, in_table(table)) == (20_000, (20_000, 20_000, 19_999))
    assert table.execute("SELECT count(DISTINCT counters->>'sha256') FROM harborctl.chunks").fetchone() == (1,)


def workers_of(pid: int) -> set[int]:
    """The processes that this one has started, and those that they have."""
    children = {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return children.union(*map(workers_of, children))


def runs(pid: int) -> bool:
    """Whether there is such a process; one that nobody has asked how it ended is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in Linux's /proc")
@pytest.mark.parametrize("whom", ["group", "parent"])
def test_ctrl_c_ends_the_workers(table: Connection, database_url: str, tmp_path: Path, whom: str) -> None:
    table.execute(
        "CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(300); RETURN NEW; END $$;"
        "CREATE TRIGGER rest BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id % 5000 = 4000) EXECUTE FUNCTION rest()"
    )
    path = feed(tmp_path, range(20_000), value="x" * 500)  # so that there is a split for each worker
    process = subprocess.Popen(
        [sys.executable, "-m", "harborctl", "load", path, "-t", "t", "--jobs", "2", "--json", "--url", database_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    own = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    wait_for(table, f"SELECT (count(*) = 2)::int {own} AND wait_event = 'PgSleep'")
    workers = workers_of(process.pid)
    assert len(workers) >= 2
    (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)["status"]) == (130, "interrupted")
    assert "Traceback" not in err
    deadline = time.monotonic() + 5  # multiprocessing's own helper ends when it finds its parent gone
    while left := [pid for pid in workers if runs(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    wait_for(table, f"SELECT (count(*) = 0)::int {own} AND backend_type = 'client backend'")
    assert in_table(table)[0] == 0
    assert [row[0] for row in ledger(table)] == ["interrupted"]


def test_files_of_several_formats(table: Connection, database_url: str, tmp_path: Path) -> None:
    one = feed(tmp_path, range(5000))
    two = tmp_path / "two.parquet"
    numbers = pa.array(range(5000, 9000), pa.int32())
    pq.write_table(pa.table({"id": numbers, "v": numbers.cast(pa.string())}), two, row_group_size=1500)
    three = tmp_path / "three.jsonl"
    three.write_text("".join(f'{{"id": {number}, "v": "j"}}\n' for number in range(9000, 10_000)))
    result = run(database_url, one, two, three, jobs=2)
    assert [file.rows for file in result.files] == [5000, 4000, 1000]
    assert in_table(table) == (10_000, 10_000, 9_999)


def test_modes_by_key_load_by_one_connection(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,v\n" + "".join(f"{number % 100},{number}\n" for number in range(10_000)))
    result = run(database_url, path, mode=Mode.UPSERT, jobs=2)
    assert result.notes == ("mode upsert loads by one connection: --jobs is for appends",)
    assert table.execute("SELECT min(v::int), max(v::int) FROM t").fetchone() == (9900, 9999)


def test_a_worker_that_is_lost(table: Connection, database_url: str, tmp_path: Path) -> None:
    table.execute("CREATE FUNCTION last() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                  " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$")  # fmt: skip
    table.execute("CREATE TRIGGER last BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 15000) EXECUTE FUNCTION last()")
    failed = refusal(database_url, feed(tmp_path, range(20_000)), jobs=2, retries=1)
    assert (failed.result.attempts, failed.error.exit_code) == (2, 3)
    assert isinstance(failed.error, HarborctlError)
    assert in_table(table)[0] == 0


def test_what_workers_log_is_told_as_the_rest_is(table: Connection, database_url: str, tmp_path: Path) -> None:
    path = feed(tmp_path, range(20))
    for option, told in ((("--log-format", "json"), True), (("--quiet",), False)):
        table.execute("TRUNCATE t")
        done = subprocess.run(
            [
                sys.executable, "-m", "harborctl", "load", path, "-t", "t", "--jobs", "2", "--again",
                "--writer", "values", "--log-slow", "0", "--url", database_url, *option,
            ],
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
        messages = [json.loads(text)["message"] for text in done.stderr.splitlines()]
        assert any(text.startswith("slow statement") and "INSERT INTO public.t " in text for text in messages) is told


def test_again_is_about_earlier_loads_only(table: Connection, database_url: str, tmp_path: Path) -> None:
    table.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    path = feed(tmp_path, range(5000))
    run(database_url, path)
    with proxied(database_url, at_commit(6)) as (url, proxy):
        result = run(url, path, commit_every=1000, again=True)
    assert (proxy.cuts, result.attempts, result.inserted) == (1, 2, 5000)
    assert in_table(table) == (10_000, 5000, 4999)


def test_an_unfinished_load_goes_on_with_what_is_still_there(
    table: Connection, database_url: str, tmp_path: Path
) -> None:
    refusal(database_url, feed(tmp_path, range(3000), bad=2500), commit_every=1000)
    path = feed(tmp_path, range(3000))
    table.execute("TRUNCATE t; INSERT INTO t VALUES (-1, 'by hand')")
    assert refusal(database_url, path, commit_every=1000).error.code == "rewritten"
    table.execute("TRUNCATE t")
    assert run(database_url, path, commit_every=1000).inserted == 3000
    assert in_table(table) == (3000, 3000, 2999)


def test_files_that_come_while_a_load_is_unfinished(table: Connection, database_url: str, tmp_path: Path) -> None:
    for name, rows in (("b", range(3000)), ("d", range(5000, 6000))):
        feed(tmp_path, rows, bad=2500 if name == "b" else None).rename(tmp_path / f"{name}.csv")
    refusal(database_url, tmp_path / "?.csv", commit_every=1000)
    (tmp_path / "b.csv").unlink()
    feed(tmp_path, range(3000)).rename(tmp_path / "b.csv")
    feed(tmp_path, range(9000, 9500)).rename(tmp_path / "a.csv")
    assert run(database_url, tmp_path / "a.csv").inserted == 500
    feed(tmp_path, range(8000, 8500)).rename(tmp_path / "c.csv")
    (tmp_path / "t.csv").unlink(missing_ok=True)
    result = run(database_url, tmp_path / "?.csv", commit_every=1000)
    assert (result.status, in_table(table)) == ("loaded", (5000, 5000, 9499))
    assert sorted(file.status for file in result.files) == ["already_loaded", "loaded", "loaded", "loaded"]
    assert run(database_url, tmp_path / "?.csv").status == "already_loaded"
