"""Bad rows: each is found, told why, kept as it was, and can be put right and loaded; the good ones are in."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from harborctl.db.engine import Database as Engine
from harborctl.load.rejects import merge_isolate
from harborctl.load.rejects.isolate import MOST_SAVEPOINTS
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
    SourceFormat,
    WriterName,
)
from harborctl.sources.batch import Batch, stretch, taken
from tests.inprocess import Invoke
from tests.inprocess import invoke as invoke  # noqa: PLC0414  # a fixture
from tests.load.conftest import failure
from tests.load.direct import refusal
from tests.load.test_targets import engine_as

Database = psycopg.Connection[Any]

TABLE = """
    CREATE TABLE parents (id integer PRIMARY KEY);
    INSERT INTO parents VALUES (1), (2);
    CREATE DOMAIN percentage AS integer CHECK (VALUE BETWEEN 0 AND 100);
    CREATE TABLE items (
        id integer PRIMARY KEY,
        name varchar(5) NOT NULL,
        price numeric(5,2) CHECK (price >= 0),
        share percentage,
        day date,
        parent integer REFERENCES parents,
        late integer REFERENCES parents DEFERRABLE INITIALLY DEFERRED,
        slot int4range,
        doubled smallint GENERATED ALWAYS AS (share * 500) STORED,
        EXCLUDE USING gist (slot WITH &&)
    );
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.name = 'evil' THEN RAISE EXCEPTION 'no evil here' USING ERRCODE = 'ZZ001'; END IF;
            RETURN NEW;
        END $$;
    CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION refuse();
"""
HEADER = ["id", "name", "price", "share", "day", "parent", "late", "slot"]
GOOD = ["", "ok", "1.50", "10", "2020-02-29", "1", "2", ""]

# what differs from a good row; column, value, code that it is rejected with
BAD: list[tuple[dict[str, str], str | None, str | None, str]] = [
    ({"id": "x"}, "id", "x", "22P02"),
    ({"id": "99999999999"}, "id", "99999999999", "22003"),
    ({"name": "toolong"}, "name", "toolong", "22001"),
    ({"name": ""}, "name", None, "23502"),
    ({"price": "12345"}, "price", "12345", "22003"),
    ({"price": "-1"}, "price", "-1", "23514"),
    ({"share": "101"}, "share", "101", "23514"),
    ({"day": "2021-02-29"}, "day", "2021-02-29", "22008"),
    ({"parent": "7"}, "parent", "7", "23503"),
    ({"late": "8"}, "late", "8", "23503"),
    ({"id": "1"}, "id", "1", "23505"),
    ({"slot": "[1,5)"}, "slot", "[1,5)", "23P01"),
    ({"share": "90"}, None, None, "22003"),
    ({"name": "evil"}, None, None, "ZZ001"),
]


def rows() -> list[list[str]]:
    """A good row before each bad one, one more at the end. The first good row holds what some others collide with."""
    made: list[list[str]] = []
    for number, (changes, *_) in enumerate(BAD):
        for changed in ({}, changes):
            row = dict(zip(HEADER, GOOD, strict=True), id=str(len(made) + 1)) | changed
            made.append([row[name] for name in HEADER])
        if number == 0:
            made[0][HEADER.index("slot")] = "[3,9)"
    return [*made, [str(len(made) + 1), *GOOD[1:]]]


def load(
    engine: sqlalchemy.Engine, *paths: Path, table: str = "items", mode: str = "append", writer: str = "auto",
    dialect: CsvDialect | None = None, merge: MergeOptions | None = None, source_format: SourceFormat | None = None,
    skipped: frozenset[str] = frozenset(), **rejects: Any,
) -> LoadResult:  # fmt: skip
    rejects = {"on_error": OnError.REJECT} | rejects
    options = LoadOptions(
        tuple(map(str, paths)),
        table=table,
        mode=Mode(mode),
        merge=merge or MergeOptions(),
        format=source_format,
        writer=WriterName(writer),
        columns=ColumnOptions(skipped=skipped),
        dialect=dialect or CsvDialect(),
        rejects=RejectOptions(**rejects),
        ledger=False,
    )
    result = run_load(Engine(engine, "test", embedded=False), options, Silent())
    counters = ("inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "rejected")
    assert result.rows_read == sum(getattr(result, name) for name in counters)
    return result


def rejected(path: Path, dialect: CsvDialect | None = None) -> list[dict[str, str]]:
    dialect = dialect or CsvDialect()
    text = path.read_bytes().decode(dialect.encoding)
    escape = dialect.escape if dialect.escape not in (None, dialect.quote) else None
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=dialect.delimiter, quotechar=dialect.quote, escapechar=escape,
        doublequote=escape is None, strict=True,
    )  # fmt: skip
    return list(reader)


def told(found: list[dict[str, str]]) -> dict[int, tuple[str | None, str | None, str]]:
    """Line → column, value, code."""
    return {
        int(row["_harborctl_line"]): (
            row["_harborctl_column"] or None, row["_harborctl_value"] or None, row["_harborctl_code"],
        )
        for row in found
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


DIALECTS = {
    "plain": (CsvDialect(), "\n"),
    "semicolons": (CsvDialect(delimiter=";", quote="'", nulls=("", "NULL"), encoding="cp1252"), "\r\n"),
    "escapes": (CsvDialect(delimiter="|", escape="\\", header=False, columns=tuple(HEADER)), "\n"),
}


def write_csv(path: Path, dialect: CsvDialect, end: str, records: list[list[str]]) -> None:
    delimiter, quote = dialect.delimiter, dialect.quote
    lines = [*([HEADER] if dialect.header else []), *records]
    text = end.join(
        delimiter.join(f"{quote}{field}{quote}" if "," in field or "[" in field else field for field in line)
        for line in lines
    )
    path.write_bytes((text + end).encode(dialect.encoding))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("mode", ["append", "replace", "upsert", "ignore", "sync"])
def test_every_kind_of_bad_row(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str, dialect: str, mode: str
) -> None:
    database.execute(TABLE)
    given, end = DIALECTS[dialect]
    path = tmp_path / "items.csv"
    write_csv(path, given, end, rows())
    by_key = mode in ("upsert", "ignore", "sync")
    result = load(engine, path, mode=mode, writer=writer, dialect=given)
    first = 2 if given.header else 1
    expected = {}
    for number, (_, column, value, code) in enumerate(BAD):
        if code in ("23505", "23P01") and by_key:
            continue  # of two rows with one key the last counts, and with the first its slot is gone
        # Where it is found among staged rows, it is as the server writes it.
        expected[2 * number + first + 1] = (column, "-1.00" if by_key and value == "-1" else value, code)
    found = rejected(tmp_path / "items.rejects.csv", given)
    assert told(found) == expected
    assert result.rejected == len(expected)
    good = {int(row[0]) for row in rows()[::2]} | ({24} if by_key else set())
    assert database.execute("SELECT array_agg(id ORDER BY id) FROM items").fetchone() == (sorted(good),)
    assert [row["_harborctl_file"] for row in found] == [str(path)] * len(found)
    kept = [[row[name] for name in HEADER] for row in found]
    assert kept == [rows()[line - first] for line in expected]


def test_the_whole_chain(database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, name varchar(5), note text)")
    lines = [
        "id,name,note",
        "1,a,x",
        "2,b",
        "3,c,x,y",
        "4,d,x",
        "5,e,x",
        'x,f,"two\nlines"',
        "7,toolong,x",
        "8,caf\udce9,x",
        "9,i,x",
        '10,"j,x',
    ]
    path = tmp_path / "t.csv"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    result = load(engine, path, table="t", writer=writer)
    assert (result.inserted, result.rejected) == (4, 6), result.reject_reasons
    rejects = tmp_path / "t.rejects.csv"
    # Loaded as it is, everything is rejected again, and nothing else.
    again = load(engine, rejects, table="t", writer=writer)
    assert (again.inserted, again.rejected, again.reject_file) == (0, 6, "t.rejects.rejects.csv")


def test_a_fixed_file_loads(database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, name varchar(5), note text)")
    path = tmp_path / "t.csv"
    path.write_text('id,name,note\n1,a,x\n2,b\n3,"c",x,y\n4,d,"x ""y""\nz"\n5,toolong,\n6,"open,x\n7,g,x')
    result = load(engine, path, table="t", writer=writer)
    assert (result.inserted, result.rejected) == (3, 4), result.reject_reasons
    rows = rejected(tmp_path / "t.rejects.csv")
    assert [(row["_harborctl_line"], row["_harborctl_raw"]) for row in rows] == [
        ("3", "2,b"), ("4", '3,"c",x,y'), ("7", ""), ("8", '6,"open,x'),
    ]  # fmt: skip
    for row in rows:
        raw = row["_harborctl_raw"]
        if raw == "2,b":  # put right in place
            row["_harborctl_raw"] = "2,b,x"
        elif raw.startswith("3"):  # put into the fields
            row.update(id="3", name="c", note="x,y", _harborctl_raw="")
        elif raw:
            row["_harborctl_raw"] = raw.replace('"', "")
        else:
            row["name"] = "short"
    fixed = io.StringIO()
    writing = csv.DictWriter(fixed, rows[0], lineterminator="\n")
    writing.writeheader()
    writing.writerows(rows)
    (tmp_path / "fixed.csv").write_text(fixed.getvalue())
    assert load(engine, tmp_path / "fixed.csv", table="t", writer=writer).inserted == 4
    assert database.execute("SELECT * FROM t ORDER BY 1").fetchall() == [
        (1, "a", "x"), (2, "b", "x"), (3, "c", "x,y"), (4, "d", 'x "y"\nz'), (5, "short", None), (6, "open", "x")
        , (7, "g", "x"),
    ]  # fmt: skip


def test_parquet(database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, price numeric(4,1) CHECK (price >= 0), note text)")
    table = pa.table(
        {"id": [1, 2**40, 3, 4, 1], "price": [1.5, 1.5, 1.55, -1.0, 2.0], "note": ["a", "b", "c", "d\n", ""]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    result = load(engine, tmp_path / "t.parquet", table="t", writer=writer)
    assert (result.inserted, result.rejected) == (1, 4)
    found = pq.read_table("t.rejects.parquet")
    assert found.select(["id", "price", "note"]).to_pylist() == table.slice(1).to_pylist()
    assert found.schema.field("price").type == pa.float64()
    reasons = [(row["_harborctl_line"], row["_harborctl_column"], row["_harborctl_code"]) for row in found.to_pylist()]
    assert reasons == [(2, "id", "22003"), (3, "price", "22003"), (4, "price", "23514"), (5, "id", "23505")]
    fixed = found.set_column(0, "id", [[2, 3, 4, 5]]).set_column(1, "price", [[1.5, 1.5, 1.0, 2.0]])
    pq.write_table(fixed, tmp_path / "fixed.parquet")
    assert load(engine, tmp_path / "fixed.parquet", table="t", writer=writer).inserted == 4


def test_rows_that_refer_to_rows_further_down(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str
) -> None:
    database.execute("CREATE TABLE staff (id integer PRIMARY KEY, boss integer REFERENCES staff)")
    text = "id,boss\n1,2\n2,1\n3,9\n4,3\n5,6\n6,\nx,1\n"
    (tmp_path / "staff.csv").write_text(text)
    load(engine, tmp_path / "staff.csv", table="staff", writer=writer)
    assert [row["id"] for row in rejected(tmp_path / "staff.rejects.csv")] == ["3", "4", "x"]
    assert database.execute("SELECT array_agg(id ORDER BY id) FROM staff").fetchone() == ([1, 2, 5, 6],)


def test_several_files_that_break_a_constraint_and_hold_unreadable_values(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, price integer CHECK (price >= 0))")
    bad = {10: "-1", 20: "-1", 30: "-1", 40: "-1", 50: "x", 60: "99999999999"}
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    for number, path in enumerate(paths):
        lines = (f"{number * 100 + n},{bad.get(n, '1')}\n" for n in range(100))
        path.write_text("id,price\n" + "".join(lines))
    result = load(engine, *paths, table="t", writer=writer)
    assert (result.inserted, result.rejected) == (282, 18)
    found = [(row["id"], row["price"]) for row in rejected(tmp_path / "t.rejects.csv")]
    assert found == [(str(100 * file + n), price) for file in range(3) for n, price in bad.items()]


# -- limits, checks, and where the file goes


@pytest.fixture
def things(database: Database, tmp_path: Path) -> Path:
    database.execute("CREATE TABLE things (id integer PRIMARY KEY, price integer)")
    path = tmp_path / "things.csv"
    path.write_text("id,price\n1,10\nx,10\n3,-5\n4,\n5,y\n")
    return path


def count(database: Database, table: str = "things") -> int:
    row = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def test_what_a_user_sees(database: Database, things: Path, invoke: Invoke, writer: str) -> None:
    arguments = ("load", "things.csv", "--on-error", "reject", "--writer", writer)
    done = invoke(*arguments, "--json")
    summary = json.loads(done.stdout)
    assert (done.code, done.stderr, summary["status"]) == (4, "", "loaded_with_rejects")
    assert (summary["rows_read"], summary["inserted"], summary["rejected"]) == (5, 3, 2)
    assert (summary["reject_file"], summary["files"][0]["rows"]) == ("things.rejects.csv", 5)
    assert [(r["code"], r["column"], r["count"], r["line"], r["value"]) for r in summary["reject_reasons"]] == [
        ("22P02", "id", 1, 3, "x"), ("22P02", "price", 1, 6, "y"),
    ]  # fmt: skip
    recorded = "SELECT status, rejected, reject_file, rows_read FROM harborctl.loads"
    assert database.execute(recorded).fetchall() == [("loaded_with_rejects", 2, "things.rejects.csv", 5)]
    database.execute("TRUNCATE things")
    refused = invoke(*arguments, "--json", "--again")
    assert failure(refused, 2)["code"] == "reject_file_exists"
    assert count(database) == 0
    shown = invoke(*arguments, "--force", "--again")
    assert shown.code == 4
    reason = '1 x 22P02 column id: invalid input syntax for type integer: "x" (first: things.csv, line 3)'
    assert reason in shown.stdout
    assert "The rejected rows are in things.rejects.csv." in shown.stdout
    dry = invoke(*arguments, "--again", "--dry-run", "--json")
    assert (dry.code, json.loads(dry.stdout)["rejected"], json.loads(dry.stdout)["reject_file"]) == (0, 2 + 3, None)


@pytest.mark.parametrize(("limit", "code"), [("1", 1), ("2", 4), ("39%", 1), ("40%", 4), ("0", 1)])
def test_too_many_rejects(
    database: Database, things: Path, invoke: Invoke, tmp_path: Path, limit: str, code: int
) -> None:
    done = invoke("load", "things.csv", "--on-error", "reject", "--max-rejects", limit, "--json")
    assert done.code == code
    summary = json.loads(done.stdout)
    assert summary["reject_file"] == "things.rejects.csv"
    assert len(rejected(tmp_path / "things.rejects.csv")) == 2
    assert count(database) == (3 if code == 4 else 0)
    if code == 1:
        assert failure(done, 1)["code"] == "too_many_rejects"


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_checks(database: Database, things: Path, invoke: Invoke, tmp_path: Path, writer: str, mode: str) -> None:
    things.write_text("id,price\n1,10\n2,10\n3,-5\n4,\n5,7\n")
    arguments = ("load", "things.csv", "-m", mode, "--writer", writer, "--json", "--check", "price >= 0")
    error = failure(invoke(*arguments), 1)
    assert (error["code"], error["line"], count(database)) == ("check", 4, 0)
    done = invoke(*arguments, "--on-error", "reject", "--check", "100 / (price - 7) < 50 -- %")
    assert done.code == 4, done
    assert [(row["id"], row["_harborctl_code"]) for row in rejected(tmp_path / "things.rejects.csv")] == [
        ("3", "check"), ("5", "22012"),
    ]  # fmt: skip
    assert count(database) == 3
    once_more = (*arguments, "--again")
    wrong = failure(invoke(*once_more, "--check", "price >> > 0"), 2)
    assert (wrong["code"], "at character 10" in wrong["message"]) == ("42601", True)
    assert failure(invoke(*once_more, "--check", "prize > 0"), 2)["code"] == "42703"
    assert failure(invoke(*once_more, "--check", "true); DROP TABLE things; SELECT (true"), 2)["code"] == "42601"
    assert count(database) == 3


@pytest.mark.parametrize(("expected", "code"), [("5", 0), ("1..5", 0), ("6..", 1), ("..4", 1), ("..", 2), ("9..8", 2)])
def test_expected_rows(database: Database, things: Path, invoke: Invoke, expected: str, code: int) -> None:
    things.write_text("id,price\n1,1\n2,1\n3,1\n4,1\n5,1\n")
    assert invoke("load", "things.csv", "--expect-rows", expected).code == code
    assert count(database) == (5 if code == 0 else 0)


def test_every_row_is_bad(database: Database, things: Path, invoke: Invoke, writer: str) -> None:
    things.write_text("id,price\n" + "".join(f"x{n},y\n" for n in range(5000)))
    done = invoke("load", "things.csv", "--on-error", "reject", "--writer", writer, "--json")
    summary = json.loads(done.stdout)
    assert (done.code, summary["rejected"], summary["inserted"], count(database)) == (4, 5000, 0, 0)


@pytest.mark.parametrize("mode", ["append", "ignore", "upsert"])
def test_many_rows_that_only_the_server_can_refuse(
    database: Database, things: Path, invoke: Invoke, writer: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("""
        CREATE SEQUENCE attempts; CREATE SEQUENCE looked_at;
        CREATE FUNCTION attempt() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM nextval('attempts'); RETURN NULL; END $$;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM nextval('looked_at');
                IF NEW.id % 2 = 1 THEN RAISE EXCEPTION 'odd' USING ERRCODE = 'ZZ001'; END IF;
                RETURN NEW;
            END $$;
        CREATE TRIGGER attempt BEFORE INSERT ON things FOR EACH STATEMENT EXECUTE FUNCTION attempt();
        CREATE TRIGGER refuse BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    rows, most = (4000, MOST_SAVEPOINTS) if mode == "append" else (200, 10)  # a merge takes longer than a COPY
    monkeypatch.setattr(merge_isolate, "MOST_SAVEPOINTS", most)
    things.write_text("id,price\n" + "".join(f"{n},1\n" for n in range(rows)))
    given = ("--mode", mode, "--on-error", "reject", "--writer", writer, "--json")
    done = invoke("load", "things.csv", *given)
    summary = json.loads(done.stdout)
    half = rows // 2
    assert (done.code, summary["rejected"], summary["inserted"], count(database)) == (4, half, half, half)
    assert {row["id"] for row in rejected(things.parent / "things.rejects.csv")} == {str(n) for n in range(1, rows, 2)}
    # Each savepoint that stays takes a lock of the server, which does not have many.
    [(savepoints,)] = database.execute("SELECT count(DISTINCT xmin::text) FROM things")
    assert savepoints <= most + 10
    # A good row is looked at with the bad one behind it, and once more without it.
    [(attempts, looked_at)] = database.execute("SELECT a.last_value, b.last_value FROM attempts a, looked_at b")
    assert (attempts < 2 * rows, looked_at < 3 * rows) == (True, True), (attempts, looked_at)


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rows_that_a_query_finds_far_from_the_one_that_was_refused(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke, writer: str, mode: str
) -> None:
    # No query finds row 1. While it is sought, one finds 3 and 8, which stands where nobody has looked yet.
    monkeypatch.chdir(tmp_path)
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer CHECK (n >= 0),"
        " g smallint GENERATED ALWAYS AS (n * 500) STORED)"
    )
    Path("t.csv").write_text("id,n\n1,100\n2,1\n3,-1\n4,1\n5,1\n6,1\n7,1\n8,-1\n")
    done = invoke("load", "t.csv", "--mode", mode, "--on-error", "reject", "--writer", writer, "--json")
    summary = json.loads(done.stdout)
    assert [summary[name] for name in ("inserted", "unchanged", "rejected")] == [5, 0, 3], done
    assert {row["id"] for row in rejected(Path("t.rejects.csv"))} == {"1", "3", "8"}


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_what_no_row_can_be_blamed_for(
    database: Database, things: Path, invoke: Invoke, writer: str, mode: str
) -> None:
    things.write_text("id,price\n1,1\n2,1\n")
    for code in ("0A000", "2D000", "53200", "55000", "58030"):
        database.execute(f"""
            CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'never' USING ERRCODE = '{code}'; END $$;
            CREATE OR REPLACE TRIGGER refuse AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION refuse();
        """)
        arguments = ("--on-error", "reject", "--writer", writer, "--mode", mode, "--retries", "0", "--json")
        assert failure(invoke("load", "things.csv", *arguments), 1)["code"] == code
        assert not list(things.parent.glob("*rejects*"))


def test_parts_of_parts_do_not_nest() -> None:
    batch = Batch(
        pa.record_batch({"n": pa.array(range(9000))}),
        "n.csv",
        lambda row: row + 2,
        as_read=lambda: pa.record_batch({"n": pa.array(map(str, range(9000)))}),
        row_of=lambda row: row,
    )
    for _ in range(2000):
        batch = stretch(batch, 1, batch.records.num_rows)
        batch = taken(batch, range(1, batch.records.num_rows))
    batch = taken(batch, [4, 2, 0])
    assert batch.as_read is not None
    assert batch.records["n"].to_pylist() == [4004, 4002, 4000]
    assert batch.as_read()["n"].to_pylist() == ["4004", "4002", "4000"]
    assert ([batch.line_of(n) for n in range(3)], batch.row_of(1)) == ([4006, 4004, 4002], 4002)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_reject_file_that_cannot_be_written(
    database: Database, things: Path, invoke: Invoke, small_disk: Path
) -> None:
    things.write_text("id,price\n" + "".join(f"x{n},1\n{n},1\n" for n in range(2000)))
    arguments = ("load", "things.csv", "--on-error", "reject", "--json", "--reject-file")
    full = failure(invoke(*arguments, small_disk / "r.csv"), 1)
    assert (full["code"], "No space left" in full["message"]) == ("cannot_write", True)
    assert os.listdir(small_disk) == []  # noqa: PTH208
    for nowhere in ("nowhere/r.csv", "-", "", "/dev/null"):
        assert failure(invoke(*arguments, nowhere, "--force"), 2)["code"] == "bad_output"
    assert count(database) == 0


def test_a_failed_load_leaves_no_reject_file(database: Database, things: Path, invoke: Invoke, tmp_path: Path) -> None:
    # What fails at the commit, when the file is there already.
    database.execute("ALTER TABLE harborctl.loads ADD CONSTRAINT never CHECK (status <> 'loaded_with_rejects')")
    assert failure(invoke("load", "things.csv", "--on-error", "reject", "--json"), 1)["code"] == "23514"
    assert not list(tmp_path.glob("*rejects*"))
    assert count(database) == 0


def test_further_bad_rows_are_named(database: Database, things: Path, invoke: Invoke, writer: str) -> None:
    lines = [f"{n},{n}" for n in range(3000)]
    for number in (100, 200, 1500, 2900):
        lines[number] = f"x{number},1"
    lines[2000] = "1,2,3"
    lines[2500] = ",1"
    things.write_text("id,price\n" + "\n".join(lines) + "\n")
    done = invoke("load", "things.csv", "--writer", writer, "--json")
    errors = [failure(done, 1), *json.loads(done.stdout)["errors"]]
    assert {error["line"] for error in errors} == {102, 202, 1502, 2002, 2502, 2902}
    assert done.stderr.count("also: things.csv, line ") == 5
    assert count(database) == 0


# -- targets that take rows by INSERT only


@pytest.fixture
def limited(database: Database, database_url: str) -> Iterator[sqlalchemy.Engine]:
    """A role that may write rows with a small share only, into the table and through views."""
    role, columns = f"limited_{database.info.dbname}", ", ".join(HEADER)
    view = f"AS SELECT {columns} FROM items WHERE share < 50"
    database.execute(
        f"{TABLE}; CREATE ROLE {role}; GRANT ALL ON SCHEMA public TO {role};"
        f"ALTER TABLE items ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY small ON items TO {role} USING (true) WITH CHECK (share < 50);"
        f"CREATE VIEW checked {view} WITH CHECK OPTION; CREATE VIEW invoked WITH (security_invoker) {view};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
    )
    engine = engine_as(database_url, role)
    yield engine
    engine.dispose()
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("table", "mode"),
    [("items", "append"), ("items", "ignore"), ("items", "upsert"), ("checked", "append"), ("invoked", "append")],
)
def test_policies_and_views(
    database: Database, limited: sqlalchemy.Engine, tmp_path: Path, writer: str, table: str, mode: str
) -> None:
    large = ["30", *GOOD[1:]]
    large[HEADER.index("share")] = "60"
    write_csv(tmp_path / "items.csv", CsvDialect(), "\n", [*rows(), large])
    result = load(limited, tmp_path / "items.csv", table=table, mode=mode, writer=writer)
    expected: dict[int, tuple[str | None, str | None, str]] = {}
    for number, (_, column, value, code) in enumerate(BAD):
        if mode != "append" and code in ("23505", "23P01"):
            continue
        # Nobody knows what the constraints of a view are on; of a domain's the value tells.
        is_blamed = table == "items" or column == "share" or code not in ("23503", "23505", "23514", "23P01")
        shown = "-1.00" if mode != "append" and value == "-1" else value
        expected[2 * number + 3] = (column, shown, code) if is_blamed else (None, None, code)
    expected[31] = (None, None, "44000" if table == "checked" else "42501")
    assert told(rejected(tmp_path / "items.rejects.csv")) == expected
    assert count(database, "items") == 30 - len(expected) - (mode != "append") == result.inserted


@pytest.mark.parametrize("mode", ["append", "ignore", "upsert"])
def test_a_missing_privilege_is_no_fault_of_the_rows(
    database: Database, limited: sqlalchemy.Engine, tmp_path: Path, writer: str, mode: str
) -> None:
    database.execute(
        f"REVOKE {'UPDATE' if mode == 'upsert' else 'INSERT'} ON items FROM limited_{database.info.dbname}"
    )
    (tmp_path / "items.csv").write_text("id,name,share\n1,a,1\n2,b,60\n3,c,1\n")
    error = refusal(lambda: load(limited, tmp_path / "items.csv", mode=mode, writer=writer))
    assert (error.code, "permission denied" in error.message) == ("42501", True)
    assert not list(tmp_path.glob("*rejects*"))
    assert count(database, "items") == 0
