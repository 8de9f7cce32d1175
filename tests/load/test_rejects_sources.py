"""Bad rows from every kind of source: found where they stand, kept in the source's format, put right and loaded."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from harborctl.model import RejectFormat, SourceFormat
from tests.conftest import engine_of, made_database
from tests.load.direct import refusal
from tests.load.test_rejects import BAD, GOOD, HEADER, TABLE, Database, load, rejected, rows

Row = dict[str, str | None]
NUMBERS = ("id", "share", "parent", "late")
BY_KEY = ("ignore", "upsert", "sync")


@pytest.fixture(scope="module")
def url(server_url: str, template_database: str) -> Iterator[str]:
    """Of one database for all tests here: to make one takes longer than to load so few rows."""
    with made_database(server_url, f"harborctl_sources_{os.getpid()}", template=template_database) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        yield url


@pytest.fixture
def engine(url: str) -> Iterator[sqlalchemy.Engine]:
    engine = engine_of(url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE items")
        yield connection


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write what shall come from standard input; it must fit into a pipe."""
    reading, writing = os.pipe()
    with open(reading) as stdin:  # noqa: PTH123  # a descriptor
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing


# -- the same rows in every format; None is NULL


def write(path: Path, some: list[Row], *, typed: bool = True) -> None:
    """The rows, with the columns that the first of them has, in its order."""
    if ".csv" in path.suffixes:
        lines = [list(some[0]), *(['"' + value + '"' if value else "" for value in row.values()] for row in some)]
        with pa.output_stream(str(path)) as out:  # compresses by the suffix
            out.write("".join(",".join(line) + "\n" for line in lines).encode())
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(with_numbers(row)) + "\n" for row in some))
    elif path.suffix == ".parquet":
        pq.write_table(arrow_table(some, typed=typed), path, row_group_size=5)
    else:
        table = arrow_table(some, typed=typed)
        make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)


def with_numbers(row: Row) -> dict[str, Any]:
    return {
        name: int(value) if name in NUMBERS and value and value.isdecimal() else value for name, value in row.items()
    }


def arrow_table(some: list[Row], *, typed: bool) -> pa.Table:
    texts = pa.table({name: pa.array([row[name] for row in some], pa.string()) for name in some[0]})
    kinds: dict[str, pa.DataType] = dict.fromkeys(NUMBERS, pa.int64())
    kinds |= {"price": pa.decimal128(10, 2), "day": pa.date32(), "slot": pa.dictionary(pa.int8(), pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in some[0]])
    return texts.cast(schema) if typed else texts


def read_rejects(path: Path) -> list[dict[str, Any]]:
    """The rows of a reject file, values as they stand there; None is NULL."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value or None for name, value in row.items()} for row in rejected(path)]


def as_text(row: dict[str, Any]) -> Row:
    return {name: None if row[name] is None else str(row[name]) for name in HEADER}


# Source files, standard input among them as "-.suffix"; the reject file; whether Arrow's columns have their own types.
KINDS: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "gz": (("items.csv.gz",), "items.rejects.csv", False),
    "zst": (("items.csv.zst",), "items.rejects.csv", False),
    "jsonl": (("items.jsonl",), "items.rejects.jsonl", False),
    "parquet": (("items.parquet",), "items.rejects.parquet", True),
    "parquet of texts to csv": (("items.parquet",), "items.rejects.csv", False),
    "arrow file": (("items.arrow",), "items.rejects.parquet", True),
    "arrow stream to csv": (("items.arrows",), "items.rejects.csv", True),
    "several csv": (("b.csv", "a.csv.gz"), "items.rejects.csv", False),
    "several jsonl": (("b.jsonl", "a.jsonl"), "items.rejects.jsonl", False),
    "several columnar": (("b.parquet", "a.arrow"), "items.rejects.parquet", True),
    "stdin csv": (("-.csv",), "stdin.rejects.csv", False),
    "stdin jsonl": (("-.jsonl",), "stdin.rejects.jsonl", False),
    "stdin arrow": (("-.arrows",), "stdin.rejects.parquet", True),
}
FORMATS = {".csv": SourceFormat.CSV, ".jsonl": SourceFormat.JSONL, ".arrows": SourceFormat.ARROW}


# Each kind of source in each mode; each kind, and each mode, with both writers.
@pytest.mark.parametrize(
    ("kind", "mode", "writer"),
    [
        (kind, mode, ("copy", "values")[(number + place) % 2])
        for number, kind in enumerate(KINDS)
        for place, mode in enumerate(["append", "replace", *BY_KEY])
    ],
)
def test_every_kind_of_source(
    database: Database,
    engine: sqlalchemy.Engine,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
    mode: str,
    writer: str,
) -> None:
    names, reject_file, typed = KINDS[kind]
    by_key = mode in BY_KEY
    all_rows = [dict(zip(HEADER, (field or None for field in row), strict=True)) for row in rows()]
    bad = {2 * number + 1: told for number, (_, *told) in enumerate(BAD)}
    # What a column of numbers or of days cannot even hold.
    kept = [n for n in range(len(all_rows)) if not (typed and bad.get(n, [None])[-1] in ("22P02", "22008"))]
    # Of several sources the second has its columns in another order.
    cut = len(kept) if len(names) == 1 else 9
    parts = [kept[:cut], kept[cut:]][: len(names)]
    files = [tmp_path / name for name in names]
    for path, numbers, order in zip(files, parts, (HEADER, HEADER[::-1]), strict=False):
        write(path, [{name: all_rows[n][name] for name in order} for n in numbers], typed=typed)

    expected = []
    for path, numbers in zip(files, parts, strict=True):
        first = 2 if ".csv" in path.suffixes else 1
        for line, number in enumerate(numbers, start=first):
            column, value, code = bad.get(number, (None, None, None))
            if code is None or (by_key and code in ("23505", "23P01")):
                continue  # of two rows with one key the last counts, and with the first its slot is gone
            if column == "price" and value and (typed or (by_key and value == "-1")):
                value += ".00"
            name = "stdin" if path.stem == "-" else str(path)
            expected.append((number, name, line, column, value, code))

    if by_key:
        database.execute("INSERT INTO items (id, name) VALUES (3, 'old')")
    settings: dict[str, Any] = {"mode": mode, "writer": writer}
    if "to csv" in kind:
        settings["format"] = RejectFormat.CSV
    if files[0].stem == "-":
        pipe = request.getfixturevalue("pipe")
        os.write(pipe, files[0].read_bytes())
        os.close(pipe)
        result = load(engine, Path("-"), source_format=FORMATS[files[0].suffix], **settings)
    else:
        result = load(engine, *files, **settings)

    assert result.reject_file == reject_file
    found = read_rejects(tmp_path / reject_file)
    told = [tuple(row[f"_harborctl_{name}"] for name in ("file", "line", "column", "value", "code")) for row in found]
    assert [(f, int(line), *rest) for f, line, *rest in told] == [tuple(rest) for _, *rest in expected]
    wanted = [all_rows[number] for number, *_ in expected]
    if typed:
        wanted = [
            row | {"price": f"{row['price']}" if "." in str(row["price"]) else f"{row['price']}.00"} for row in wanted
        ]
    assert [as_text(row) for row in found] == wanted
    assert [file.rows for file in result.files] == [len(numbers) for numbers in parts]
    assert result.rejected == len(expected)

    # Put right by a script and loaded, in the reject file's own format, it makes the table what a clean load makes it.
    for row, (number, *_) in zip(found, expected, strict=True):
        good = dict(zip(HEADER, GOOD, strict=True), id=str(number + 1), slot=None)
        row.update(good)
        all_rows[number] = good
    fixed = tmp_path / f"fixed{Path(reject_file).suffix}"
    write(fixed, [{name: None if v is None else str(v) for name, v in row.items()} for row in found], typed=typed)
    again = load(engine, fixed, mode="append" if mode in ("append", "replace") else "upsert", writer=writer)
    assert (again.rejected, again.inserted) == (0, len(expected))
    contents = database.execute("SELECT items::text FROM items ORDER BY id").fetchall()
    database.execute("TRUNCATE items")
    if by_key:
        database.execute("INSERT INTO items (id, name) VALUES (3, 'old')")
    write(tmp_path / "clean.csv", [all_rows[number] for number in kept])
    assert load(engine, tmp_path / "clean.csv", mode=mode, writer=writer).rejected == 0
    assert contents == database.execute("SELECT items::text FROM items ORDER BY id").fetchall()


@pytest.fixture
def things(database: Database) -> Iterator[Database]:
    database.execute("CREATE TABLE things (id bigint PRIMARY KEY, note text DEFAULT 'none', span interval)")
    yield database
    database.execute("DROP TABLE things")


def test_lines_that_are_not_json(things: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str) -> None:
    lines = [
        b'{"id": 1, "note": "a"}', b'{"id": 2, "note": "b"', b"", b"[3]", b'{"id": "x"}', b'{"id": 5, "note": "\xff"}',
        b'{"id": 6, "note": "\\uD83D"}', b'{"id": 7, "note": "\\ud83d\\ude00"}',
    ]  # fmt: skip
    (tmp_path / "things.jsonl").write_bytes(b"\n".join(lines))
    result = load(engine, tmp_path / "things.jsonl", table="things", writer=writer)
    assert (result.inserted, result.rejected, result.files[0].rows) == (2, 5, 7)
    found = read_rejects(tmp_path / "things.rejects.jsonl")
    assert [(row["_harborctl_line"], row["_harborctl_code"]) for row in found] == [
        (2, "22032"), (4, "22032"), (5, "22P02"), (6, "22032"), (7, "22032"),
    ]  # fmt: skip
    assert [row.get("_harborctl_raw", "").encode() for row in found] == [
        lines[1], lines[3], b"", lines[5].replace(b"\xff", b"\\xff"), lines[6],
    ]  # fmt: skip
    # Loaded as it is, everything is rejected again, and nothing else.
    again = load(engine, tmp_path / "things.rejects.jsonl", table="things", writer=writer)
    assert (again.inserted, again.rejected) == (0, 5)
    found[0]["_harborctl_raw"] += "}"  # put right in place
    found[1] |= {"id": 3, "_harborctl_raw": None}  # put into the fields
    found[2]["id"] = 4
    for row in found[3:]:
        row["_harborctl_raw"] = row["_harborctl_raw"].replace("\\xff", "?").replace("\\uD83D", "?")
    (tmp_path / "fixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert load(engine, tmp_path / "fixed.jsonl", table="things", writer=writer).inserted == 5
    assert things.execute("SELECT id, note FROM things ORDER BY id").fetchall() == [
        (1, "a"), (2, "b"), (3, None), (4, None), (5, "?"), (6, "?"), (7, "😀"),
    ]  # fmt: skip


def test_a_field_that_no_rejected_object_has_stays_null(
    things: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str
) -> None:
    (tmp_path / "things.jsonl").write_text('{"id": 1, "note": "a"}\n{"id": "x"}\n')
    load(engine, tmp_path / "things.jsonl", table="things", writer=writer)
    rejects = tmp_path / "things.rejects.jsonl"
    (tmp_path / "fixed.jsonl").write_text(rejects.read_text().replace('"id": "x"', '"id": 2'))
    assert load(engine, tmp_path / "fixed.jsonl", table="things", writer=writer).inserted == 1
    assert things.execute("SELECT id, note FROM things ORDER BY id").fetchall() == [(1, "a"), (2, None)]


def test_columns_that_no_reject_file_takes(things: Database, engine: sqlalchemy.Engine, tmp_path: Path) -> None:
    numbers, texts = pa.table({"id": [1, 1]}), pa.table({"id": ["2", "x"]})
    pq.write_table(numbers, tmp_path / "1.parquet")
    pq.write_table(texts, tmp_path / "2.parquet")
    several = refusal(lambda: load(engine, tmp_path / "1.parquet", tmp_path / "2.parquet", table="things"))
    spans = pa.table({"id": [1, 1], "span": pa.array([(1, 2, 3000)] * 2, pa.month_day_nano_interval())})
    with pa.ipc.new_file(tmp_path / "3.arrow", spans.schema) as writing:
        writing.write_table(spans)
    unknown = refusal(lambda: load(engine, tmp_path / "3.arrow", table="things"))
    assert [(e.code, e.exit_code) for e in (several, unknown)] == [("reject_format", 2)] * 2
    assert load(engine, tmp_path / "3.arrow", table="things", format=RejectFormat.CSV).rejected == 1
    assert rejected(tmp_path / "3.rejects.csv")[0]["span"] == "1 mons 2 days 00:00:00.000003000"
