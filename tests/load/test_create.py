"""`load --create`: the missing table is made of the file, in the load's transaction, and nothing is lost."""

from __future__ import annotations

import csv
import io
import json
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Harborctl
from tests.inprocess import Invoke
from tests.load.conftest import Load, failure

PEOPLE = """\
id,zip,name,born,seen,weight,ok
1,01234,Ann,2020-01-02,2024-05-01 10:00:00,1.50,true
2,99999,NA,2021-02-03,2024-05-01 11:30:00,20.25,false
3,,,,,,
"""

Database = psycopg.Connection[Any]


def columns(database: Database, table: str) -> dict[str, str]:
    """The columns of a table, and their types as the server writes them."""
    rows = database.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [table],
    )
    return dict(rows.fetchall())


def tables(database: Database) -> list[str]:
    """All tables of schema public."""
    rows = database.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    return [name for (name,) in rows]


def exported(database: Database, table: str) -> str:
    """What COPY writes of it."""
    with database.cursor().copy(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)") as copy:
        return b"".join(bytes(block) for block in copy).decode()


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A file with a column of most kinds."""
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    return path


def test_a_file_becomes_a_table_of_its_name_and_comes_out_again(
    load: Load, database: Database, people: Path, writer: str
) -> None:
    summary = load(people, "--create", "--key", "id", "--writer", writer)
    assert (summary["status"], summary["table"], summary["inserted"]) == ("loaded", "public.people", 3)
    assert columns(database, "people") == {
        "id": "smallint",
        "zip": "text",
        "name": "text",
        "born": "date",
        "seen": "timestamp without time zone",
        "weight": "numeric(4,2)",
        "ok": "boolean",
    }
    assert exported(database, "people").replace(",t\n", ",true\n").replace(",f\n", ",false\n") == PEOPLE
    # The statement is told, and makes the same table.
    database.execute("CREATE SCHEMA other")
    database.execute(summary["created"].replace('"public".', '"other".'))
    assert columns(database, "other.people") == columns(database, "people")
    keys = database.execute("SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
                            " WHERE contype = 'p' AND conrelid::regclass::text LIKE '%people'").fetchall()  # fmt: skip
    assert sorted(keys) == [("other.people", "PRIMARY KEY (id)"), ("people", "PRIMARY KEY (id)")]
    # It is an ordinary load: the second time there is nothing to do, and nothing to make.
    again = load(people, "--create", "--key", "id", "--writer", writer)
    assert (again["status"], again["created"]) == ("already_loaded", None)
    assert load(people, "--create", "--mode", "upsert", "--key", "id")["unchanged"] == 3


def test_every_mode_makes_the_table(load: Load, database: Database, people: Path, writer: str) -> None:
    for mode in ("append", "ignore", "upsert", "sync", "replace"):
        summary = load(people, "-t", f"Into_{mode}", "--create", "--mode", mode, "--key", "id", "--writer", writer)
        assert (summary["inserted"], summary["table"]) == (3, f"public.into_{mode}")
        assert "PRIMARY KEY" in summary["created"]
        assert database.execute(f"SELECT count(*) FROM into_{mode}").fetchone() == (3,)


def test_a_dry_run_tells_and_leaves_no_table(invoke: Invoke, database: Database, people: Path) -> None:
    result = invoke("load", people, "--create", "--dry-run")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith('CREATE TABLE "public"."people" (\n    "id" smallint,\n')
    assert tables(database) == []


def test_a_load_that_fails_leaves_no_table(invoke: Invoke, database: Database, tmp_path: Path, writer: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("id,n\n1,1\n1,2\n2\n")
    for options in ((), ("--key", "id"), ("--on-error", "reject", "--max-rejects", "0")):
        error = failure(invoke("load", path, "--create", "--writer", writer, "--json", *options), 1)
        assert error["code"] in {"22P04", "too_many_rejects"}
        assert tables(database) == []
    assert database.execute("SELECT DISTINCT status, target_table FROM harborctl.loads").fetchall() == [
        ("failed", "bad")
    ]


def test_rows_of_one_key_are_named_and_can_be_put_aside(
    invoke: Invoke, database: Database, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("id,n\n1,a\n2,b\n1,c\n,d\n")
    command = ("load", path, "--create", "--key", "id", "--writer", writer, "--json")
    error = failure(invoke(*command), 1)
    assert (error["code"], error["line"]) in {("23505", 4), ("23502", 5)}
    assert tables(database) == []
    result = invoke(*command, "--on-error", "reject")
    assert (result.code, json.loads(result.stdout)["rejected"]) == (4, 2)
    assert exported(database, "twice") == "id,n\n1,a\n2,b\n"


def test_without_create_the_error_shows_the_command(invoke: Invoke, people: Path) -> None:
    error = failure(invoke("load", people, "--json"), 2)
    assert f"harborctl load {people} --create makes it" in error["hint"]
    error = failure(invoke("load", people, "-t", "a b", "--json"), 2)
    assert f"harborctl load {people} -t 'a b' --create makes it" in error["hint"]
    assert "With --create the same command" in failure(invoke("load", people, "--null", "NA", "--json"), 2)["hint"]


def test_options_of_creation_need_it(invoke: Invoke, people: Path) -> None:
    for options in (("--type", "id=text"), ("--names", "snake"), ("--sample-rows", "5")):
        assert "Say --create." in failure_text(invoke("load", people, *options))
    assert "means nothing in mode append" in failure_text(invoke("load", people, "--key", "id"))


def failure_text(result: Any) -> str:
    """What a command that was refused has said."""
    assert result.code == 2
    return str(result.stderr)


def test_types_can_be_named(load: Load, invoke: Invoke, database: Database, people: Path) -> None:
    database.execute("CREATE SCHEMA own; CREATE DOMAIN own.postcode AS text")
    load(people, "--create", "--type", "zip=own.postcode", "--type", "weight=double precision", "--set", "source=7")
    found = columns(database, "people")
    assert (found["zip"], found["weight"], found["source"]) == ("own.postcode", "double precision", "smallint")
    for wrong, code in (
        ("zip=nonsense", "42704"),
        ("zip=text, b text", "42601"),
        ("zip=text); SELECT (1", "42601"),
        ("zap=text", "42703"),
    ):
        error = failure(invoke("load", people, "-t", "other", "--create", "--type", wrong, "--json"), 2)
        assert error["code"] == code
    assert tables(database) == ["people"]


def test_names_become_words_without_quotes(load: Load, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "Sales Orders.csv"
    path.write_text("OrderId,Größe in cm,2nd name,HTTPCode\n1,2,x,4\n")
    for _ in range(2):
        load(path, "--create", "--names", "snake", "--mode", "upsert", "--key", "order_id")
    assert columns(database, "sales_orders") == {
        "order_id": "smallint",
        "grosse_in_cm": "smallint",
        "_2nd_name": "text",
        "http_code": "smallint",
    }
    load(path, "-t", "sales_orders", "--match", "snake", "--mode", "upsert")


def test_match_says_which_names_are_one(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    database.execute('CREATE TABLE t ("Order Id" int, order_id int, other text)')
    path = tmp_path / "t.csv"
    for header, match, code in (
        ("OTHER", "exact", 2),
        ("OTHER", "fold", 0),
        ("order id,other", "fold", 0),
        ("order_id,other", "snake", 0),
        ("OrderId,other", "snake", 2),
    ):
        path.write_text(f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n")
        result = invoke("load", path, "--match", match, "--json")
        assert result.code == code, result
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "42702"
    assert "Order Id or order_id" in error["message"]


NO_TABLE: list[tuple[str, tuple[str, ...], str]] = [
    ("a,A\n1,2\n", (), "42701"),
    ("a;b\n1;2\n", (), "42703"),
    ("a;b\n1,5;2\n", (), "42703"),
    ("a,a\n1,2\n", (), "42701"),
    ("a,,b\n1,2,3\n", (), "42602"),
    ("1,2020-01-01\n2,2020-01-02\n", (), "no_header"),
    (f"{'x' * 64}\n1\n", (), "42622"),
    (",".join(f"c{n}" for n in range(2000)) + "\n", (), "54011"),
    ("", (), "empty_file"),
    ("a\n1\n", ("-t", "nowhere.t"), "3F000"),
    ("a\n1\n", ("--key", "b"), "42703"),
    ("a\n1\n", ("--key", "lower(a)"), "0A000"),
    ("a\n1\n", ("--mode", "upsert"), "no_key"),
    ("a\n1\n", ("--jobs", "2"), "not_divisible"),
    ("a\n1\n", ("--commit-every", "10"), "not_divisible"),
    ("a\n1\n", ("-t", "harborctl.loads2", "--skip-columns", "a"), "42703"),
]


def test_what_no_table_can_be_made_of_is_told(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    for text, options, expected in NO_TABLE:
        path.write_text(text)
        error = failure(invoke("load", path, "--create", "--json", *options), 2)
        assert error["code"] == expected, (text[:50], options, error)
        assert tables(database) == []


def test_strange_names_are_quoted(load: Load, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    names = ["select", 'a"b', "100%", "ünï", "%s", "a.b", "{x}", " spaced "]
    text = io.StringIO()
    csv.writer(text).writerows([names, ["1"] * len(names)])
    path.write_text(text.getvalue())
    load(path, "-t", 'public."Odd ""%s"""', "--create")
    assert list(columns(database, '"Odd ""%s"""')) == names
    assert load(path, "-t", 'public."Odd ""%s"""', "--create", "--again")["created"] is None


def test_files_without_names_get_numbers(load: Load, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("1,x\n2,y\n")
    load(path, "--create", "--no-header")
    assert columns(database, "f") == {"column_1": "smallint", "column_2": "text"}
    load(path, "-t", "g", "--create", "--no-header", "--columns", "id,name")
    assert columns(database, "g") == {"id": "smallint", "name": "text"}
    load(path, "-t", "h", "--create", "--no-header", "--map", "#2=name")
    assert columns(database, "h") == {"column_1": "smallint", "name": "text"}


def test_all_files_of_a_load_tell_the_types(load: Load, invoke: Invoke, database: Database, tmp_path: Path) -> None:
    for number, text in enumerate(("id,v\n1,5\n", "v,id\n0.5,40000\n", "ID,v\n3,6\n")):
        (tmp_path / f"part{number}.csv").write_text(text)
    load(tmp_path / "part*.csv", "-t", "parts", "--create")
    assert columns(database, "parts") == {"id": "integer", "v": "numeric"}
    assert database.execute("SELECT sum(v) FROM parts").fetchone() == (Decimal("11.5"),)
    pq.write_table(pa.table({"id": pa.array([2**40]), "v": pa.array([Decimal("1.25")])}), tmp_path / "x.parquet")
    load(tmp_path / "part*.csv", tmp_path / "x.parquet", "-t", "mixed", "--create")
    assert columns(database, "mixed") == {"id": "bigint", "v": "numeric"}
    pq.write_table(pa.table({"id": [True], "v": [1]}), tmp_path / "y.parquet")
    error = failure(invoke("load", tmp_path / "part*.csv", tmp_path / "y.parquet", "-t", "z", "--create", "--json"), 2)
    assert (error["code"], error["column"]) == ("42804", "id")


def test_json_lines_and_what_is_read_once(load: Load, database: Database, tmp_path: Path) -> None:
    text = '{"id": 1, "name": "a", "tags": ["x"]}\n{"id": 2.5, "more": {"a": 1}}\n'
    summary = load("-", "-t", "j", "--create", "--format", "jsonl", "--key", "id", stdin=text)
    assert summary["files"][0]["path"] == "stdin"
    assert columns(database, "j") == {"id": "numeric", "name": "text", "tags": "jsonb", "more": "jsonb"}
    load("-", "-t", "k", "--create", stdin=PEOPLE)
    assert load("-", "-t", "k", "--create", stdin=PEOPLE)["status"] == "already_loaded"
    assert "Say --table" in failure_text(_invoked(load, "-", "--create"))


def _invoked(load: Load, *arguments: str) -> Any:
    with pytest.raises(AssertionError) as refused:
        load(*arguments, stdin="a\n1\n")
    result = refused.value.args[0]
    return _Said(str(result))


class _Said:
    code = 2

    def __init__(self, stderr: str) -> None:
        self.stderr = stderr


def test_typed_files_are_taken_at_their_word(load: Load, database: Database, tmp_path: Path) -> None:
    table = pa.table(
        {
            "d": pa.array([Decimal("1.50")], pa.decimal128(12, 2)),
            "l": pa.array([[1, 2]], pa.list_(pa.int32())),
            "s": pa.array([{"a": 1}]),
            "t": pa.array([0], pa.timestamp("us", "UTC")),
            "b": pa.array([b"\x00\xff"]),
        }
    )
    pq.write_table(table, tmp_path / "typed.parquet")
    load(tmp_path / "typed.parquet", "--create", "--sample-rows", "1")
    assert list(columns(database, "typed").values()) == [
        "numeric(12,2)",
        "integer[]",
        "jsonb",
        "timestamp with time zone",
        "bytea",
    ]


MISLED = {
    "007": "text",
    "70000": "integer",
    "1.5": "numeric",
    "1e5": "text",
    "99999999999999999999": "numeric(20,0)",
    "7": "smallint",
}


def test_a_sample_that_misleads_costs_time_and_no_character(
    load: Load, database: Database, tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "s.csv"
    for number, (further, expected) in enumerate(MISLED.items()):
        text = "n\n" + "".join(f"{n}\n" for n in range(2000)) + f"{further}\n"
        path.write_text(text)
        options = ("--create", "--sample-rows", "10", "--writer", writer, "--on-error", "reject")
        assert load(path, "-t", f"s{number}", *options)["rejected"] == 0
        assert columns(database, f"s{number}") == {"n": expected}
        assert exported(database, f"s{number}") == text


def test_dialects_say_what_values_are(load: Load, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('a;b;c;d\n1,50;NULL;;"1.234"\n2,25;5;7;5\n')
    load(path, "--create", "--delimiter", ";", "--decimal", ",", "--null", "NULL", "--force-not-null", "c")
    assert columns(database, "d") == {"a": "numeric(3,2)", "b": "smallint", "c": "text", "d": "text"}
    assert exported(database, "d") == 'a,b,c,d\n1.50,,"",1.234\n2.25,5,7,5\n'


def test_of_two_that_make_the_same_table_one_finds_it(harborctl: Harborctl, database: Database, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / f"{name}.csv").write_text("v\n" + "1\n" * 5000)
    results = []
    threads = [
        threading.Thread(
            target=lambda name: results.append(harborctl("load", f"{name}.csv", "-t", "one", "--create", "--json")),
            args=(name,),
        )
        for name in ("x", "y")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summaries = [json.loads(result.stdout) for result in results]
    assert {summary["status"] for summary in summaries} <= {"loaded", "already_loaded"}
    assert sum(summary["created"] is not None for summary in summaries) == 1
    # They hold the same: one of them is in.
    assert database.execute("SELECT count(*) FROM one").fetchone() == (5000,)


def test_a_user_who_may_not_make_tables_is_told(invoke: Invoke, database: Database, people: Path) -> None:
    database.execute("CREATE SCHEMA closed")
    database.execute("DROP ROLE IF EXISTS maker_not")
    database.execute("CREATE ROLE maker_not LOGIN SUPERUSER")
    try:
        database.execute("ALTER ROLE maker_not NOSUPERUSER")
        database.execute("GRANT USAGE ON SCHEMA closed, harborctl TO maker_not")
        database.execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA harborctl TO maker_not")
        url = database.info.dsn
        error = failure(
            invoke("load", people, "-t", "closed.t", "--create", "--json", "--url", _as("maker_not", url, database)), 1
        )
        assert error["code"] == "42501"
        assert "GRANT CREATE ON SCHEMA" in error["hint"]
    finally:
        database.execute("DROP OWNED BY maker_not")
        database.execute("DROP ROLE maker_not")


def _as(user: str, _dsn: str, database: Database) -> str:
    info = database.info
    return f"postgresql:///{info.dbname}?host={info.host}&port={info.port}&user={user}"
