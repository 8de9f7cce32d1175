"""Bad rows of loads in chunks: the outcome, and the reject file, are those of a load that commits once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import make_url

from harborctl.db.migrations import downgrade
from harborctl.model import Limit, Mode, OnError, RejectOptions
from tests.conftest import engine_of
from tests.load.test_chunks import Connection, in_table, ledger, refusal, run, table

__all__ = ["table"]

ROWS = 9_000


def rejecting(path: Path, **settings: Any) -> RejectOptions:
    return RejectOptions(on_error=OnError.REJECT, file=str(path), **settings)


def csv_feed(folder: Path) -> Path:
    """Records of two lines each, and bad ones of every kind: a number, a NULL, a width, a character, an open quote."""
    path = folder / "t.csv"
    bad = {
        1500: b'x,"a\nb"\n',
        1501: b',"a\nb"\n',
        3999: b'3999,"a\nb",c\n',
        4000: b'4000,"a\n\xff"\n',
        7500: b'7500,"a\nbad"\n',
        7501: b'7400,"a\nagain"\n',
        ROWS - 20: b'1,"never closed\n',
    }
    tail = range(ROWS - 19, ROWS)
    rows = (bad.get(n, b"%d,%s\n" % (n, b"tail" if n in tail else b'"a\nb"')) for n in range(ROWS))
    path.write_bytes(b"id,v\n" + b"".join(rows))
    return path


def parquet_feed(folder: Path) -> Path:
    path = folder / "t.parquet"
    numbers = pa.array([None if n == 1500 else 2**40 if n == 4000 else n for n in range(ROWS)])
    texts = pa.array(["a\nbad" if n in {2, 7500} else str(n) for n in range(ROWS)])
    pq.write_table(pa.table({"id": numbers, "v": texts}), path, row_group_size=1700)
    return path


FEEDS = {"csv": (csv_feed, 7), "parquet": (parquet_feed, 4)}


def contents(connection: Connection) -> list[Any]:
    return connection.execute("SELECT * FROM t ORDER BY 1").fetchall()


def rejected(path: Path) -> list[Any]:
    """The rows of a reject file, without the message: a detail in it depends on how the row was found."""
    if path.suffix == ".parquet":
        rows: list[Any] = pq.read_table(path).drop(["_harborctl_error"]).to_pylist()
        return rows
    with path.open(newline="", errors="surrogateescape") as lines:
        return [{**row, "_harborctl_error": None} for row in csv.DictReader(lines)]


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        (Mode.APPEND, {"commit_every": 1000}),
        (Mode.APPEND, {"jobs": 2}),
        (Mode.APPEND, {"commit_every": 1000, "jobs": 2}),
        (Mode.UPSERT, {"commit_every": 1000}),
    ],
)
def test_as_of_a_load_that_commits_once(
    table: Connection, database_url: str, tmp_path: Path, kind: str, mode: Mode, settings: dict[str, Any]
) -> None:
    table.execute("ALTER TABLE t ADD CHECK (v NOT LIKE '%bad')")
    made, count = FEEDS[kind]
    count -= mode is Mode.UPSERT and kind == "csv"  # a key that comes twice is a duplicate then
    path = made(tmp_path)
    once = run(database_url, path, mode=mode, rejects=rejecting(tmp_path / f"once.{kind}"))
    expected = contents(table)
    table.execute("TRUNCATE t; TRUNCATE harborctl.loads CASCADE")
    result = run(database_url, path, mode=mode, rejects=rejecting(tmp_path / f"chunks.{kind}"), **settings)
    assert (result.status, result.rejected, once.rejected) == ("loaded_with_rejects", count, count)
    assert contents(table) == expected
    assert result.rows_read == once.rows_read
    assert result.inserted + result.updated + result.duplicates + result.rejected == result.rows_read
    assert rejected(tmp_path / f"chunks.{kind}") == rejected(tmp_path / f"once.{kind}")
    assert sum(reason.count for reason in result.reject_reasons) == count
    assert table.execute("SELECT count(*) FROM harborctl.rejects").fetchone() == (0,)
    assert table.execute("SELECT rejected FROM harborctl.loads").fetchone() == (count,)
    again = run(database_url, path, mode=mode, rejects=rejecting(tmp_path / "again"), **settings)
    assert again.status == ("already_loaded" if mode is Mode.APPEND else "loaded_with_rejects")
    assert (again.inserted, again.lacks_rows) == (0, True)


def test_the_limit_is_for_the_whole_load(table: Connection, database_url: str, tmp_path: Path) -> None:
    path, file = csv_feed(tmp_path), tmp_path / "rejects.csv"
    failed = refusal(database_url, path, rejects=rejecting(file, limit=Limit(rows=3)), commit_every=1000)
    # The fourth chunk has one, and the fifth, which would be in, too: four are more than three.
    assert (failed.error.code, failed.error.exit_code) == ("too_many_rejects", 1)
    assert (failed.result.chunks, failed.result.rows_read, failed.result.rejected) == (4, 4000, 3)
    assert "4,000 rows in 4 chunks are committed" in (failed.error.hint or "")
    assert in_table(table)[0] == 4000 - 3
    assert file.read_text(errors="replace").count("_harborctl_") == 7
    assert len(file.read_bytes().split(b"t.csv,")) == 1 + 4

    more = refusal(database_url, path, rejects=rejecting(file), commit_every=1000)
    assert more.error.code == "reject_file_exists"  # somebody may still want it
    assert in_table(table)[0] == 4000 - 3
    done = run(database_url, path, rejects=rejecting(file, force=True), commit_every=1000)
    assert (done.status, done.rejected, done.rows_read) == ("loaded_with_rejects", 6, ROWS)
    assert ledger(table) == [("loaded_with_rejects", ROWS, 9, ROWS)]
    assert len(file.read_bytes().split(b"t.csv,")) == 1 + 6


def test_a_load_that_was_ended_behind_its_reject_file(table: Connection, database_url: str, tmp_path: Path) -> None:
    path, file = csv_feed(tmp_path), tmp_path / "rejects.csv"
    table.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not now''; END';"
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON harborctl.loads FOR EACH ROW"
        " WHEN (NEW.status LIKE 'loaded%') EXECUTE FUNCTION refuse()"
    )
    refusal(database_url, path, rejects=rejecting(file), commit_every=1000)
    assert in_table(table)[0] == ROWS - 6
    assert not file.exists()  # a kill in that moment would leave it there, as it is
    table.execute("DROP TRIGGER refuse ON harborctl.loads")
    file.write_text("another")
    again = refusal(database_url, path, rejects=rejecting(file), commit_every=1000)
    assert (again.error.code, file.read_text()) == ("reject_file_exists", "another")
    file.unlink()
    done = run(database_url, path, rejects=rejecting(file), commit_every=1000)
    assert (done.status, done.rejected, file.exists()) == ("loaded_with_rejects", 6, True)


def test_a_reject_file_that_the_killed_run_has_written(table: Connection, database_url: str, tmp_path: Path) -> None:
    path, file = csv_feed(tmp_path), tmp_path / "rejects.csv"
    assert run(database_url, path, rejects=rejecting(file), commit_every=1000).rejected == 6
    table.execute("TRUNCATE t; TRUNCATE harborctl.loads CASCADE; ALTER TABLE harborctl.loads ADD CHECK (seconds < 0)")
    refusal(database_url, path, rejects=rejecting(tmp_path / "other.csv"), commit_every=1000)
    table.execute("ALTER TABLE harborctl.loads DROP CONSTRAINT loads_seconds_check")
    before = file.stat().st_mtime_ns
    done = run(database_url, path, rejects=rejecting(file), commit_every=1000)
    assert (done.status, done.rejected, file.stat().st_mtime_ns) == ("loaded_with_rejects", 6, before)


def test_several_processes_commit_nothing_over_the_limit(table: Connection, database_url: str, tmp_path: Path) -> None:
    path, file = csv_feed(tmp_path), tmp_path / "rejects.csv"
    failed = refusal(database_url, path, rejects=rejecting(file, limit=Limit(percent=0.05)), jobs=2)
    assert failed.error.code == "too_many_rejects"
    assert in_table(table)[0] == 0
    assert len(file.read_bytes().split(b"t.csv,")) == 1 + 6
    assert table.execute("SELECT count(*) FROM harborctl.rejects").fetchone() == (0,)


def test_a_reject_file_that_cannot_be_written(table: Connection, database_url: str, tmp_path: Path) -> None:
    path, folder = csv_feed(tmp_path), tmp_path / "folder"
    folder.mkdir()
    for settings, rows in (({"jobs": 2}, 0), ({"commit_every": 1000}, ROWS - 6)):
        file = folder / ("x" * 250)  # with the name's temporary addition it is too long for the file system
        failed = refusal(database_url, path, rejects=rejecting(file), **settings)
        assert failed.error.code == "cannot_write"
        assert in_table(table)[0] == rows
    assert "Nothing was committed" not in (failed.error.hint or "")
    assert run(database_url, path, rejects=rejecting(folder / "short"), commit_every=1000).rejected == 6


def test_a_user_who_may_only_add_to_the_ledger(table: Connection, database_url: str, tmp_path: Path) -> None:
    role = f"adds_to_{table.info.dbname}"
    table.execute(
        f"CREATE ROLE {role}; GRANT INSERT, SELECT ON t TO {role}; GRANT USAGE ON SCHEMA harborctl TO {role};"
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA harborctl TO {role}"
    )
    try:
        url = make_url(database_url).update_query_dict({"options": f"-crole={role}"})
        rejects = rejecting(tmp_path / "rejects.csv")
        result = run(url.render_as_string(hide_password=False), csv_feed(tmp_path), rejects=rejects, commit_every=1000)
        assert (result.status, result.rejected) == ("loaded_with_rejects", 6)
        assert "stay in harborctl.rejects" in result.notes[0]
    finally:
        table.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_ledger_of_before(table: Connection, database_url: str, tmp_path: Path) -> None:
    engine = engine_of(database_url)
    downgrade(engine, "ledger_0001")
    engine.dispose()
    path = csv_feed(tmp_path)
    failed = refusal(database_url, path, rejects=rejecting(tmp_path / "rejects.csv"), commit_every=1000)
    assert (failed.error.code, failed.error.exit_code) == ("old_ledger", 2)
    assert run(database_url, path, rejects=rejecting(tmp_path / "rejects.csv")).rejected == 6
