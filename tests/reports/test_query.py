"""`harborctl query`: what `report` does, for a statement without a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]


def test_a_query_writes_its_rows_as_a_report_does(invoke: Invoke, tmp_path: Path) -> None:
    sql = "SELECT :n + 1 AS n, :t AS t, :d + 1 AS d, :x AS x"
    given = ["-p", "n=41", "-p", "t=007", "-p", "d=2026-01-31", "-p", "x=1.50"]
    found = json.loads(invoke("query", sql, *given, "--json").stdout)
    assert found == [{"n": 42, "t": "007", "d": "2026-02-01", "x": 1.50}]
    assert invoke("query", "-", *given, "--format", "csv", stdin=sql).stdout == "n,t,d,x\n42,007,2026-02-01,1.50\n"
    (tmp_path / "q.sql").write_text("-- param: n double precision\nSELECT pg_typeof(:n) AS kind")
    assert invoke("query", "q.sql", "-p", "n=3", "-o", "out.csv").code == 0
    assert (tmp_path / "out.csv").read_text() == "kind\ndouble precision\n"


def test_a_query_is_kept_as_a_report(invoke: Invoke, tmp_path: Path) -> None:
    sql = "SELECT :n + 1 AS n, :t AS t;"
    saved = invoke("query", sql, "-p", "n=1", "-p", "t=a'b", "--format", "csv", "--save", "deep/one")
    assert (saved.code, saved.stdout) == (0, "n,t\n2,a'b\n")
    assert "harborctl report deep/one" in saved.stderr
    again = invoke("report", "deep/one", "-p", "n=1", "-p", "t=a'b", "--format", "csv")
    assert again.stdout == saved.stdout
    twice = invoke("query", sql, "-p", "n=1", "-p", "t=x", "--save", "deep/one", "--json")
    assert (twice.code, json.loads(twice.stdout)["error"]["code"]) == (2, "report_exists")
    failed = invoke("query", "SELECT 1/0", "--save", "bad")
    assert (failed.code, (tmp_path / "reports/bad.sql").exists()) == (1, False)


@pytest.mark.parametrize(
    ("sql", "code", "ends", "told"),
    [
        ("SELECT :n", 2, "missing_parameter", "-p n=VALUE"),
        ("DELETE FROM t", 1, "25006", "SELECT"),
        ("SELECT 1; SELECT 2", 2, "bad_report", "exactly one"),
        ("SELECT set_config('a.b', '1', false), nextval('s') FROM (CREATE", 1, "42601", "^"),
        ("SELECT\nnope", 1, "42703", "nope"),
        ("there.sql", 2, "no_such_report", ""),
    ],
)
def test_what_is_no_query(invoke: Invoke, sql: str, code: int, ends: str, told: str) -> None:
    result = invoke("query", sql, "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.code, error["code"]) == (code, ends), result
    assert told in (error["hint"] or "")
