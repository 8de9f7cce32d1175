"""Options for CSV: against COPY where it has them, else against what they are to do; writers, rejects and chunks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

import harborctl.sources.csv.arrow_reader
from harborctl.db.engine import Database
from harborctl.load.options import load_options
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import (
    CsvDialect,
    DateOrder,
    ExtraFields,
    LoadOptions,
    LoadResult,
    Mode,
    OnError,
    ShortRows,
    WriterName,
)
from tests.inprocess import Invoke, invoke
from tests.load.sizes import ORACLE_EXAMPLES

__all__ = ["invoke"]  # a fixture

Options = dict[str, Any]
Stored = list[tuple[Any, ...]]
Loads = Callable[..., LoadResult]


@pytest.fixture
def loads(engine: sqlalchemy.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Loads a file in `tmp_path` as the command line would."""
    monkeypatch.chdir(tmp_path)

    def run(text: str | bytes | None, **given: Any) -> LoadResult:
        if text is not None:
            (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        kinds: dict[str, Callable[..., Any]] = {
            "mode": Mode,
            "on_error": OnError,
            "short_rows": ShortRows,
            "extra_fields": ExtraFields,
        }
        kinds |= {"date_order": DateOrder, "writer": WriterName}
        given = {name: kinds[name](value) if name in kinds else value for name, value in given.items()}
        options: Options = {"sources": ["x.csv"], "table": "t", "no_ledger": "commit_every" not in given} | given
        return run_load(Database(engine, "test", embedded=False), load_options(**options), Silent())

    return run


def rows(database: psycopg.Connection[Any], table: str = "t") -> Stored:
    return database.execute(sql.SQL("SELECT * FROM {} ORDER BY 1").format(sql.Identifier(table))).fetchall()


# -- COPY is the oracle

FIELDS = st.sampled_from(["", '""', "NA", '"NA"', "x", '"x,y"', '"N""A"', "1", " ", '" "'])
FORCED = st.sampled_from([(), ("a",), ("b",), ("a", "b"), ("*",)])


def _of_copy(database: psycopg.Connection[Any], data: bytes, dialect: CsvDialect, encoding: str) -> Stored | str:
    options: list[sql.Composable] = [sql.SQL("FORMAT csv, HEADER"), sql.SQL("NULL {}").format(dialect.nulls[0])]
    options.append(sql.SQL("ENCODING {}").format(encoding))
    for name, columns in (("FORCE_NULL", dialect.force_null), ("FORCE_NOT_NULL", dialect.force_not_null)):
        wanted = ("id", "a", "b") if columns == ("*",) else columns
        if wanted:
            listed = sql.SQL(", ").join(map(sql.Identifier, wanted))
            options.append(sql.SQL("{} ({})").format(sql.SQL(name), listed))
    database.execute("TRUNCATE t")
    try:
        with database.cursor().copy(sql.SQL("COPY t FROM STDIN ({})").format(sql.SQL(", ").join(options))) as copy:
            copy.write(data)
    except psycopg.Error as error:
        return error.sqlstate or ""
    return rows(database)


@pytest.mark.parametrize("kind", ["text", "integer", "text NOT NULL"])
@settings(
    max_examples=max(ORACLE_EXAMPLES, 15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_forced_nulls_are_those_of_copy(
    database: psycopg.Connection[Any], engine: sqlalchemy.Engine, tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    database.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id int, a text, b {kind})")
    body = data.draw(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=4))
    dialect = CsvDialect(
        nulls=(data.draw(st.sampled_from(["", "NA"])),),
        force_null=data.draw(FORCED),
        force_not_null=data.draw(FORCED.filter(lambda columns: columns != ("*",))),
    )
    path = tmp_path / "x.csv"
    path.write_text("id,a,b\n" + "".join(f"{n},{a},{b}\n" for n, (a, b) in enumerate(body)))
    expected = _of_copy(database, path.read_bytes(), dialect, "UTF8")
    for writer, slowly in ((WriterName.VALUES, False), (WriterName.COPY, False), (WriterName.COPY, True)):
        database.execute("TRUNCATE t")
        options = LoadOptions((str(path),), table="t", dialect=dialect, writer=writer, ledger=False)
        with pytest.MonkeyPatch.context() as patch:
            if slowly:
                patch.setattr(harborctl.sources.csv.arrow_reader.ArrowReader, "lines", lambda *_: None)
                patch.setattr(harborctl.sources.csv.arrow_reader.ArrowReader, "records", lambda *_: None)
            try:
                run_load(Database(engine, "test", embedded=False), options, Silent())
            except LoadFailed as failed:
                found: Stored | str = failed.error.code
            else:
                found = rows(database)
        assert found == expected


@pytest.mark.parametrize("encoding", ["WIN1252", "KOI8R", "LATIN9", "ISO_8859_7", "WIN1258", "SJIS", "GBK", "UHC"])
def test_encodings_of_one_name_are_those_of_copy(
    database: psycopg.Connection[Any], loads: Loads, encoding: str
) -> None:
    database.execute("CREATE TABLE t (id int, a text)")
    single = [bytes([n]) for n in range(0xA1, 0xFF)]
    tried = single if encoding not in {"SJIS", "GBK", "UHC"} else [bytes([0x88 + n, 0xA5]) for n in range(16)]
    readable = []
    for letter in tried:
        try:
            database.execute("SELECT convert_from(%s, %s)", (letter, encoding))
        except psycopg.Error:
            continue
        readable.append(letter)
    assert len(readable) > 10
    data = b"id,a\n" + b"".join(b"%d,%s\n" % pair for pair in enumerate(readable))
    expected = _of_copy(database, data, CsvDialect(), encoding)
    database.execute("TRUNCATE t")
    loads(data, encoding=encoding)
    assert rows(database) == expected


def test_a_forced_column_that_is_not_filled_is_told(database: psycopg.Connection[Any], loads: Loads) -> None:
    database.execute("CREATE TABLE t (id int, price int)")
    with pytest.raises(LoadFailed) as failed:
        loads("id,price\n1,2\n", force_null=["prise"])
    assert (failed.value.error.code, failed.value.error.hint) == ("42703", "Did you mean price?")
    loads('id,cost\n1,""\n', force_null=["price"], map=["cost=price"])
    assert rows(database) == [(1, None)]


def test_a_key_that_is_forced_to_null_is_no_key(database: psycopg.Connection[Any], loads: Loads) -> None:
    database.execute("CREATE TABLE t (id text PRIMARY KEY, a text)")
    with pytest.raises(LoadFailed) as failed:
        loads('id,a\nx,1\n"",2\n', mode="upsert", force_null=["*"])
    assert failed.value.error.code == "23502"
    loads("id,a\nx,1\n,2\n", mode="upsert", force_not_null=["id"])
    assert rows(database) == [("", "2"), ("x", "1")]


# -- what COPY has no option for

CASES: dict[str, tuple[str, Options, Stored]] = {
    "no quotes": ('id,a\n1,"x\n2,y"y\n', {"quote": "none"}, [(1, '"x', None), (2, 'y"y', None)]),
    "blank lines": ("\nid,a\n\n1,x\n \t\n\n2,y\n  ", {"skip_blank_lines": True}, [(1, "x", None), (2, "y", None)]),
    "a footer": ('id,a\n1,x\nTOTAL 1\n"\n', {"skip_footer": 2}, [(1, "x", None)]),
    "trim": ('id , a\n 1 , x \n2," "\n3,  \n', {"trim": True}, [(1, "x", None), (2, "", None), (3, None, None)]),
    "short rows": ("id,a,n\n1\n2,x\n", {"short_rows": "null"}, [(1, None, None), (2, "x", None)]),
    "extra fields": ("id,a\n1,x,y\n2,y\n", {"extra_fields": "ignore"}, [(1, "x", None), (2, "y", None)]),
    "decimals": (
        "id;n\n1;1,5\n2;-,5e1\n3;7\n",
        {"delimiter": ";", "decimal": ","},
        [(1, None, 1.5), (2, None, -5.0), (3, None, 7.0)],
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["values", "copy", "reject"])
def test_what_is_asked_for_is_done(database: psycopg.Connection[Any], loads: Loads, case: str, way: str) -> None:
    text, given, expected = CASES[case]
    database.execute("CREATE TABLE t (id int, a text, n float8)")
    with pytest.raises(LoadFailed):  # none of them is on by itself
        loads(text.replace("id;n", "id,n") if case == "decimals" else text, delimiter=given.get("delimiter", ","))
        raise LoadFailed(None, None) if rows(database) != expected else AssertionError(case)  # type: ignore[arg-type]
    database.execute("TRUNCATE t")
    ways = {"on_error": "reject"} if way == "reject" else {"writer": way}
    loads(text, **given, **ways)
    assert rows(database) == expected


def test_a_point_among_numbers_with_commas_is_refused(database: psycopg.Connection[Any], loads: Loads) -> None:
    database.execute("CREATE TABLE t (id int, a numeric(6,2), b float8, c text DEFAULT '1.5')")
    german = {"delimiter": ";", "decimal": ",", "set": ["b=2.5"]}
    for value in ("1.234", "1.234,5"):
        for writer in ("values", "copy"):
            with pytest.raises(LoadFailed) as failed:
                loads(f"id;a\n1;0,5\n2;{value}\n", writer=writer, **german)
            error = failed.value.error
            assert (error.code, error.column, error.value) == ("22P02", "a", value)
            assert error.location is not None
            assert error.location.line == 3
    result = loads("id;a\n1;0,5\n2;1.234\n3;x,y\n4;99999,5\n5;1,255\n", on_error="reject", **german)
    assert [tuple(map(str, row[:3])) for row in rows(database)] == [("1", "0.50", "2.5"), ("5", "1.26", "2.5")]
    assert {reason.value for reason in result.reject_reasons} <= {"1.234", "x,y", "99999,5"}
    fixed = Path("x.rejects.csv").read_text().replace("1.234", "1234").replace("x,y", "7,5").replace("99999,5", "0,5")
    loads(fixed, **german)
    assert [row[0] for row in rows(database)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("order", ["dmy", "mdy"])
def test_the_order_of_dates_is_that_of_the_load(
    database: psycopg.Connection[Any], loads: Loads, order: str, jobs: int, writer: str
) -> None:
    if jobs == 2 and (order == "mdy" or writer == "values" or sys.platform == "win32"):
        pytest.skip("one load by processes of their own is enough")
    database.execute("CREATE TABLE t (id int, a date, b timestamp)")
    parts = {"commit_every": 1} if jobs == 1 else {"jobs": 2, "no_ledger": False}
    loads(
        "id,a,b\n1,02/03/2024,2024-02-03 10:00\n2,2024-02-03,02/03/2024 10:00\n",
        date_order=order,
        writer=writer,
        **parts,
    )
    day = {"dmy": "2024-03-02", "mdy": "2024-02-03"}[order]
    found = [(n, str(a), str(b)[:10]) for n, a, b in rows(database)]
    assert found == [(1, day, "2024-02-03"), (2, "2024-02-03", day)]


# -- reject files come back under the options that wrote them

REJECTED: dict[str, tuple[str, Options, Stored]] = {
    "short and bad": ("id,a,n\nx\n2,y\n", {"short_rows": "null"}, [(0, None, None), (2, "y", None)]),
    "short, NULL has a name": (
        "id,a,n\nx\n2,y\n",
        {"short_rows": "null", "null": ["NA"]},
        [(0, None, None), (2, "y", None)],
    ),
    "wide and bad": ('id,a,n\nx,y,1,"z,z",\n', {"extra_fields": "ignore"}, [(0, "y", 1.0)]),
    "no quotes": (
        'id|a|n\nx|"y|1\n3|z\n2|,"|2\n',
        {"quote": "none", "delimiter": "|"},
        [(0, '"y', 1.0), (2, ',"', 2.0)],
    ),
    "trim": ('id,a,n\nx , " y" ,1\n', {"trim": True}, [(0, "y", 1.0)]),
    "footer": ("id,a,n\nx,y,1\n2,z,2\nTOTAL\n", {"skip_footer": 1}, [(0, "y", 1.0), (2, "z", 2.0)]),
    "blank": ("id,a,n\n\nx,y,1\n", {"skip_blank_lines": True}, [(0, "y", 1.0)]),
    "forced": ('id,a,n\nx,"",""\n', {"force_null": ["a", "n"]}, [(0, None, None)]),
    "encoding": ("id,a,n\nx,é€,1\n", {"encoding": "WIN1252"}, [(0, "é€", 1.0)]),
}


@pytest.mark.parametrize("case", REJECTED)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_reject_file_comes_back_under_the_same_options(
    database: psycopg.Connection[Any], loads: Loads, case: str, by_name: bool
) -> None:
    text, given, expected = REJECTED[case]
    database.execute("CREATE TABLE t (id int, a text, n float8)")
    if not by_name:
        text, given = text.split("\n", 1)[1], {**given, "no_header": True, "columns": ["id", "a", "n"]}
    codec = "cp1252" if "encoding" in given else "utf-8"
    loads(text.encode(codec), on_error="reject", **given)
    written = Path("x.rejects.csv").read_bytes()
    delimiter = given.get("delimiter", ",").encode()
    lines = [b"0" + line[1:] if line.startswith(b"x") else line for line in written.split(b"\n")]
    if case == "no quotes":  # the record that has too few fields is mended where it stands
        lines = [line for line in lines if not line.endswith(b"3|z")]
    again = loads(b"\n".join(lines), on_error="reject", reject_file=Path("again.csv"), **given)
    assert again.rejected == 0, Path("again.csv").read_text()
    assert rows(database) == expected
    assert delimiter in written


def test_records_without_quotes_that_have_no_form_come_back_from_their_text(
    database: psycopg.Connection[Any], loads: Loads
) -> None:
    database.execute("CREATE TABLE t (id int, a text)")
    given = {"quote": "none", "delimiter": "|"}
    loads('id|a\n1|x\n2|y|z\n3\nq|"|\n', on_error="reject", **given)
    written = Path("x.rejects.csv").read_text()
    mended = written.replace("2|y|z\n", "2|y/z\n").replace("|3\n", "|3|w\n").replace('q|"|\n', '4|"\n')
    assert mended != written
    loads(mended, **given)
    assert rows(database) == [(1, "x"), (2, "y/z"), (3, "w"), (4, '"')]
    again = loads(written, on_error="reject", reject_file=Path("again.csv"), **given)
    assert again.rejected == 3
    for line in (3, 4, 5):
        written = written.replace(f"x.csv|{line}", f"x.csv|{line - 1}")
    assert Path("again.csv").read_text() == written


# -- chunks, streams and jobs


def test_chunks_end_before_the_footer(database: psycopg.Connection[Any], loads: Loads) -> None:
    database.execute("CREATE TABLE t (id int, a text)")
    text = "id|a\n" + "".join(f'{n}|"\n\n' for n in range(500)) + 'TOTAL|"500\n'
    given = {"delimiter": "|", "quote": "none", "skip_footer": 1, "skip_blank_lines": True}
    result = loads(text, commit_every=100, **given)
    assert (result.rows_read, len(rows(database))) == (500, 500)


def test_a_footer_of_standard_input_is_left_out(database: psycopg.Connection[Any], invoke: Invoke) -> None:
    database.execute("CREATE TABLE t (id int, a text)")
    Path("x.csv").write_text("id,a\n1,x\nTOTAL\n")
    with Path("x.csv").open() as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        result = invoke("load", "-", "-t", "t", "--skip-footer", "1", stdin=None)
    assert result.code == 0, result
    assert rows(database) == [(1, "x")]


def test_jobs_say_them_in_the_words_of_the_options(database: psycopg.Connection[Any], invoke: Invoke) -> None:
    database.execute("CREATE TABLE t (id int, a text, n numeric, d date)")
    Path("x.csv").write_text("noise\n1; x ;1,5;01/02/2024;7\n\n2;\n3;;2,5;03/02/2024\nTOTAL\n", encoding="cp1252")
    Path("harborctl.toml").write_text("""
        [[jobs.j.loads]]
        source = "x.csv"
        table = "t"
        delimiter = ";"
        quote = "none"
        encoding = "WIN1252"
        no_header = true
        columns = ["id", "a", "n", "d"]
        skip_lines = 1
        skip_footer = 1
        skip-blank-lines = true
        trim = true
        short_rows = "null"
        extra_fields = "ignore"
        force_not_null = "a"
        force_null = ["n", "d"]
        decimal = ","
        date_order = "dmy"
    """)
    result = invoke("run", "j", "--json")
    assert result.code == 0, result
    found = [tuple(None if value is None else str(value) for value in row) for row in rows(database)]
    assert found == [("1", "x", "1.5", "2024-02-01"), ("2", "", None, None), ("3", "", "2.5", "2024-02-03")]


def test_other_options_are_another_load(database: psycopg.Connection[Any], invoke: Invoke) -> None:
    database.execute("CREATE TABLE t (id text)")
    Path("x.csv").write_text('id\n""\n')
    assert json.loads(invoke("load", "x.csv", "-t", "t", "--json").stdout)["status"] == "loaded"
    assert json.loads(invoke("load", "x.csv", "-t", "t", "--json").stdout)["status"] == "already_loaded"
    again = json.loads(invoke("load", "x.csv", "-t", "t", "--force-null", "*", "--json").stdout)
    assert again["status"] != "already_loaded"


def test_fingerprints_of_loads_without_the_new_options_are_as_they_were() -> None:
    assert list(CsvDialect().meaning()) == [
        "delimiter", "quote", "escape", "encoding", "nulls", "header", "columns", "skip_lines",
    ]  # fmt: skip
    assert CsvDialect(trim=True).meaning()["trim"] is True


# -- options that a format does not know, and empty files


@pytest.mark.parametrize(
    "option",
    [
        ["--null", "NA"], ["--delimiter", ";"], ["--quote", "'"], ["--escape", "!"], ["--no-header"],
        ["--columns", "a"], ["--skip-lines", "1"], ["--skip-footer", "1"], ["--skip-blank-lines"], ["--trim"],
        ["--short-rows", "null"], ["--extra-fields", "ignore"], ["--force-null", "*"], ["--force-not-null", "a"],
        ["--decimal", ","], ["--encoding", "latin1"],
    ],
    ids=lambda option: option[0],
)  # fmt: skip
def test_options_that_a_format_does_not_know_are_refused(invoke: Invoke, option: list[str]) -> None:
    Path("x.parquet").write_bytes(b"PAR1")
    result = invoke("load", "x.parquet", "-t", "t", *option)
    assert result.code == 2
    assert f"{option[0]} is about CSV, and x.parquet is read as parquet" in result.stderr
    Path("x.jsonl").write_text('{"a": 1}\n')
    result = invoke("load", "x.jsonl", "-t", "t", *option)
    assert ("is about CSV" in result.stderr) is (option[0] != "--encoding")


def test_an_option_that_fits_one_of_several_sources_is_taken(database: psycopg.Connection[Any], invoke: Invoke) -> None:
    database.execute("CREATE TABLE t (id int, a text)")
    Path("x.csv").write_text("id;a\n1;NA\n")
    Path("y.jsonl").write_text('{"id": 2, "a": "NA"}\n')
    result = invoke("load", "x.csv", "y.jsonl", "-t", "t", "--delimiter", ";", "--null", "NA")
    assert result.code == 0, result
    assert rows(database) == [(1, None), (2, "NA")]


@pytest.mark.parametrize("arguments", [["--no-header"], ["--no-header", "--columns", "id,a"]])
def test_an_empty_file_without_a_header_holds_no_rows(
    database: psycopg.Connection[Any], invoke: Invoke, arguments: list[str], writer: str
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')")
    Path("x.csv").write_text("")
    Path("y.csv").write_text("2\n3\n")
    same = ["-t", "t", *arguments, "--writer", writer]
    for mode in ("append", "upsert"):
        assert invoke("load", "x.csv", *same, "-m", mode).code == 0
    assert invoke("load", "x.csv", *same, "--on-error", "reject").code == 0
    if len(arguments) == 1:
        assert invoke("load", "x.csv", "y.csv", "x.csv", *same, "--again").code == 0
        assert [row[0] for row in rows(database)] == [1, 2, 3]
    assert invoke("load", "x.csv", *same, "-m", "sync").code != 0
    assert invoke("load", "x.csv", *same, "-m", "sync", "--allow-empty", "--max-delete", "100%").code == 0
    assert rows(database) == []
    database.execute("INSERT INTO t VALUES (1, 'x')")
    assert invoke("load", "x.csv", *same, "-m", "replace").code == 0
    assert rows(database) == []
