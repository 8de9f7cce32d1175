"""Files as people have them: workbooks, JSON documents, fixed width, COPY's text, zip and xz.

COPY is the oracle for its own text; the others are compared with what the program that wrote them was given.
"""

from __future__ import annotations

import datetime as dt
import json
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import psycopg
import pytest

from tests.db.dumps import dumped
from tests.inprocess import Invoke
from tests.load.conftest import failure

Database = psycopg.Connection[Any]
Load = Callable[..., dict[str, Any]]
Rows = list[tuple[Any, ...]]


def rows(database: Database, query: str = "SELECT * FROM t ORDER BY id") -> Rows:
    return database.execute(query).fetchall()


@pytest.fixture
def table(database: Database) -> None:
    database.execute("CREATE TABLE t (id int, name text, price numeric(10, 2), day date)")


def workbook(path: Path, cells: dict[str, Any], **sheets: dict[str, Any]) -> Path:
    book = openpyxl.Workbook()
    for title, of_sheet in {"Sheet1": cells, **sheets}.items():
        sheet = book.active if title == "Sheet1" else book.create_sheet(title)
        assert sheet is not None
        for place, value in of_sheet.items():
            sheet[place] = value
    book.save(path)
    return path


HEADER = {"A1": "id", "B1": "name", "C1": "price", "D1": "day"}

# -- workbooks


@pytest.mark.usefixtures("table")
def test_a_workbook(load: Load, database: Database, tmp_path: Path, writer: str) -> None:
    cells = {
        **HEADER, "A2": 1, "B2": "007", "C2": 9.5, "D2": dt.date(2026, 1, 2),
        "A4": 2, "B4": "two\nlines, and \"quotes\"", "C4": 1e6, "D4": dt.datetime(2026, 1, 3),
        "A5": 3, "B5": None, "C5": None,
    }  # fmt: skip
    found = load(workbook(tmp_path / "t.xlsx", cells), "--table", "t", "--writer", writer)
    assert found["rows_read"] == 3
    assert [(*row[:2], str(row[2]), str(row[3])) for row in rows(database)] == [
        (1, "007", "9.50", "2026-01-02"),
        (2, 'two\nlines, and "quotes"', "1000000.00", "2026-01-03"),
        (3, None, "None", "None"),
    ]
    assert load(tmp_path / "t.xlsx", "--table", "t")["status"] == "already_loaded"


def test_cells_as_the_database_reads_them(load: Load, database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE TABLE t (id bigint, yes bool, at timestamp(3), clock time, span interval, real float8, txt text)"
    )
    names = ["id", "yes", "at", "clock", "span", "real", "txt"]
    values: list[Any] = [
        123456789012, True, dt.datetime(2026, 5, 6, 7, 8, 9, 250000), dt.time(23, 59), dt.timedelta(hours=30), 0.1, 12
    ]  # fmt: skip
    cells = {f"{letter}1": name for letter, name in zip("ABCDEFG", names, strict=True)}
    cells |= {f"{letter}2": value for letter, value in zip("ABCDEFG", values, strict=True)}
    load(workbook(tmp_path / "t.xlsx", cells))
    assert rows(database) == [(123456789012, True, values[2], values[3], values[4], 0.1, "12")]


@pytest.mark.usefixtures("table")
def test_a_sheet_and_a_range_of_it(load: Load, invoke: Invoke, database: Database, tmp_path: Path) -> None:
    there = {"B3": "id", "C3": "name", "B4": 1, "C4": "one", "B5": 2, "C5": "two", "C9": "total", "B9": 3, "E4": "note"}
    path = workbook(tmp_path / "t.xlsx", {"A1": "a title"}, Orders=there)
    several = failure(invoke("load", path, "--json"), 2)
    assert several["code"] == "several_sheets"
    assert "Orders" in several["hint"]
    missing = failure(invoke("load", path, "--sheet", "Order", "--json"), 2)
    assert (missing["code"], "Orders" in missing["hint"]) == ("no_such_sheet", True)
    load(path, "--sheet", "Orders", "--range", "B3:C5", "--mode", "replace")
    assert rows(database, "SELECT id, name FROM t ORDER BY id") == [(1, "one"), (2, "two")]
    load(path, "--sheet", "2", "--range", "B4:C5", "--no-header", "--columns", "id,name", "--mode", "replace")
    assert rows(database, "SELECT id, name FROM t ORDER BY id") == [(1, "one"), (2, "two")]


def test_a_failed_formula_is_no_value(invoke: Invoke, load: Load, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int, price numeric, note text)")
    path = workbook(tmp_path / "t.xlsx", {"A1": "id", "B1": "price", "C1": "note", "A2": 1, "B2": "#DIV/0!"})
    error = failure(invoke("load", path, "--json"), 1)
    assert (error["line"], error["column"], error["value"]) == (2, "price", "#DIV/0!")
    found = json.loads(invoke("load", path, "--on-error", "reject", "--json").stdout)
    assert (found["status"], found["rejected"]) == ("loaded_with_rejects", 1)
    rejects = (tmp_path / "t.rejects.csv").read_text().replace('"#DIV/0!"', '"1.5"')
    (tmp_path / "mended.csv").write_text(rejects)
    load(tmp_path / "mended.csv", "--table", "t")
    assert [(row[0], str(row[1])) for row in rows(database)] == [(1, "1.5")]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "bad_workbook"),
        (b"no zip", "bad_workbook"),
        (b"", "bad_workbook"),
    ],
)
@pytest.mark.usefixtures("table")
def test_what_is_no_workbook(invoke: Invoke, tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "t.xlsx").write_bytes(content)
    assert failure(invoke("load", "t.xlsx", "--json"), 2)["code"] == code


# -- JSON documents


DOCUMENT: list[dict[str, Any]] = [
    {"id": 1, "name": 'a "b" \\ ü\u2028', "price": 1.50, "day": "2026-01-02"},
    {"id": 2, "name": None, "price": 12345678.9, "day": None, "_": {}},
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.usefixtures("table")
def test_a_json_document(load: Load, database: Database, tmp_path: Path, indent: int | None, inside: bool) -> None:
    content: Any = [{key: value for key, value in each.items() if key != "_"} for each in DOCUMENT]
    if inside:
        content = {"count": 2, "data": {"other": [1, {"items": []}], "items": content}, "next": None}
    (tmp_path / "t.json").write_text(json.dumps(content, indent=indent))
    options = ["--records", "data.items"] if inside else []
    assert load(tmp_path / "t.json", *options)["rows_read"] == 2
    assert [(*row[:2], str(row[2])) for row in rows(database)] == [
        (1, DOCUMENT[0]["name"], "1.50"),
        (2, None, "12345678.90"),
    ]


def test_a_value_keeps_its_text_and_objects_follow_each_other(load: Load, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id numeric, j json)")
    (tmp_path / "t.json").write_text('\ufeff{"id": 1.10,\n "j": {"x": 1e5,\n"y": [1.0]}}\n\n{"id":2,"j":"s"} {"id":3}')
    load(tmp_path / "t.json")
    found = rows(database, "SELECT id::text, j::text FROM t ORDER BY t.id")
    assert found == [("1.10", '{"x": 1e5, "y": [1.0]}'), ("2", '"s"'), ("3", None)]


def test_nested_objects_become_columns(load: Load, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int, address_city text, address_geo_lat numeric, tags jsonb)")
    (tmp_path / "t.json").write_text('[{"id":1,"address":{"city":"Oslo","geo":{"lat":59.90}},"tags":{}}]')
    load(tmp_path / "t.json", "--flatten")
    assert rows(database, "SELECT id, address_city, address_geo_lat::text, tags::text FROM t") == [
        (1, "Oslo", "59.90", "{}")
    ]


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ('{"data": {"items": [{"id": 1}]}}', "no_records", "--records data.items"),
        ("[1, 2", "22032", ""),
        ('[{"id": 1} {"id": 2}]', "22032", "comma"),
        ('[{"id": 1}] x', "22032", "something else"),
        ("3", "no_records", ""),
        ("", "empty_file", ""),
        ('[{"id": 1}, 7]', "22032", ""),
    ],
)
@pytest.mark.usefixtures("table")
def test_json_that_is_no_list_of_objects(invoke: Invoke, tmp_path: Path, text: str, code: str, told: str) -> None:
    (tmp_path / "t.json").write_text(text)
    result = invoke("load", "t.json", "--json")
    error = json.loads(result.stdout)["error"]
    assert result.code in (1, 2)
    assert error["code"] == code
    assert told in error["message"] + (error["hint"] or "")


@pytest.mark.usefixtures("table")
def test_a_document_larger_than_what_is_read_at_once(load: Load, database: Database, tmp_path: Path) -> None:
    content = [{"id": n, "name": "x" * (n % 7) * 100_000} for n in range(60)]
    (tmp_path / "t.json").write_text(json.dumps(content, indent=1))
    load(tmp_path / "t.json")
    assert rows(database, "SELECT id, name FROM t ORDER BY id") == [(each["id"], each["name"]) for each in content]


# -- fixed width


@pytest.mark.usefixtures("table")
def test_fixed_width(load: Load, invoke: Invoke, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("id  name    price\n   1Zoë       1.50\n   2                 \n   3Ö Ö\n", encoding="latin-1")
    fixed = ["--format", "fixed", "--encoding", "latin-1", "--widths"]
    load(path, *fixed, "4,8,8", "--table", "t")
    wanted = [(1, "Zoë", "1.50"), (2, None, None), (3, "Ö Ö", None)]
    query = "SELECT id, name, price::text FROM t ORDER BY id"
    assert rows(database, query) == wanted
    load(path, *fixed, "id:4,name:8,price:8", "--skip-lines", "1", "--table", "t", "--mode", "replace")
    assert rows(database, query) == wanted
    path.write_text("   1Zoe\n   2Eve     9.00 X\n")
    error = failure(
        invoke("load", path, "--format", "fixed", "--widths", "id:4,name:8,price:6", "-t", "t", "--json"), 1
    )
    assert (error["line"], "X" in error["message"]) == (2, True)
    arguments = ["--widths", "id:4,name:8,price:6", "-t", "t", "--on-error", "reject", "--json"]
    found = json.loads(invoke("load", path, "--format", "fixed", *arguments).stdout)
    assert (found["inserted"], found["rejected"]) == (1, 1)


# -- COPY's text format


def random_text(random: random.Random) -> str | None:
    signs = ["\\", "\t", "\n", "\r", "N", "\\N", "\\.", "'", '"', ",", "é", "x41", "101", "\b", "\v", " ", "", "€"]
    return None if random.random() < 0.1 else "".join(random.choices(signs, k=random.randint(0, 6)))


def test_copy_text_is_what_copy_wrote(load: Load, database: Database, tmp_path: Path, writer: str) -> None:
    database.execute("CREATE TABLE a (id int, x text, y text); CREATE TABLE t (LIKE a)")
    chance = random.Random(7)  # noqa: S311
    with database.cursor().copy("COPY a FROM STDIN") as copy:
        for number in range(3000):
            copy.write_row((number, random_text(chance), random_text(chance)))
    with database.cursor().copy("COPY a TO STDOUT") as copy:
        content = b"".join(copy)
    path = tmp_path / "t.copy"
    path.write_bytes(content + b"\\.\n")
    assert load(path, "--writer", writer)["rows_read"] == 3000
    differing = "(TABLE a EXCEPT TABLE t) UNION ALL (TABLE t EXCEPT TABLE a)"
    assert rows(database, f"SELECT count(*) FROM ({differing}) AS d") == [(0,)]


def test_escapes_that_copy_reads(load: Load, database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int, x text, y text); CREATE TABLE a (LIKE t)")
    content = b"1\t\\x41\\102\\q\\\\x41\t\\xc3\\xa9\n2\ta\\\tb\t\\\\N\n3\t\\N\t\\\\\n"
    (tmp_path / "t.copy").write_bytes(content)
    load(tmp_path / "t.copy")
    with database.cursor().copy("COPY a FROM STDIN") as copy:
        copy.write(content)
    assert rows(database) == rows(database, "SELECT * FROM a ORDER BY id")


@pytest.mark.parametrize(
    ("content", "line"),
    [("1\ta\n2\n", 2), ("1\ta\n2\tb\tc\n", 2), ("1\ta\n\\.\n2\tb\n", 3), ("1\ta\\\n", 1), ("1\ta\rb\n", 1)],
)
def test_what_is_not_copy_text(invoke: Invoke, database: Database, tmp_path: Path, content: str, line: int) -> None:
    database.execute("CREATE TABLE t (id int, x text)")
    (tmp_path / "t.copy").write_text(content)
    error = failure(invoke("load", "t.copy", "--json"), 1)
    assert (error["code"], error["line"]) == ("22P04", line)


def test_a_script_of_pg_dump(load: Load, invoke: Invoke, database: Database, database_url: str, tmp_path: Path) -> None:
    database.execute('CREATE TABLE t (id int, "Odd ""Name" text); CREATE TABLE u (id int)')
    database.execute(
        "INSERT INTO t SELECT n, repeat('x', n) || chr(9) FROM generate_series(1, 5) n; INSERT INTO u VALUES (1)"
    )
    before = rows(database)

    def dump(*options: str) -> None:
        (tmp_path / "t.copy").write_text("\n".join(dumped(database_url, "--no-owner", *options)))

    dump("--table", "t")
    assert load(tmp_path / "t.copy", "--mode", "replace")["rows_read"] == 5
    assert rows(database) == before
    dump("--table", "t", "--table", "u", "--data-only")
    error = failure(invoke("load", tmp_path / "t.copy", "--mode", "replace", "--json"), 1)
    assert "public.u" in error["message"]


# -- archives and xz


@pytest.mark.usefixtures("table")
def test_members_of_an_archive(load: Load, invoke: Invoke, database: Database, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "feeds.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/t2.csv", "id,name\n2,two\n")
        archive.writestr("a.csv", "id,name\n1,one\n")
        archive.writestr("read me.txt", "no rows")
    error = failure(invoke("load", "feeds.zip", "-t", "t", "--json"), 2)
    assert (error["code"], "feeds.zip/*.csv" in error["hint"]) == ("unknown_format", True)
    found = load("feeds.zip/*.csv", "-t", "t")
    assert [(each["path"], each["rows"]) for each in found["files"]] == [
        ("feeds.zip/a.csv", 1),
        ("feeds.zip/b/t2.csv", 1),
    ]
    assert rows(database, "SELECT id, name FROM t ORDER BY id") == [(1, "one"), (2, "two")]
    assert load("feeds.zip/a.csv", "-t", "t")["status"] == "already_loaded"
    error = failure(invoke("load", "feeds.zip/c.csv", "-t", "t", "--json"), 2)
    assert (error["code"], "a.csv" in error["hint"]) == ("no_such_file", True)


@pytest.mark.usefixtures("table")
def test_xz_and_damage(load: Load, invoke: Invoke, database: Database, tmp_path: Path) -> None:
    content = "id,name\n" + "".join(f"{number},name {number}\n" for number in range(100_000))
    packed = lzma.compress(content.encode())
    (tmp_path / "t.csv.xz").write_bytes(packed)
    assert load("t.csv.xz", "--on-error", "reject")["rows_read"] == 100_000
    (tmp_path / "t.csv.xz").write_bytes(packed[: len(packed) // 2])
    error = failure(invoke("load", "t.csv.xz", "--json"), 2)
    assert error["code"] == "bad_compression"
    assert rows(database, "SELECT count(*) FROM t") == [(100_000,)]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("t.csv", ["--sheet", "A"], "--format xlsx"),
        ("t.csv", ["--flatten"], "--format json"),
        ("t.json", ["--widths", "1,2"], "--format fixed"),
        ("t.copy", ["--delimiter", ";"], "--format csv"),
        ("t.txt", ["--format", "fixed"], "--widths"),
        ("t.txt", ["--format", "fixed", "--widths", "a:0"], "--widths"),
    ],
)
@pytest.mark.usefixtures("table")
def test_options_of_another_format(invoke: Invoke, tmp_path: Path, name: str, options: list[str], told: str) -> None:
    (tmp_path / name).write_text("id,name\n1,a\n")
    error = failure(invoke("load", name, *options, "-t", "t", "--json"), 2)
    assert told in error["hint"]
