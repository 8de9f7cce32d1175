"""`harborctl` from Python: the accounts and errors of the command line, without its output."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import harborctl
from tests.inprocess import Invoke, invoke
from tests.load.conftest import database

__all__ = ["database", "invoke"]

Database = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def table(database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(8, 2))")
    monkeypatch.setenv("HARBORCTL_URL", database_url)
    monkeypatch.chdir(tmp_path)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """A summary without what differs from run to run."""
    return {
        key: value for key, value in result.items() if key not in {"load_id", "seconds", "rows_per_second", "files"}
    }


def test_a_load_is_that_of_the_command_line(
    invoke: Invoke, database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("id,w,n\n1,a,1.5\n2,b,2\n")
    said = json.loads(invoke("load", "t.csv", "-t", "t", "-m", "upsert", "-k", "id", "--map", "w=v", "--json").stdout)
    database.execute("TRUNCATE t")
    capfd.readouterr()
    result = harborctl.load(tmp_path / "t.csv", "t", mode="upsert", key="id", map={"w": "v"})
    assert (result.inserted, result.rows_read) == (2, 2)
    assert told(json.loads(json.dumps(said))) == told(json.loads(json.dumps(_plain(result))))
    assert harborctl.load(["t.csv"], "t", mode="upsert", map={"w": "v"}).unchanged == 2
    assert "inserted" in result._repr_html_()
    assert capfd.readouterr() == ("", "")


def _plain(result: harborctl.LoadResult) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(result)


def test_what_fails_raises_the_error_of_the_command_line(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,v\n1,a\nx,b\n")
    said = json.loads(invoke("load", "t.csv", "-t", "t", "--json").stdout)["error"]
    with pytest.raises(harborctl.HarborctlError) as raised:
        harborctl.load("t.csv", "t")
    error = raised.value
    assert error.location is not None
    assert (error.code, error.location.line, error.column, error.value, error.message, error.hint) == (
        said["code"], said["line"], said["column"], said["value"], said["message"], said["hint"],
    )  # fmt: skip
    assert isinstance(error.result, harborctl.LoadResult)
    assert error.result.status == "failed"
    with pytest.raises(harborctl.HarborctlError, match="mode cannot be 'upset'"):
        harborctl.load("t.csv", "t", mode="upset")
    with pytest.raises(TypeError, match="no option modes"):
        harborctl.load("t.csv", "t", modes="upsert")


def test_arrow_data_goes_in(database: Database) -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "v": ["a", None], "n": [Decimal("1.25"), None]})
    assert harborctl.load(rows, "t").inserted == 2

    class Frame:
        """As frames of pandas and polars are: nothing but the Arrow interface."""

        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            return rows.__arrow_c_stream__(requested_schema)

    assert harborctl.load(Frame(), "t", mode="upsert").unchanged == 2
    assert harborctl.load(rows.to_reader(), "t", mode="replace").inserted == 2
    assert database.execute("SELECT * FROM t ORDER BY id").fetchall() == [(1, "a", Decimal("1.25")), (2, None, None)]


def test_rows_come_as_arrow_tables(tmp_path: Path) -> None:
    harborctl.load(pa.table({"id": [1, 2], "n": [Decimal("1.25"), None]}), "t")
    found = harborctl.query("SELECT n, :day + 1 AS day FROM t WHERE id = :id", {"id": 1, "day": dt.date(2026, 1, 1)})
    assert found.to_pylist() == [{"n": Decimal("1.25"), "day": dt.date(2026, 1, 2)}]
    assert found.schema.field("n").type == pa.decimal128(8, 2)
    (tmp_path / "r.sql").write_text("-- param: ids int[]\nSELECT count(*) AS n FROM t WHERE id = ANY(:ids)")
    assert harborctl.report("r.sql", {"ids": [1, 2, 3]}).to_pylist() == [{"n": 2}]
    with pytest.raises(harborctl.HarborctlError, match="nope"):
        harborctl.query("SELECT nope")


def test_counts_and_history(tmp_path: Path) -> None:
    harborctl.load(pa.table({"id": [1, 2]}), "t")
    assert [each.rows for each in harborctl.count("t", exact=True)] == [2]
    [past] = harborctl.history(table="t")
    assert (past["status"], past["inserted"]) == ("loaded", 2)
    with pytest.raises(harborctl.HarborctlError):
        harborctl.count("nope")


def test_to_import_it_costs_nothing() -> None:
    code = "import harborctl, sys; print([name for name in sys.modules if name in ('pyarrow', 'sqlalchemy', 'typer')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
