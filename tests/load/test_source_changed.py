"""A load reads one version of a file: whoever writes to it, cuts it or puts another in its place meanwhile ends it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harborctl.db.engine import open_database
from harborctl.errors import ExitCode
from harborctl.load.ledger import chunks
from harborctl.load.run import drive
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import ConnectionOptions, LoadOptions, OnError, RejectOptions, RunOptions
from harborctl.sources.splits import SplitDigests

Change = Callable[[Path], object]
ROWS = 60_000


class At(Silent):
    """Does something once, when so many bytes have been read, or rows sent; or else before the commit."""

    def __init__(self, action: Callable[[], object], *, size: int | None = None, rows: int | None = None) -> None:
        self._action: Callable[[], object] | None = action
        self._size, self._rows = size, rows

    def bytes_read(self, count: int) -> None:
        if self._size is not None and count >= self._size:
            self._act()

    def rows_sent(self, count: int) -> None:
        if self._rows is not None and count >= self._rows:
            self._act()

    def stage(self, what: str) -> None:
        if what == "analyze":
            self._act()

    def _act(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


@pytest.fixture
def table(database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> psycopg.Connection[Any]:
    monkeypatch.setattr(chunks, "SMALLEST_SPLIT", 200_000)
    database.execute("CREATE TABLE t (id integer, v text)")
    return database


def feed(path: Path, word: str = "old") -> Path:
    path.write_text("id,v\n" + "".join(f"{number},{word} {number} ................\n" for number in range(ROWS)))
    return path


def replace_it(path: Path) -> None:
    feed(path.with_name("new.csv"), "new").replace(path)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 8)
        file.write(b"#")


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"1,more\n")


CHANGES: dict[str, Change] = {
    "replaced": replace_it,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "appended": append_to,
    "overwritten": overwrite,
    "removed": Path.unlink,
}


def changed(url: str, path: Path, progress: At, run: RunOptions, *, rejecting: bool = False) -> LoadFailed:
    rejects = RejectOptions(OnError.REJECT) if rejecting else RejectOptions()
    options = LoadOptions((str(path),), table="t", run=run, rejects=rejects)
    with open_database(ConnectionOptions(url=url)) as database, pytest.raises(LoadFailed) as failed:
        run_load(database, options, progress)
    assert (failed.value.error.code, failed.value.error.exit_code) == ("source_changed", ExitCode.FAILED)
    assert failed.value.error.message.startswith(f"{path} has changed while it was loaded")
    return failed.value


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["while it is read", "before the commit"])
def test_a_plain_load(
    table: psycopg.Connection[Any], database_url: str, tmp_path: Path, change: str, when: str
) -> None:
    path = feed(tmp_path / "t.csv")
    at = At(lambda: CHANGES[change](path), size=600_000 if when == "while it is read" else None)
    changed(database_url, path, at, RunOptions(), rejecting=change == "appended")
    assert table.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert table.execute("SELECT status FROM harborctl.loads").fetchall() == [("failed",)]


@pytest.mark.parametrize("change", CHANGES)
def test_chunks_that_commit(table: psycopg.Connection[Any], database_url: str, tmp_path: Path, change: str) -> None:
    path = feed(tmp_path / "t.csv")
    at = At(lambda: CHANGES[change](path), rows=20_000)
    failed = changed(database_url, path, at, RunOptions(commit_every=10_000))
    counted = table.execute("SELECT count(*), count(*) FILTER (WHERE v LIKE 'new%') FROM t").fetchone()
    assert counted == (20_000, 0)
    assert "20,000 rows in 2 chunks are committed: a rerun goes on there." in (failed.error.hint or "")


@pytest.mark.parametrize("change", ["replaced"])
def test_several_processes(table: psycopg.Connection[Any], database_url: str, tmp_path: Path, change: str) -> None:
    path = feed(tmp_path / "t.csv")
    changed(database_url, path, At(lambda: CHANGES[change](path), rows=1), RunOptions(jobs=2))
    assert table.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_what_is_stored_has_the_digest_of_the_whole(
    table: psycopg.Connection[Any], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, is_changed = feed(tmp_path / "t.csv"), threading.Event()

    class Late(SplitDigests):
        """Reads what the digests are of only once the file has been changed."""

        def of(self, start: int, end: int) -> str:
            is_changed.wait(20)
            return super().of(start, end)

    def behind_its_back() -> None:
        """A change in rows that are in, of which neither the file's size nor its time tell."""
        state = path.stat()
        with path.open("r+b") as file:
            file.seek(len("id,v\n0,"))
            file.write(b"bad")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        is_changed.set()

    monkeypatch.setattr(drive, "SplitDigests", Late)
    failed = changed(database_url, path, At(behind_its_back, rows=1), RunOptions(commit_every=20_000))
    assert "is not what stands there" in failed.error.message
    assert "60,000 rows in 3 chunks are committed" in (failed.error.hint or "")


@pytest.mark.parametrize("run", [RunOptions(), RunOptions(commit_every=10_000)])
def test_parquet(table: psycopg.Connection[Any], database_url: str, tmp_path: Path, run: RunOptions) -> None:
    def write(path: Path, word: str) -> Path:
        columns = {"id": list(range(ROWS)), "v": [word] * ROWS}
        pq.write_table(
            pa.table(columns, pa.schema([("id", pa.int32()), ("v", pa.string())])), path, row_group_size=5000
        )
        return path

    path = write(tmp_path / "t.parquet", "old")
    changed(database_url, path, At(lambda: write(tmp_path / "new", "new").replace(path), rows=10_000), run)
    assert table.execute("SELECT count(*) FROM t WHERE v = 'new'").fetchone() == (0,)
