"""`harborctl inspect`: what is in a file, without a database; and how it would go into a table, without writing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.inprocess import Invoke, invoke
from tests.load.conftest import database, load

__all__ = ["database", "invoke", "load"]

FEED = """\
Id,Zip,Price,Day,Note,Nothing
1,01234,1.50,03/04/2026,NA,
2,99999,20.25,05/06/2026,5,
3,00501,3.75,07/08/2026,,
"""


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """A file with what people stumble over."""
    path = tmp_path / "feed.csv"
    path.write_text(FEED)
    return path


@pytest.fixture
def inspected(invoke: Invoke) -> Any:
    """`harborctl inspect … --json`, which must succeed."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        result = invoke("inspect", *arguments, "--json")
        assert result.code == 0, result
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return run


def test_columns_and_what_is_odd_about_them(inspected: Any, feed: Path) -> None:
    found = inspected(feed)
    assert (found["format"], found["rows"], found["complete"], found["encoding"]) == ("csv", 3, True, "utf-8")
    columns = {column["name"]: column for column in found["columns"]}
    assert {name: column["type"] for name, column in columns.items()} == {
        "Id": "smallint",
        "Zip": "text",
        "Price": "numeric(4,2)",
        "Day": "text",
        "Note": "text",
        "Nothing": "text",
    }
    price = columns["Price"]
    assert (price["least"], price["most"], price["nulls"], price["distinct"]) == ("1.50", "20.25", 0, 3)
    assert sum(bar["rows"] for bar in price["histogram"]) == 3
    assert (columns["Nothing"]["nulls"], columns["Nothing"]["longest"]) == (3, 0)
    assert columns["Zip"]["warnings"] == ["numbers with leading zeros, which stay as they are"]
    assert "cannot be told apart" in columns["Day"]["warnings"][0]
    assert "--null NA" in columns["Note"]["warnings"][0]
    assert found["first_rows"][2] == ["3", "00501", "3.75", "07/08/2026", None, None]
    assert any("may be a key: Id, Zip, Price, Day" in warning for warning in found["warnings"])
    assert any("nothing but NULLs: Nothing" in warning for warning in found["warnings"])


def test_the_table_that_it_tells_is_the_one_that_load_makes(
    invoke: Invoke, load: Any, database: psycopg.Connection[Any], feed: Path
) -> None:
    ddl = invoke("inspect", feed, "--ddl", "--names", "snake")
    assert ddl.code == 0
    assert load(feed, "--create", "--names", "snake")["created"] == ddl.stdout.strip().replace(
        'TABLE "feed"', 'TABLE "public"."feed"'
    )
    path = feed.with_name("twice.csv")
    path.write_text("a,a\n1,2\n")
    refused = invoke("inspect", path, "--ddl")
    assert refused.code == 2
    assert "--map" in refused.stderr
    assert "has the column a twice" in invoke("inspect", path).stdout


def test_what_a_load_into_a_table_would_do(
    invoke: Invoke, inspected: Any, database: psycopg.Connection[Any], feed: Path
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, zip int, price numeric(3,2), day text, note text,"
                     " nothing text, made timestamptz DEFAULT now())")  # fmt: skip
    table = inspected(feed, "--table", "t")["table"]
    assert (table["rows"], table["inserted"], table["rejected"]) == (3, 2, 1)
    assert table["reasons"][0]["code"] == "22003"
    assert {"source": "Id", "target": "id", "type": "integer"} in table["columns"]
    assert {"source": None, "target": "made", "type": "timestamp with time zone"} in table["columns"]
    assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert database.execute("SELECT count(*) FROM harborctl.loads").fetchone() == (0,)
    assert not list(feed.parent.glob("*.rejects.*"))
    assert "1 x 22003 column price" in invoke("inspect", feed, "--table", "t").stdout
    assert "there is no table" in invoke("inspect", feed, "--table", "no").stderr


def test_dialects_are_found_only_where_asked_for(
    invoke: Invoke, load: Any, inspected: Any, database: psycopg.Connection[Any], tmp_path: Path
) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes("Export\n\nName;Betrag\nMüller;1,50\nTotal;1,50\n".encode("cp1252"))
    found = inspected(path, "--detect")
    assert found["options"] == ["--delimiter", ";", "--encoding", "cp1252", "--decimal", ",", "--skip-lines", "2"]
    assert (found["delimiter"], found["columns"][1]["type"]) == (";", "numeric(3,2)")
    assert any("looks like totals" in warning for warning in found["warnings"])
    assert inspected(path)["malformed"]["count"] == 0 or len(inspected(path)["columns"]) == 1
    result = invoke("load", path, "--detect", "--create", "--skip-footer", "1", "--json")
    assert result.code == 0
    assert "detected --delimiter ';' --encoding cp1252 --decimal , --skip-lines 2" in result.stderr
    assert database.execute('SELECT "Name", "Betrag"::text FROM export').fetchall() == [("Müller", "1.50")]
    database.execute("CREATE TABLE plain (a text, b text)")
    path = tmp_path / "plain.csv"
    path.write_text("a;b\n1;2\n")
    assert "or --detect" in invoke("load", path, "--json").stderr
    assert load_notes(invoke, path) == ["detected --delimiter ';'"]


def load_notes(invoke: Invoke, path: Path) -> list[str]:
    """What a load with --detect notes."""
    notes: list[str] = json.loads(invoke("load", path, "--detect", "--json").stdout)["notes"]
    return notes


def test_other_formats_and_broken_records(inspected: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, None], "l": [[1], [2, 3]], "b": [b"\x01", None]}), tmp_path / "f.parquet")
    found = inspected(tmp_path / "f.parquet")
    assert [(column["type"], column["nulls"]) for column in found["columns"]] == [
        ("bigint", 1),
        ("bigint[]", 0),
        ("bytea", 1),
    ]
    assert found["first_rows"] == [["1", '{"1"}', "\\x01"], [None, '{"2","3"}', None]]
    (tmp_path / "f.jsonl").write_text('{"a": 1}\nnonsense\n{"a": 2, "b": [1]}\n')
    found = inspected(tmp_path / "f.jsonl")
    assert [column["type"] for column in found["columns"]] == ["smallint", "jsonb"]
    assert (found["malformed"]["count"], found["malformed"]["line"]) == (1, 2)


def test_many_rows_are_counted_and_sampled(inspected: Any, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("id,kind,v\n" + "".join(f"{n},{n % 7},{n % 1000}.5\n" for n in range(100_000)))
    found = inspected(path)
    by_name = {column["name"]: column for column in found["columns"]}
    assert found["rows"] == 100_000
    assert [by_name["id"][what] for what in ("least", "most", "distinct")] == ["0", "99999", 100_000]
    assert by_name["kind"]["distinct"] == 7
    assert 950 <= by_name["v"]["distinct"] <= 1050
    assert by_name["v"]["most"] == "999.5"
    few = inspected(path, "--sample-rows", "10")
    assert (few["complete"], few["rows"] < 100_000) == (False, True)


@pytest.mark.parametrize("width", ["80", "160"])
def test_it_fits_a_terminal(invoke: Invoke, feed: Path, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", invoke("inspect", feed).stdout)
    head = next(line for line in shown.splitlines() if line.startswith("column"))
    assert len(head) <= int(width)
    assert "Price" in shown


def test_the_page_holds_all_and_runs_nothing(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "page.csv"
    path.write_text("<b>id</b>,x\n<script>alert(1)</script>,1\n\x1b[31m,2\n")
    result = invoke("inspect", path, "--html", tmp_path / "page.html")
    assert (result.code, result.stdout) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    assert page.count('class="bar"') == 4


def test_what_cannot_be_inspected(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a\n1\n")
    assert "are 2 files" in invoke("inspect", tmp_path / "*.csv").stderr
    assert "only once" in invoke("inspect", "-", stdin="a\n").stderr
    (tmp_path / "empty.csv").write_text("")
    assert invoke("inspect", tmp_path / "empty.csv").code == 2
    (tmp_path / "header.csv").write_text("a,b\n")
    assert invoke("inspect", tmp_path / "header.csv").code == 0
