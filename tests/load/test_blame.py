"""Where the server does not say which row it was, the error says so all the same: file, line, column and value."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.errors import Location
from tests.inprocess import Invoke, invoke
from tests.load.conftest import failure
from tests.load.direct import LoadRows, refusal, rows_loader

__all__ = ["invoke", "rows_loader"]

Database = psycopg.Connection[Any]

TABLES = """
    CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1);
    CREATE TABLE t (id integer PRIMARY KEY, r integer REFERENCES other, v text CHECK (v <> 'bad'),
                    w integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE VIEW few AS SELECT id, r, v, w FROM t WHERE id < 100 WITH CHECK OPTION;
    INSERT INTO t VALUES (1, 1, 'old', 1), (2, 1, 'old', 2);
"""


@pytest.mark.parametrize("table", ["t", "few"])
@pytest.mark.parametrize("mode", ["append", "upsert", "sync"])
def test_errors_have_a_place(
    database: Database, load_rows: LoadRows, writer: str, mode: str, table: str, tmp_path: Path
) -> None:
    if table == "few" and mode != "append":
        pytest.skip("a view has no key")
    database.execute(TABLES)
    if mode == "append":
        database.execute("DELETE FROM t")
    good = '1,1,"a\nb",1\n1,1,a,1\n2,1,a,2\n' if mode == "upsert" else '1,1,"a\nb",1\n2,1,a,2\n'
    line = 6 if mode == "upsert" else 5
    cases: list[tuple[str, str, str | None, str | None]] = [
        ("3,7,a,3", "23503", "r", "7"),
        ("3,1,bad,3", "23514", "v", "bad"),
        ("3,1,a,2", "23505", "w", "2"),
    ]
    if table == "few":
        cases.append(("300,1,a,3", "44000", None, None))
    for record, code, column, value in cases:
        feed = f"id,r,v,w\n{good}{record}\n4,1,a,4\n"
        error = refusal(partial(load_rows, feed, table, mode, writer=writer))
        place = Location(str(tmp_path / "rows.csv"), line)
        assert (error.code, error.location) == (code, place), error.message
        # Where the server says which row it is, it does not say which columns its constraint is on.
        told = (error.column, error.value)
        assert told == (column, value) or (mode == "append" and code[:2] == "23" and told == (None, None))
        assert "--on-error reject" in error.hint
    left = 0 if mode == "append" else 2
    assert database.execute("SELECT count(*) FROM t WHERE v = 'old'").fetchone() == (left,)


def test_of_several_files_the_first(database: Database, invoke: Invoke, tmp_path: Path, writer: str) -> None:
    database.execute(TABLES)
    for name, text in (("b", "id,r\n5,1\n"), ("a", "r,id\n1,6\n8,7\n9,8\n"), ("c", "id,r\n9,9\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    for mode in ("append", "upsert"):
        given = ("load", "b.csv", "a.csv", "c.csv", "-t", "t", "-m", mode, "--writer", writer, "--json")
        error = failure(invoke(*given), 1)
        assert (error["code"], error["file"], error["line"]) == ("23503", "a.csv", 3)
        assert not list(tmp_path.glob("*.rejects.csv"))


def test_a_load_of_which_chunks_are_in(database: Database, invoke: Invoke, tmp_path: Path, writer: str) -> None:
    database.execute(TABLES)
    (tmp_path / "t.csv").write_text("id,r\n3,1\n4,1\n5,1\n6,1\n7,1\n8,7\n")
    given = ("load", "t.csv", "-m", "upsert", "--commit-every", "2", "--writer", writer, "--json")
    error = failure(invoke(*given), 1)
    assert (error["code"], error["file"], error["line"], error["value"]) == ("23503", "t.csv", 7, "7")
    assert database.execute("SELECT count(*) FROM t").fetchone() == (6,)


@pytest.fixture
def latin(database: Database, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[str]:
    """A database in LATIN1."""
    name = f"{database.info.dbname}_latin"
    database.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = database_url.replace(database.info.dbname, name)
    with psycopg.connect(url, autocommit=True) as there:
        there.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    yield url
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_in_latin1(latin: str, invoke: Invoke, tmp_path: Path, writer: str) -> None:
    (tmp_path / "t.csv").write_text('id,v\n1,"ä\né"\n2,日本\n3,c\n')
    for mode in ("append", "upsert", "sync", "replace"):
        given = ("load", "t.csv", "-m", mode, "--writer", writer, "--json", "--no-ledger")
        error = failure(invoke(*given, env={"HARBORCTL_URL": latin}), 1)
        assert (error["code"], error["line"], error["column"], error["value"]) == ("22P05", 4, "v", "日本")


def test_a_trigger_that_refuses_all_rows(database: Database, load_rows: LoadRows, writer: str) -> None:
    """Not each of them is tried alone to name one."""
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE SEQUENCE tried;"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM nextval(''public.tried''); RAISE ''not today''; END';"
        "CREATE TRIGGER refuse AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    feed = "id,v\n" + "".join(f"{n},a\n" for n in range(5000))
    for mode in ("append", "upsert"):
        error = refusal(partial(load_rows, feed, "t", mode, writer=writer))
        assert (error.code, error.location and error.location.line) == ("P0001", 2)
    tried = database.execute("SELECT last_value FROM tried").fetchone()
    assert tried
    assert tried[0] < 1000
