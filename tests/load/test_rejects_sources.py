"""Bad rows from every kind of source: found where they stand, kept in the source's format, put right and loaded."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from harborctl.model import RejectFormat, SourceFormat
from tests.conftest import engine_of, made_database
from tests.load.test_rejects import BAD, GOOD, HEADER, TABLE, Database, load, rejected, rows

Row = dict[str, str | None]
NUMBERS = ("id", "share", "parent", "late")
BY_KEY = ("ignore", "upsert", "sync")
OLD_ROW = "INSERT INTO items (id, name) VALUES (3, 'old')"
CONTENTS = "SELECT items::text FROM items ORDER BY id"

# By mode, and whether values have their own types: what a load of the same rows without any bad one makes of the table.
Clean = dict[tuple[str, bool], list[Any]]


@pytest.fixture(scope="module")
def url(server_url: str, template_database: str) -> Iterator[str]:
    """Of one database for all tests here: to make one takes longer than to load so few rows."""
    with made_database(server_url, f"harborctl_sources_{os.getpid()}", template=template_database) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        yield url


@pytest.fixture(scope="module")
def clean() -> Clean:
    return {}


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
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """How a file is given to a load: what is in one called `-` comes from standard input, through a pipe."""
    reading, writing = os.pipe()
    threads: list[threading.Thread] = []

    def source(path: Path) -> Path:
        if path.stem != "-":
            return path

        def write_all() -> None:
            with out:
                out.write(path.read_bytes())

        threads.append(threading.Thread(target=write_all))
        threads[0].start()
        return Path("-")

    with open(reading) as stdin, open(writing, "wb") as out:  # noqa: PTH123  # descriptors
        monkeypatch.setattr(sys, "stdin", stdin)
        yield source
        for thread in threads:
            thread.join()


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
        pq.write_table(arrow_table(some, typed=typed), path, row_group_size=max(5, len(some) // 4))
    else:
        table = arrow_table(some, typed=typed)
        make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(7, len(some) // 3))


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


def first_line(path: Path) -> int:
    """The line of the first row; of a file without lines its number."""
    return 2 if ".csv" in path.suffixes else 1


def expected_rejects(
    files: list[Path], parts: list[list[int]], *, typed: bool, by_key: bool
) -> dict[int, tuple[str, int, str | None, str | None, str]]:
    """The number of each row that is rejected → file, line, column, value, code."""
    bad = {2 * number + 1: told for number, (_, *told) in enumerate(BAD)}
    expected = {}
    for path, numbers in zip(files, parts, strict=True):
        for line, number in enumerate(numbers, start=first_line(path)):
            column, value, code = bad.get(number, (None, None, None))
            if code is None or (by_key and code in ("23505", "23P01")):
                continue  # of two rows with one key the last counts, and with the first its slot is gone
            if column == "price" and value and (typed or (by_key and value == "-1")):
                value += ".00"
            expected[number] = ("stdin" if path.stem == "-" else str(path), line, column, value, code)
    return expected


# Each kind, and each mode, with both writers. What differs only in where its bytes come from need not meet every mode.
@pytest.mark.parametrize(
    ("kind", "mode", "writer"),
    [
        (kind, mode, ("copy", "values")[(number + place) % 2])
        for number, kind in enumerate(KINDS)
        for place, mode in enumerate(["append", "upsert", "ignore", "sync", "replace"])
        if place < 2 or not kind.startswith(("zst", "stdin"))
    ],
)
def test_every_kind_of_source(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, given: Callable[[Path], Path], clean: Clean,
    kind: str, mode: str, writer: str,
) -> None:  # fmt: skip
    names, reject_file, typed = KINDS[kind]
    by_key = mode in BY_KEY
    all_rows: list[Row] = [dict(zip(HEADER, (field or None for field in row), strict=True)) for row in rows()]
    # Without what a column of numbers or of days cannot even hold.
    unheld = {2 * n + 1 for n, (*_, code) in enumerate(BAD) if typed and code in ("22P02", "22008")}
    kept = [number for number in range(len(all_rows)) if number not in unheld]
    # Of several sources the second has its columns in another order.
    parts = [kept] if len(names) == 1 else [kept[:9], kept[9:]]
    files = [tmp_path / name for name in names]
    for path, numbers, order in zip(files, parts, (HEADER, HEADER[::-1]), strict=False):
        write(path, [{name: all_rows[number][name] for name in order} for number in numbers], typed=typed)
    if by_key:
        database.execute(OLD_ROW)
    result = load(
        engine,
        *map(given, files),
        mode=mode,
        writer=writer,
        source_format=FORMATS.get(files[0].suffix),
        format=RejectFormat.CSV if "to csv" in kind else None,
    )

    expected = expected_rejects(files, parts, typed=typed, by_key=by_key)
    assert (result.reject_file, result.rejected) == (reject_file, len(expected))
    assert [file.rows for file in result.files] == [len(numbers) for numbers in parts]
    found = read_rejects(tmp_path / reject_file)
    told = [tuple(row[f"_harborctl_{name}"] for name in ("file", "line", "column", "value", "code")) for row in found]
    assert [(file, int(line), *rest) for file, line, *rest in told] == list(expected.values())
    for row, number in zip(found, expected, strict=True):
        price = all_rows[number]["price"] or ""
        as_typed = {"price": price if "." in price else f"{price}.00"} if typed else {}
        assert {name: row[name] and str(row[name]) for name in HEADER} == all_rows[number] | as_typed

    # Put right by a script and loaded, in the reject file's own format, it makes the table what a clean load makes it.
    for row, number in zip(found, expected, strict=True):
        all_rows[number] = {**dict(zip(HEADER, GOOD, strict=True)), "id": str(number + 1), "slot": None}
        row.update(all_rows[number])
    fixed = tmp_path / f"fixed{Path(reject_file).suffix}"
    write(fixed, [{name: value and str(value) for name, value in row.items()} for row in found], typed=typed)
    again = load(engine, fixed, mode="upsert" if by_key else "append", writer=writer)
    assert (again.rejected, again.inserted) == (0, len(expected))
    contents = database.execute(CONTENTS).fetchall()
    if (mode, typed) not in clean:
        database.execute(f"TRUNCATE items; {OLD_ROW if by_key else ''}")
        write(tmp_path / "clean.csv", [all_rows[number] for number in kept])
        assert load(engine, tmp_path / "clean.csv", mode=mode).rejected == 0
        clean[mode, typed] = database.execute(CONTENTS).fetchall()
    assert contents == clean[mode, typed]


@pytest.fixture
def things(database: Database) -> Iterator[Database]:
    database.execute("CREATE TABLE things (id bigint PRIMARY KEY, note text DEFAULT 'none', span interval)")
    yield database
    database.execute("DROP TABLE things")


@pytest.mark.parametrize("name", ["gz", "zst", "jsonl", "parquet", "arrow file", "arrow stream to csv", "stdin csv"])
def test_bad_rows_far_apart(
    things: Database, engine: sqlalchemy.Engine, tmp_path: Path, given: Callable[[Path], Path], name: str
) -> None:
    (file_name,), reject_file, _ = KINDS[name]
    bad = [0, 1, 8191, 8192, 16500, 29999]
    some: list[Row] = [{"id": None if n in bad else str(n), "note": f"row {n} of several blocks"} for n in range(30000)]
    path = tmp_path / file_name
    write(path, some)
    form = RejectFormat.CSV if "to csv" in name else None
    result = load(engine, given(path), table="things", format=form)
    assert (result.inserted, result.rejected) == (29994, 6)
    assert [(int(row["_harborctl_line"]), row["id"], row["note"]) for row in read_rejects(tmp_path / reject_file)] == [
        (first_line(path) + n, None, some[n]["note"]) for n in bad
    ]


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
        (2, "22032"), (4, "22032"), (5, "22P02"), (6, "22021"), (7, "22032"),
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


def test_only_lines_that_are_not_json(things: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str) -> None:
    (tmp_path / "things.jsonl").write_text('{"id": 1}\n{"id": 2\n[3]\n')
    load(engine, tmp_path / "things.jsonl", table="things", writer=writer)
    again = load(engine, tmp_path / "things.rejects.jsonl", table="things", writer=writer)
    assert (again.inserted, again.rejected, {reason.code for reason in again.reject_reasons}) == (0, 2, {"22032"})
    found = read_rejects(tmp_path / "things.rejects.rejects.jsonl")
    assert [row["_harborctl_raw"] for row in found] == ['{"id": 2', "[3]"]
    (tmp_path / "none.jsonl").write_text("\n[3]\n")
    none = load(engine, tmp_path / "none.jsonl", table="things", writer=writer)
    assert (none.inserted, none.rejected, none.reject_reasons[0].line) == (0, 1, 2)


# -- typed values


RUNS = pc.run_end_encode(pa.array(["run"]))
BYTES = bytes(range(16))
MOMENT = pa.array([1_600_000_000], pa.timestamp("s"))
Arrays = tuple[pa.Array | pa.ChunkedArray, ...]


def one(value: Any, kind: pa.DataType) -> pa.Array:
    return pa.array([value], kind)


# The column's type, and the value that it gets, alone or in each of two sources.
ALONE: dict[str, tuple[str, Arrays]] = {
    "object": ("jsonb", (pa.array([{"a": "x", "b": None}]),)),
    "list_in_json": ("json", (pa.array([["a", None, "NULL"]]),)),
    "list_in_text": ("text", (pa.array([[1, None]]),)),
    "map": ("jsonb", (one([("k", 1)], pa.map_(pa.string(), pa.int64())),)),
    "text_in_json": ("jsonb", (pa.array(['{"b": [1.50]}']),)),
    "bool_in_json": ("jsonb", (pa.array([True]),)),
    "tags": ("text[]", (pa.array([["a", None, "NULL", '"\\']]),)),
    "pair": ("pair", (pa.array([{"a": 1, "b": "x,y"}]),)),
    "bytes": ("bytea", (one(b"\x00\xff", pa.binary_view()),)),
    "bytes_in_text": ("text", (pa.array([b"\\x61"]),)),
    "uuid": ("uuid", (one(BYTES, pa.binary(16)),)),
    "typed_uuid": ("uuid", (one(BYTES, pa.uuid()),)),
    "uuid_in_text": ("text", (one(BYTES, pa.uuid()),)),
    "moment_in_text": ("text", (MOMENT,)),
    "moment": ("timestamp", (MOMENT,)),
    "day": ("date", (one(86_400_000, pa.date64()),)),
    "span": ("interval", (one((1, 2, 3000), pa.month_day_nano_interval()),)),
    "scale": ("text", (one(1200, pa.decimal128(5, -2)),)),
    "single": ("numeric", (one(0.1, pa.float32()),)),
    "runs": ("text", (RUNS,)),
    "runs_inside": ("jsonb", (pa.StructArray.from_arrays([RUNS], names=["a"]),)),
    "view": ("text", (one("a view", pa.string_view()),)),
    "views": ("text[]", (one(["a"], pa.list_(pa.string_view())),)),
    "nothing": ("text", (pa.nulls(1),)),
    "empty": ("text", (pa.array([""]),)),
}
TOGETHER: dict[str, tuple[str, Arrays]] = {
    "number": ("numeric", (one(2**53 + 1, pa.int64()), one(0.1, pa.float64()))),
    "wide": ("numeric", (one(2**64 - 1, pa.uint64()), one(-1, pa.int64()))),
    "integer": ("bigint", (one(1, pa.int8()), one(2**40, pa.int64()))),
    "floats": ("numeric", (one(0.1, pa.float32()), one(0.1, pa.float64()))),
    "digits": ("text", (one(Decimal("1.10"), pa.decimal128(5, 2)), one(Decimal("1.1000"), pa.decimal128(9, 4)))),
    "moment": ("timestamp", (one(2**36, pa.timestamp("s")), one(1, pa.timestamp("us")))),
    "object": ("jsonb", (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": None}]))),
    "list": ("text", (pa.array([["a"]]), pa.array([[1]]))),
    "text": ("text", (pa.array(["a"]).dictionary_encode(), pa.array(["b"]))),
    "large": ("text", (one("a", pa.large_string()), one("b", pa.string_view()))),
    "runs": ("text", (RUNS, pa.array(["b"]).dictionary_encode())),
    "codes": ("integer", (pa.array([1]).dictionary_encode(), one(2, pa.int32()))),
    "bytes": ("bytea", (one(b"\\x61", pa.binary()), one(b"b", pa.large_binary()))),
    "hex": ("bytea", (pa.array(["\\x61"]), pa.array([b"\\x61"]))),
    "mixed": ("text", (pa.array([1]), pa.array(["x"]))),
    "nothing": ("integer", (pa.nulls(1), pa.array([1]))),
}


def with_first_field(path: Path, values: list[int]) -> Path:
    """The reject file, with these values in its first column, where nothing was."""
    fixed = path.with_name(f"fixed{path.suffix}")
    if path.suffix == ".csv":
        head, *lines = path.read_text().splitlines(keepends=True)
        fixed.write_text(head + "".join(f"{value}{line}" for value, line in zip(values, lines, strict=True)))
    else:
        table = pq.read_table(path)
        pq.write_table(table.set_column(0, table.schema.names[0], pa.array(values)), fixed)
    return fixed


@pytest.mark.parametrize("form", [None, RejectFormat.CSV])
@pytest.mark.parametrize("values", [ALONE, TOGETHER], ids=["alone", "together"])
def test_fields_beside_the_bad_one_stay_as_they_are(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, values: dict[str, tuple[str, Arrays]],
    form: RejectFormat | None, writer: str,
) -> None:  # fmt: skip
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in values.items())
    database.execute(f"CREATE TYPE pair AS (a integer, b text); CREATE TABLE kinds (id bigint PRIMARY KEY, {columns})")
    paths = []
    try:
        for number in range(max(len(arrays) for _, arrays in values.values())):
            row = {name: arrays[number] for name, (_, arrays) in values.items()}
            rows = [pa.record_batch({"id": one(key, pa.int64()), **row}) for key in (number, None)]
            table = pa.Table.from_batches(rows).combine_chunks()
            paths.append(tmp_path / f"{number}.arrow")
            with pa.ipc.new_file(paths[-1], table.schema) as writing:
                writing.write_table(table)
        result = load(engine, *paths, table="kinds", format=form, writer=writer)
        assert (result.inserted, result.rejected, result.reject_reasons[0].column) == (len(paths), len(paths), "id")
        fixed = with_first_field(tmp_path / str(result.reject_file), [10 + number for number in range(len(paths))])
        assert load(engine, fixed, table="kinds", writer=writer).inserted == len(paths)
        found = database.execute(f"SELECT id, ({', '.join(values)})::text FROM kinds ORDER BY id").fetchall()
        assert [row for _, row in found[: len(paths)]] == [row for _, row in found[len(paths) :]]
    finally:
        database.execute("DROP TABLE kinds; DROP TYPE pair")


@pytest.mark.parametrize("name", ["things.rejects.csv", "things.rejects.parquet"])
def test_values_that_the_column_cannot_hold_are_shown(
    things: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str, name: str
) -> None:
    lists = pa.array([[[]], [["x"]], None, [[]]])  # PostgreSQL has no text for the first
    table = pa.table(
        {
            "id": pa.array([1, 2, None, 4], pa.float64()),
            "note": pa.array([b"a", b"\xff", None, b"d"]).cast(pa.string(), safe=False),
            "span": pa.array([1, 2000, 3, 4000], pa.duration("ns")),
            "left_out": lists,
            "runs": pc.run_end_encode(pa.array([b"\xff", b"x", None, b""]).cast(pa.string(), safe=False)),
        }
    )
    with pa.ipc.new_file(tmp_path / "things.arrow", table.schema) as writing:
        writing.write_table(table)
    form = RejectFormat.CSV if name.endswith(".csv") else None
    skipped = frozenset({"left_out", "runs"})
    result = load(engine, tmp_path / "things.arrow", table="things", writer=writer, format=form, skipped=skipped)
    assert (result.inserted, result.rejected, result.reject_file) == (1, 3, name)
    if form is None:
        kept = pq.read_table(tmp_path / name).select(table.schema.names)
        assert kept.drop_columns(["note", "runs"]) == table.slice(0, 3).drop_columns(["note", "runs"])
        assert kept["note"].cast(pa.binary()).to_pylist() == [b"a", b"\xff", None]
        assert kept["runs"].cast(pa.binary()).to_pylist() == [b"\xff", b"x", None]
        return
    found = read_rejects(tmp_path / name)
    assert [(row["id"], row["note"], row["span"]) for row in found] == [
        ("1", "a", "00:00:00.000000001"), ("2", "\\xff", "00:00:00.000002"), (None, None, "00:00:00.000000003"),
    ]  # fmt: skip
    assert [(row["left_out"], row["runs"]) for row in found] == [("[[]]", "\\xff"), ('{{"x"}}', "x"), (None, None)]
