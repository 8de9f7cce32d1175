"""JSON Lines against PostgreSQL's own reading of JSON: `json_populate_record` is the oracle, and a line that it refuses
is a bad record."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from harborctl.db.engine import Database
from harborctl.load.run.loader import run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import (
    ColumnOptions,
    CsvDialect,
    LoadOptions,
    LoadResult,
    MergeOptions,
    Mode,
    OnError,
    RejectOptions,
    WriterName,
)
from tests.conftest import engine_of, made_database
from tests.load.direct import refusal
from tests.load.sizes import ORACLE_EXAMPLES

Connection = psycopg.Connection[Any]

TABLE = """
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN given AS text NOT NULL;
    CREATE DOMAIN few AS int[] CHECK (cardinality(VALUE) < 4);
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TYPE point_of AS (x numeric(6, 2), y int);
    CREATE TYPE place AS (name text, at point_of, tags text[], note jsonb, "Odd Name" mood);
    CREATE TYPE strict_place AS (name given, p positive);
    CREATE DOMAIN far AS point_of CHECK ((VALUE).y > 10);
    CREATE TABLE every (
        n int, j json, jb jsonb, t text, v varchar(5), b bool, num numeric, num2 numeric(10, 2), f float8, d date,
        i interval, bin bytea, m mood, p positive, ints int[], texts text[], few few, nums numeric(6, 2)[], jbs jsonb[],
        place place, places place[], "at" point_of, strict strict_place, far far, ps positive[], r int4range
    );
    CREATE FUNCTION oracle(line text) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE made every;
    BEGIN
        made := json_populate_record(NULL::every, line::json);
        made.j := NULLIF((line::json -> 'j')::text, 'null')::json;
        RETURN made::text;
    EXCEPTION WHEN OTHERS THEN RETURN NULL;
    END $$;
"""


@pytest.fixture(scope="module")
def url(server_url: str, template_database: str) -> Iterator[str]:
    with made_database(server_url, f"harborctl_json_{os.getpid()}", template=template_database) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        yield url


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[sqlalchemy.Engine]:
    engine = engine_of(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def connection(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def table(connection: Connection) -> Iterator[Connection]:
    """An empty table of few columns."""
    connection.execute("CREATE TABLE few_columns (id int, note text DEFAULT 'none', doc json)")
    yield connection
    connection.execute("DROP TABLE few_columns")


def load(
    engine: sqlalchemy.Engine, path: Path, name: str = "few_columns", *, mode: str = "append", writer: str = "auto",
    reject: bool = False, dialect: CsvDialect | None = None, **merge: Any,
) -> LoadResult:  # fmt: skip
    options = LoadOptions(
        (str(path),),
        table=name,
        mode=Mode(mode),
        merge=MergeOptions(**merge),
        writer=WriterName(writer),
        ledger=False,
        dialect=dialect or CsvDialect(),
        rejects=RejectOptions(OnError.REJECT if reject else OnError.ABORT, file=str(path) + ".rejects", force=True),
    )
    return run_load(Database(engine, "test", embedded=False), options, Silent())


def check_against_oracle(
    engine: sqlalchemy.Engine, connection: Connection, folder: Path, lines: list[str], writer: str
) -> int:
    """Load the lines, each with a number of its own as field n; what went in is what the oracle makes of them, and what
    was rejected is what it refuses. Returns how many went in."""
    path = folder / "lines.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    connection.execute("TRUNCATE every")
    result = load(engine, path, "every", writer=writer, reject=True)
    query = "SELECT line, oracle(line) FROM unnest(%s::text[]) WITH ORDINALITY AS all_lines (line, n) ORDER BY n"
    expected = connection.execute(query, [lines]).fetchall()
    stored = dict(connection.execute("SELECT n, every::text FROM every").fetchall())
    for number, (line, made) in enumerate(expected):
        assert stored.get(number) == made, line[:2000]
    assert (result.inserted, result.rejected) == (len(stored), len(lines) - len(stored))
    # The reject file holds the same lines: rejected again, to the last.
    if result.reject_file:
        again = load(
            engine, Path(result.reject_file).rename(folder / "again.jsonl"), "every", writer=writer, reject=True
        )
        assert (again.inserted, again.rejected) == (0, result.rejected)
    return len(stored)


EXAMPLES = {
    "j": [
        '"5"', '"null"', '"abc"', "5", "null", "1.10", '{ "a" : 1.10,  "a":2, "b":[1 ,2] }', "[]", '"a\\u0041\\n"',
        "1e400", "-0", "12345678901234567890.123", '{"x":"\\u0041"}', "true",
    ],
    "jb": [
        '"5"', '"null"', '"abc"', "null", '{"a":1,"a":1.10}', "1e400", "-0", '"\\u0000"', '["\\u0000"]', "[1e-7]",
    ],
    "t": [
        '"a"', '""', "1.10", "-0", "1e400", "true", "[1, 2]", '{"a" : 1}', '"\\u00e9\\ud83d\\ude00"', '"\\"\\\\"',
        '"\\u0000"', '"NULL"', '"{1}"', "null", '"\\t"',
    ],
    "v": [
        '"abcde"', '"abcdef"', '"abcde   "', "123456", "12345",
    ],
    "b": [
        "true", "false", '"yes"', '"o"', "1", "0", "null", '"null"',
    ],
    "num": [
        "12345678901234567890.123", "1e400", "1E-5", "-0", "-0.00", '"NaN"', '"1_000"', "0.10", "[1]", '" 7 "', "true",
    ],
    "num2": [
        "1.005", "1e3", "99999999.999", '"1.1"',
    ],
    "f": [
        "1e400", "1e-400", "0.1", '"Infinity"', "-0", "5e-324", "NaN",
    ],
    "d": [
        '"2024-02-30"', '"2024-02-29"', "20240229", '"today"',
    ],
    "i": [
        "5", '"5"', '"P1D"',
    ],
    "bin": [
        '"\\\\x00ff"', '"abc"', "12",
    ],
    "m": [
        '"sad"', '"mad"', "1",
    ],
    "p": [
        "1", "0", "null", '"2"', "1.0",
    ],
    "ints": [
        "[1,2]", "[]", "[[1,2],[3,4]]", "[[1],[2,3]]", "[[1],2]", "[1,[2]]", "[[],[]]", "[[],[1]]", "[null,1]",
        "[[1],null]", '"{1,2}"', '"[0:1]={1,2}"', "1", "{}", "null", '["1"]', "[1.0]", "[[[[[[1]]]]]]",
        "[[[[[[[1]]]]]]]", "[" * 3000 + "]" * 3000, '[ 1 , "x" ]',
    ],
    "texts": [
        '["NULL", null, "", "a,b", "{}", "\\"", "\\\\", " "]', '[1.10, true, [1, 2], {"a": 1}]', '[["a"],["b"]]',
        '[{"a":1},[2]]', '["\\u0000"]',
    ],
    "few": [
        "[1,2,3]", "[1,2,3,4]", "null", "[[1,2],[3,4]]", '"{1}"',
    ],
    "nums": [
        "[1.005, 1e2]", "[123456]", '["NaN"]',
    ],
    "jbs": [
        '["5", 5, null, {"a": 1}, "x"]', "[[1],[2]]", "[1,[2]]",
    ],
    "place": [
        '{"name":"a","at":{"x":1.005,"y":2},"tags":["q",null],"note":"5","Odd Name":"sad"}', "{}", '{"Name":"a"}',
        '{"unknown":[1]}', '{"at":{}}', '{"at":null,"tags":[]}', '{"at":"(1,2)"}', '{"at":[1,2]}',
        '{"Odd Name":"mad"}', '"(a,,,,)"', "[1]", "1", '""', '{"note":{"a" : 1.10}}', '{"name":"","tags":"{a,b}"}',
        '{"name":"a","name":"b"}', '{"name":"(,\\"\\\\"}', '{"note":"\\u0000"}', '{"name":"\\u0000"}',
        '{"name":{"a" :1}}',
    ],
    "places": [
        '[{"name":"a"},null,{"tags":["b"]}]', '[[{"name":"a"}],[{"name":"b"}]]', "[1]", '["(a,,,,)"]', '{"name":"a"}',
        "[[]]",
    ],
    "strict": [
        '{"name":"a"}', '{"p":1}', '{"name":"a","p":0}', '{"name":null}', "null", '"(a,1)"',
    ],
    "far": [
        '{"y":11}', '{"y":1}', "null", '{"x":1}', '"(1,12)"',
    ],
    "ps": [
        "[1,2]", "[0]", "[null]",
    ],
    "r": [
        "[1,2]", '"[1,2)"', '"empty"', "[2,1]",
    ],
}  # fmt: skip


COLUMNS = ["n", "at", *EXAMPLES]


def test_values_are_what_postgresql_makes_of_them(
    engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path, writer: str
) -> None:
    lines: list[str] = []
    for column, values in EXAMPLES.items():
        # A NUL in a document that is stored as text is what the oracle does not even read; json's input does.
        lines += [f'{{"n":{len(lines) + place}, "{column}" : {value} }}' for place, value in enumerate(values)]
    stored = check_against_oracle(engine, connection, tmp_path, lines, writer)
    assert stored > len(lines) / 2


def test_lines_are_json_or_not_as_postgresql_has_it(
    engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path, writer: str
) -> None:
    numbers = ["01", "1.", ".5", "+1", "-", "1e", "0x1", "Infinity", "1_0", "1 2"]
    others = [
        "tru",
        "'a'",
        '"a',
        '"\\x"',
        '"\\u12g4"',
        '"\ta"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        "[1,]",
        "[",
        "]",
        '{"a"}',
        "{,}",
        "{a:1}",
    ]
    lines = [f'{{"n":{n},"j":{value}}}' for n, value in enumerate([*numbers, *others])]
    lines += ["[1]", "1", '"a"', "{", "}", '{"n":1}{"n":2}', '{"n":1},', '{"n":1} x', "\v", '\ufeff{"n":1}', "{,}"]
    lines += [f'  \t{{ "n" : {len(lines)} }} \t\r']
    assert check_against_oracle(engine, connection, tmp_path, lines, writer) == 1


def nested(depth: int) -> list[str]:
    deep = "[" * depth + "]" * depth
    values = [f'"j":{deep}', f'"jb":{{"a":{deep}}}', f'"place":{{"note":{deep}}}', f'"places":[{{"name":{deep}}}]']
    values += [f'"j":{deep[:-1]}', f'"j":{deep}]', '"t":"good"', '"j":' + '{"a":' * depth + "1" + "}" * depth]
    return [f'{{"n":{n},{value}}}' for n, value in enumerate([f'"t":{deep}', *values])]


def test_nesting_as_deep_as_postgresql_takes_it(
    engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path, writer: str
) -> None:
    assert check_against_oracle(engine, connection, tmp_path, nested(2000), writer) == 7


def test_nesting_deeper_than_postgresql_takes_it(
    engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(nested(20_000)))
    connection.execute("TRUNCATE every")
    assert load(engine, path, "every", writer=writer, reject=True).rejected == 6
    # Text is not read as JSON once more, and what goes nowhere is not read at all.
    query = "SELECT n, length(t) FROM every ORDER BY n"
    assert connection.execute(query).fetchall() == [(0, 40_000), (4, None), (7, 4)]


# -- random objects


def spaced(text: str, blanks: list[str]) -> str:
    """The text with blanks where JSON takes them: `~` marks these places."""
    parts = text.split("~")
    return "".join(part + blanks[place % len(blanks)] for place, part in enumerate(parts))


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0~"), max_size=6)
STRINGS = (PLAIN | st.sampled_from(["5", "null", "", "{1}", "(1,2)", "sad", "2024-01-01", "NULL", '"', "\\"])).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,8})?([eE][-+]?[0-9]{1,3})?\Z") | st.integers(-20, 20).map(
    str
)
SCALARS = st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS


def lists(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=3).map(lambda found: "[~" + "~,~".join(found) + "~]")


def objects(names: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(st.sampled_from(names), values), max_size=5)
    return pairs.map(lambda found: "{~" + "~,~".join(f"{json.dumps(n)}~:~{v}" for n, v in found) + "~}")


ANY = st.recursive(SCALARS, lambda inner: lists(inner) | objects(["a", "b", "x", "name"], inner), max_leaves=6)
POINTS = objects(["x", "y", "z"], NUMBERS | SCALARS)
PLACES = objects(["name", "at", "tags", "note", "Odd Name", "else"], SCALARS | POINTS | lists(STRINGS) | ANY)
VALUES: dict[str, st.SearchStrategy[str]] = {
    **dict.fromkeys(["ints", "few", "ps", "nums"], lists(NUMBERS) | lists(lists(NUMBERS)) | ANY),
    "texts": lists(STRINGS) | lists(ANY),
    "jbs": lists(ANY),
    "place": PLACES | ANY,
    "places": lists(PLACES | ANY),
    "at": POINTS,
    "far": POINTS,
    "strict": objects(["name", "p"], SCALARS),
    **dict.fromkeys(["num", "num2", "f", "n"], NUMBERS),
}


@st.composite
def objects_of_the_table(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from([name for name in COLUMNS if name != "n"]), max_size=4))
    fields = [f'~"{name}"~:~{draw(VALUES.get(name, ANY))}~' for name in names]
    blanks = draw(st.lists(st.sampled_from(["", "", " ", "\t", "  "]), min_size=1, max_size=4))
    text = spaced("{" + ",".join(['~"n"~:~@', *fields]) + "}", blanks)
    behind = text.index("@") + 2  # the number stays
    if behind < len(text) and draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(behind, len(text) - 1))
        text = text[:place] + draw(st.sampled_from(list('[]{}:,"01e.\\ '))) + text[place + 1 :]
    return text


def test_random_objects(engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path) -> None:
    stored = []

    @settings(max_examples=ORACLE_EXAMPLES or 6, deadline=None)
    @given(st.lists(objects_of_the_table(), min_size=1, max_size=40), st.sampled_from(["copy", "values"]))
    def check(texts: list[str], writer: str) -> None:
        known = [text for text in texts if goes_by_name(text.replace("@", "0", 1))]
        lines = [text.replace("@", str(number), 1) for number, text in enumerate(known)]
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            stored.append(check_against_oracle(engine, connection, Path(folder), lines, writer))

    check()
    assert sum(stored)


def goes_by_name(line: str) -> bool:
    """Whether the line has fields of the table only: others are bad to us, and nothing to the oracle."""
    try:
        found = json.loads(line)
    except ValueError:
        return True
    return not isinstance(found, dict) or ("n" in found and set(found) <= set(COLUMNS))


# -- the file


ROW = '{"id": 1, "note": "gr\u00f6\u00dfe"}\n'


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"\xef\xbb\xbf" + ROW.encode(), "utf-8"),
        (ROW.encode("latin-1"), "latin-1"),
        (ROW.encode("utf-16"), "utf-16"),
        (ROW.encode("utf-16-be"), "utf-16-be"),
        (ROW.replace("\n", "\r\n").encode(), "utf-8"),
        (ROW.rstrip().encode(), "utf-8"),
    ],
)
def test_encodings(engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, content: bytes, encoding: str) -> None:
    for name, data in (("x.jsonl", content), ("x.jsonl.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        assert load(engine, tmp_path / name, dialect=CsvDialect(encoding=encoding)).inserted == 1
    assert table.execute("SELECT DISTINCT id, note FROM few_columns").fetchall() == [(1, "größe")]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_a_reject_file_has_the_encoding_of_its_source(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str, encoding: str
) -> None:
    path = tmp_path / "x.jsonl"
    lines = [ROW.replace("1", '"x"'), '{"id": 2, "note": "é"}\n', '{"id": 3, "no\n', ROW.replace("1", '"y"')]
    path.write_bytes("".join(lines).encode(encoding))
    dialect = CsvDialect(encoding=encoding)
    assert load(engine, path, reject=True, writer=writer, dialect=dialect).rejected == 3
    found = (tmp_path / "x.jsonl.rejects").read_bytes().decode(encoding)
    assert found.count("größe") == 2
    found = (
        found.replace('"id": "x"', '"id": 5')
        .replace('"id": "y"', '"id": 6')
        .replace('{\\"id\\": 3, \\"no', '{\\"id\\": 3}')
    )
    (tmp_path / "y.jsonl").write_bytes(found.encode(encoding))
    assert load(engine, tmp_path / "y.jsonl", writer=writer, dialect=dialect).inserted == 3
    stored = table.execute("SELECT id, note FROM few_columns ORDER BY id").fetchall()
    assert stored == [(2, "é"), (3, None), (5, "größe"), (6, "größe")]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_text_without_the_mark_of_its_encoding(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text(ROW)
    error = refusal(lambda: load(engine, tmp_path / name, dialect=CsvDialect(encoding="utf-16")))
    assert "does not begin with a byte order mark" in str(error)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_no_rows(
    engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    connection.execute(
        "CREATE TABLE kept (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text NOT NULL,"
        " b text GENERATED ALWAYS AS (a) STORED)"
    )
    try:
        for mode in ("append", "upsert", "sync", "replace"):
            connection.execute("TRUNCATE kept; INSERT INTO kept (a) VALUES ('x')")
            result = load(engine, path, "kept", mode=mode, allow_empty=mode == "sync")
            left = 0 if mode in ("sync", "replace") else 1
            assert (result.rows_read, result.files[0].rows) == (0, 0)
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (left,)
    finally:
        connection.execute("DROP TABLE kept")


def test_fields_are_the_tables_wherever_they_turn_up(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.jsonl"
    filler = [json.dumps({"id": n, "doc": {"x": "y" * 1000, "note": 1}}) for n in range(2000)]
    path.write_text("\n".join([*filler, '{"id": 2000, "NOTE": "late"}']))
    assert load(engine, path, writer=writer).inserted == 2001
    query = "SELECT count(*), count(note), max(note) FROM few_columns"
    assert table.execute(query).fetchone() == (2001, 1, "late")
    table.execute("TRUNCATE few_columns")
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert load(engine, tmp_path / "x.jsonl.gz", writer=writer).inserted == 2001
    assert table.execute(query).fetchone() == (2001, 1, "late")
    table.execute("TRUNCATE few_columns")
    path.write_text("\n".join(filler))
    assert load(engine, path, writer=writer).inserted == 2000
    assert table.execute(query).fetchone() == (2000, 2000, "none")


def test_late_fields_of_a_pipe(harborctl: Callable[..., Any], database_url: str, tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "doc": "y" * 1000}) for n in range(2000)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE few_columns (id int, note text DEFAULT 'none', doc json)")
        text = "\n".join([*lines, '{"id": 2000, "note": "late"}', '{"id": "x"}', '{"id": 1, "other": 2}\n'])
        run = harborctl(
            "load", "-", "--format", "jsonl", "-t", "few_columns", "--on-error", "reject", stdin=text, cwd=tmp_path
        )
        assert run.code == 4, run
        assert connection.execute("SELECT count(*), count(note) FROM few_columns").fetchone() == (2001, 1)
    rejected = [json.loads(line) for line in (tmp_path / "stdin.rejects.jsonl").read_text().splitlines()]
    assert [(row["_harborctl_line"], row["_harborctl_column"]) for row in rejected] == [(2002, "id"), (2003, "other")]


def test_a_field_that_the_table_lacks_is_a_bad_record(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": 1}\n{"id": 2, "typo": 3}\n{"id": 4}\n')
    error = refusal(lambda: load(engine, path, writer=writer))
    assert (error.code, error.location.line, error.column, error.value) == ("42703", 2, "typo", "3")
    assert load(engine, path, writer=writer, reject=True).inserted == 2
    # What all objects have is how the file is made: that ends a load before it begins.
    path.write_text('{"id": 1, "typo": 2}\n')
    assert "has no column typo" in str(refusal(lambda: load(engine, path, writer=writer, reject=True)))


def test_bad_lines_only(engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("[\n\n" + "x" * 2_000_000 + '\n{"id": 1, "doc": 1}\n')
    result = load(engine, path, writer=writer, reject=True)
    assert (result.inserted, result.rejected) == (1, 2)
    assert table.execute("SELECT id, note, doc::text FROM few_columns").fetchone() == (1, "none", "1")


def test_the_limit_of_a_record(engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str) -> None:
    path = tmp_path / "x.jsonl"
    lines = [
        json.dumps({"id": n, "note": "y" * size}) for n, size in enumerate([10, 2_000_000, 900, 1100, 3_000_000, 1])
    ]
    path.write_text("\n".join(lines))
    dialect = CsvDialect(max_record_bytes=1000)
    error = refusal(lambda: load(engine, path, writer=writer, dialect=dialect))
    assert (error.code, error.location.line) == ("54000", 2)
    assert "--max-record-bytes" in error.hint
    result = load(engine, path, writer=writer, reject=True, dialect=dialect)
    assert (result.inserted, result.rejected, result.reject_reasons[0].count) == (3, 3, 3)
    assert table.execute("SELECT id FROM few_columns ORDER BY id").fetchall() == [(0,), (2,), (5,)]
    assert (tmp_path / "x.jsonl.rejects").stat().st_size < 250_000


def test_documents_keep_their_text_through_every_mode(
    engine: sqlalchemy.Engine, connection: Connection, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.jsonl"
    doc = '{ "b" : 1.10,  "a":[ 1 ,1e400], "a":"\\u0041" }'
    path.write_text(f'{{"id": 1, "doc": {doc}}}\n{{"id": "x", "doc": {doc}}}\n')
    connection.execute("CREATE TABLE docs (id int PRIMARY KEY, doc json)")
    try:
        for mode in ("append", "replace", "ignore", "upsert"):
            if mode in ("ignore", "upsert"):
                connection.execute("TRUNCATE docs")
            assert load(engine, path, "docs", mode=mode, writer=writer, reject=True).rejected == 1
            (tmp_path / "fixed.jsonl").write_text((tmp_path / "x.jsonl.rejects").read_text().replace('"x"', "2"))
            load(engine, tmp_path / "fixed.jsonl", "docs", writer=writer)
            assert connection.execute("SELECT id, doc::text FROM docs ORDER BY id").fetchall() == [(1, doc), (2, doc)]
    finally:
        connection.execute("DROP TABLE docs")


def test_the_limit_of_a_record_of_csv(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.csv"
    sizes = [10, 2_000_000, 900, 1100, 3_000_000, 1]
    path.write_text("id,note\n" + "".join(f"{n},{'y' * size}\n" for n, size in enumerate(sizes)) + '7,"a\nb"\n')
    dialect = CsvDialect(max_record_bytes=1000)
    error = refusal(lambda: load(engine, path, writer=writer, dialect=dialect))
    assert (error.code, error.location.line) == ("54000", 3)
    assert "--max-record-bytes" in error.hint
    result = load(engine, path, writer=writer, reject=True, dialect=dialect)
    assert (result.inserted, result.rejected, result.reject_reasons[0].count) == (4, 3, 3)
    assert table.execute("SELECT id FROM few_columns ORDER BY id").fetchall() == [(0,), (2,), (5,), (7,)]
    assert load(engine, path, writer=writer, mode="replace").inserted == 7


def test_one_field_fills_several_columns(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "5"}\n{"a": "7"}\n')
    options = LoadOptions(
        (str(path),),
        table="few_columns",
        columns=ColumnOptions(maps=(("a", "id"), ("a", "note"), ("a", "doc"))),
        writer=WriterName(writer),
        ledger=False,
    )
    run_load(Database(engine, "test", embedded=False), options, Silent())
    query = "SELECT id, note, doc::text FROM few_columns ORDER BY id"
    assert table.execute(query).fetchall() == [(5, "5", '"5"'), (7, "7", '"7"')]


def test_more_files_than_are_open_at_once(
    engine: sqlalchemy.Engine, table: Connection, tmp_path: Path, writer: str
) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.jsonl").write_text(
            f'{{"id": {number}}}\n' + ('{"NOTE": "x"}\n' if number > 9 else "\n")
        )
    result = load(engine, tmp_path / "*.jsonl", writer=writer)
    assert result.inserted == 70
    assert table.execute("SELECT count(*), count(id) FROM few_columns").fetchone() == (70, 40)
