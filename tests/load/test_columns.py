"""Which column goes where: by name and by position, once and to several; what nobody named is never left out unsaid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

Outcome = tuple[int, list[Any], dict[str, Any]]
Loading = Callable[..., Outcome]
WRITERS = ("values", "copy")


@pytest.fixture
def loading(invoke: Invoke, database_url: str, tmp_path: Path) -> Loading:
    """Loads into `t (a text, b text, c text)`, emptied before; gives exit code, rows and the summary."""
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE TABLE t (a text, b text, c text)")

    def loaded(source: str | Path, *options: str, keep: bool = False) -> Outcome:
        if isinstance(source, str):
            (tmp_path / "f.csv").write_text(source)
            source = tmp_path / "f.csv"
        with psycopg.connect(database_url, autocommit=True) as database:
            if not keep:
                database.execute("TRUNCATE t")
            ran = invoke("load", source, "-t", "t", "--no-ledger", "--json", *options)
            return ran.code, database.execute("SELECT * FROM t ORDER BY 1, 2, 3").fetchall(), json.loads(ran.stdout)

    return loaded


def _typed(path: Path, names: list[str], columns: list[pa.Array]) -> Path:
    table = pa.Table.from_arrays(columns, names=names)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        feather.write_feather(table, path, compression="uncompressed")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("writer", WRITERS)
def test_a_last_column_without_a_name_is_left_out_only_if_it_is_empty(
    loading: Loading, tmp_path: Path, writer: str
) -> None:
    options = ("--writer", writer)
    assert loading('a,b,\n1,2,\n3,4,""\n', *options)[:2] == (0, [("1", "2", None), ("3", "4", None)])
    for text, line in (("a,b,\n1,2,\n1,2,99\n", 3), ('a,b,\n"1\n",2,99\n', 2)):
        code, rows, summary = loading(text, *options)
        assert (code, rows) == (1, [])
        error = summary["error"]
        assert (error["line"], error["value"], error["code"]) == (line, "99", "22P04")
        assert "column 3 has no name" in error["message"]
    code, rows, summary = loading("a,b,\n1,2,\n1,2,99\n", *options, "--on-error", "reject", "--force")
    assert (code, rows, summary["rejected"]) == (4, [("1", "2", None)], 1)
    assert loading("a,b,\n1,2,99\n", *options, "--map", "#3=c")[:2] == (0, [("1", "2", "99")])
    assert loading("a,b,\n1,2,99\n", *options, "--skip-columns", "#3")[:2] == (0, [("1", "2", None)])
    for suffix in ("parquet", "arrow", "jsonl"):
        columns = [pa.array(["1", "3"]), pa.array([None, ""]), pa.array(["", "99"])]
        file = _typed(tmp_path / f"f.{suffix}", ["a", "b", ""], columns)
        code, rows, summary = loading(file, *options)
        assert (code, rows, summary["error"]["line"], summary["error"]["value"]) == (1, [], 2, "99")
        assert loading(file, *options, "--on-error", "reject", "--force")[:2] == (4, [("1", None, None)])
        assert loading(file, *options, "--map", "#3=c")[:2] == (0, [("1", None, ""), ("3", "", "99")])


def test_columns_without_names_are_named_by_position(loading: Loading) -> None:
    text = ",a,,b\n0,1,x,2\n"
    code, _, summary = loading(text)
    assert code == 2
    assert "columns without a name: #1, #3" in summary["error"]["message"]
    assert "--skip-columns '#1,#3'" in summary["error"]["hint"]
    assert loading(text, "--skip-columns", "#1,#3")[:2] == (0, [("1", "2", None)])
    assert loading(text, "--skip-columns", "#1", "--map", "#3=c")[:2] == (0, [("1", "2", "x")])
    assert loading("1,2,3,4\n", "--no-header", "--skip-columns", "#4")[:2] == (0, [("1", "2", "3")])
    assert loading("1,2,3\n", "--no-header", "--map", "#1=c", "--map", "#3=a")[:2] == (0, [("3", "2", "1")])
    # A name that looks like a position is a name.
    assert loading("a,#1\n1,2\n", "--map", "#1=b")[:2] == (0, [("1", "2", None)])
    for wrong in ("#0", "#3", "#x", "#"):
        code, _, summary = loading("a,b\n1,2\n", "--skip-columns", wrong)
        assert (code, summary["error"]["code"]) == (2, "42703")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_columns_of_one_name_are_told_apart_by_position(loading: Loading, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"g.{suffix}"
    if suffix == "csv":
        file.write_text("a,b,a\n1,2,3\n")
    else:
        _typed(file, ["a", "b", "a"], [pa.array(["1"]), pa.array(["2"]), pa.array(["3"])])
    code, _, summary = loading(file)
    assert code == 2
    assert "#1 and #3" in summary["error"]["message"]
    assert "--skip-columns '#3' takes #1" in summary["error"]["hint"]
    assert loading(file, "--skip-columns", "#3")[:2] == (0, [("1", "2", None)])
    assert loading(file, "--skip-columns", "#1")[:2] == (0, [("3", "2", None)])
    assert loading(file, "--map", "#3=c")[:2] == (0, [("1", "2", "3")])
    assert loading(file, "--map", "#3=c", "--on-error", "reject", "--check", "c <> '3'", "--force")[0] == 4
    code, _, summary = loading(file, "--map", "a=c")
    assert (code, summary["error"]["code"]) == (2, "42702")
    assert "--map '#1=c'" in summary["error"]["hint"]


@pytest.mark.parametrize("writer", WRITERS)
def test_one_column_may_fill_several_and_none_is_filled_twice(
    loading: Loading, invoke: Invoke, tmp_path: Path, database_url: str, writer: str
) -> None:
    both = ("--map", "x=a", "--map", "x=c", "--writer", writer)
    assert loading("x,b\n1,2\n", *both)[:2] == (0, [("1", "2", "1")])
    for suffix in ("parquet", "arrow", "jsonl"):
        file = _typed(tmp_path / f"f.{suffix}", ["x", "b"], [pa.array(["1"]), pa.array(["2"])])
        assert loading(file, *both)[:2] == (0, [("1", "2", "1")])
    assert loading("x,b\n1,2\n", *both, "--on-error", "reject", "--check", "a = c")[:2] == (0, [("1", "2", "1")])
    with psycopg.connect(database_url, autocommit=True) as database:  # types that read the same text in their own ways
        database.execute("CREATE TABLE u (n integer PRIMARY KEY, d numeric(8,2), s text)")
        (tmp_path / "u.csv").write_text('x\n01\n"2"\n')
        maps = ("--map", "x=n", "--map", "x=d", "--map", "x=s", "--writer", writer, "--no-ledger")
        for mode in ("append", "upsert"):
            assert invoke("load", "u.csv", "-t", "u", "--mode", mode, *maps).code == 0
            found = database.execute("SELECT n, d::text, s FROM u ORDER BY n").fetchall()
            assert found == [(1, "1.00", "01"), (2, "2.00", "2")]
    for options in (
        ("--set", "c=1", "--set", "c=2"),
        ("--map", "x=c", "--map", "b=c"),
        ("--map", "x=c", "--set", "c=1"),
        ("--map", "x=c", "--skip-columns", "x"),
    ):
        code, rows, summary = loading("x,b\n1,2\n", *options)
        assert (code, rows, summary["error"]["code"]) == (2, [], "usage")
    job = '[[jobs.j.loads]]\nsource = "f.csv"\ntable = "t"\nno_ledger = true\n'
    config = tmp_path / "harborctl.toml"
    for told, code in (
        ('map = ["x=a", "b=a"]', 2),
        ('set = ["c=1", "c=2"]', 2),
        ('map = { x = ["a", "c"] }', 0),
        ('map = ["x=a", "x=c"]', 0),
    ):
        config.write_text(f"{job}{told}\n")
        assert invoke("run", "j").code == code, told


REJECTED = [
    ("csv", "a,b,c\n\n1,2,3\n\n4,bad,6\n", ()),
    ("csv", "a,b,\n1,2,\n\n3,4,99\n5,bad,\n", ()),
    ("csv", ",a,b,a\nx,1,bad,3\n\n", ("--skip-columns", "#1", "--map", "#4=c")),
    ("csv", "1,bad,3\n2,worse,4\n", ("--no-header", "--map", "#1=c", "--map", "#3=a")),
    ("csv", "a;b;\n1;bad;\n\n2;3;x\n", ("--delimiter", ";", "--null", "NULL")),
    ("tsv", "a\tb\t\n1\tbad\t\n\n2\t3\tx\n", ()),
    ("jsonl", '{"a": 1, "b": "bad", "": null}\n{"a": 2, "b": 3, "": 99}\n', ()),
    ("parquet", (["a", "b", "a", ""], [["1", "2"], ["bad", "3"], ["4", "5"], [None, "99"]]), ("--map", "#3=c")),
    ("arrow", (["", "b", "b"], [["1", "2"], ["bad", "3"], ["4", "5"]]), ("--map", "#1=a", "--map", "#3=c")),
]


@pytest.mark.parametrize(("suffix", "content", "options"), REJECTED)
def test_a_reject_file_gives_back_what_it_took(
    invoke: Invoke, database_url: str, tmp_path: Path, suffix: str, content: Any, options: tuple[str, ...]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE TABLE t (a text, b integer, c text)")
    file = tmp_path / f"f.{suffix}"
    if isinstance(content, str):
        file.write_text(content)
    else:
        _typed(file, content[0], [pa.array(values) for values in content[1]])
    rejecting = ("-t", "t", "--on-error", "reject", "--no-ledger", "--json", *options)
    first = invoke("load", file, *rejecting)
    assert first.code == 4
    rejects = json.loads(first.stdout)["reject_file"]
    # What nobody has put right is refused for the same reasons, and comes out as it went in.
    again = invoke("load", rejects, *rejecting, "--reject-file", f"again.{suffix}")
    assert again.code == 4, again
    took, gave = json.loads(first.stdout), json.loads(again.stdout)
    assert gave["inserted"] == 0
    reasons = [
        [(r["code"], r["column"], r["count"], r["message"]) for r in each["reject_reasons"]] for each in (took, gave)
    ]
    assert reasons[0] == reasons[1]
    assert _rows(tmp_path / rejects, file.name) == _rows(tmp_path / f"again.{suffix}", rejects)


def _rows(path: Path, source: str) -> list[Any]:
    """A reject file without where its rows stood."""
    if path.suffix in {".parquet", ".arrow"}:
        table = pq.ParquetFile(path).read()
        places = ("_harborctl_file", "_harborctl_line")
        return [
            (field.name, column.to_pylist())
            for field, column in zip(table.schema, table.columns, strict=True)
            if field.name not in places
        ]
    if path.suffix == ".jsonl":
        objects = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in each.items() if k not in {"_harborctl_file", "_harborctl_line"}} for each in objects]
    text = path.read_text()
    for delimiter in ",;\t":
        text = re.sub(rf"{re.escape(source)}{delimiter}\d+{delimiter}", "", re.sub(r"/\S*/", "", text))
    return text.splitlines()


def test_rejects_of_sources_with_different_columns_go_by_name(
    invoke: Invoke, database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE TABLE t (a text, b integer, c text)")
    (tmp_path / "f1.csv").write_text("a,b,c\n1,bad,3\n")
    (tmp_path / "f2.csv").write_text("c,b,a\n6,bad,4\n")
    rejecting = ("-t", "t", "--on-error", "reject", "--no-ledger", "--json", "--reject-file", "r.csv")
    assert invoke("load", "f1.csv", "f2.csv", *rejecting).code == 4
    assert [line[:7] for line in (tmp_path / "r.csv").read_text().splitlines()[1:]] == ["1,bad,3", "4,bad,6"]
    ran = invoke("load", "f1.csv", "f2.csv", *rejecting, "--force", "--map", "#2=b")
    assert (ran.code, json.loads(ran.stdout)["error"]["code"]) == (2, "columns_differ")


@pytest.mark.parametrize("writer", WRITERS)
def test_an_empty_file_without_a_header_has_no_rows(loading: Loading, writer: str) -> None:
    options = ("--no-header", "--writer", writer)
    assert loading("1,2,3\n", *options)[1] == [("1", "2", "3")]
    for more in ((), ("--on-error", "reject"), ("--mode", "replace", "--dry-run")):
        assert loading("", *options, *more, keep=True)[:2] == (0, [("1", "2", "3")])
    assert loading("", *options, "--mode", "replace", keep=True)[:2] == (0, [])
