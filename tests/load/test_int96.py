"""INT96 moments into a table: those far away unchanged, finer ones refused or put aside."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from tests.load.direct import load_file, refusal


@pytest.mark.parametrize("writer", ["copy", "values"])
def test_int96(
    database_url: str, engine: sqlalchemy.Engine, tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.parquet"
    fine = pa.array([0, 1, None], pa.timestamp("ns"))
    far = pa.array([datetime(9999, 12, 31), datetime(1, 1, 1), None], pa.timestamp("us"))
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE TABLE t (at timestamp)")
        pq.write_table(pa.table({"at": far}), path, use_deprecated_int96_timestamps=True)
        load_file(engine, path, "t", "append", writer=writer)
        assert database.execute("SELECT * FROM t").fetchall() == [
            (datetime(9999, 12, 31),),
            (datetime(1, 1, 1),),
            (None,),
        ]
        pq.write_table(pa.table({"at": fine}), path, use_deprecated_int96_timestamps=True)
        error = refusal(lambda: load_file(engine, path, "t", "append", writer=writer))
        assert (error.location.line, error.column, error.code) == (2, "at", "22008")
        assert error.value == "1970-01-01 00:00:00.000000001"
        result = load_file(engine, path, "t", "append", writer=writer, on_error="reject")
        assert (result.inserted, result.rejected) == (2, 1)
        (rejected,) = pq.read_table(result.reject_file).to_pylist()
        assert (rejected["at"], rejected["_harborctl_line"]) == (error.value, 2)
