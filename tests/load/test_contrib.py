"""Keys of types and collations that the wheel's PostgreSQL lacks: citext and ltree, and collations of ICU.

They run on Debian's PostgreSQL, of which the newest with contrib is taken, and are skipped where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.embedded.programs import Programs, find_programs
from harborctl.model import Limit
from tests.conftest import engine_of
from tests.db.servers import password_server
from tests.load.direct import LoadRows, counts, rows_loader

__all__ = ["rows_loader"]

DEBIAN = Path("/usr/lib/postgresql")
EXTENSIONS = ("citext", "ltree")
ALL = Limit(percent=100)


def _newest() -> Path | None:
    found = [
        folder
        for folder in DEBIAN.glob("[0-9]*")
        if (folder / "bin" / "initdb").exists()
        and all(
            (Path("/usr/share/postgresql") / folder.name / f"extension/{name}.control").exists() for name in EXTENSIONS
        )
    ]
    return max(found, key=lambda folder: int(folder.name), default=None)


@pytest.fixture(scope="module")
def contrib_url() -> Iterator[str]:
    folder = _newest()
    if folder is None:
        pytest.skip(f"no PostgreSQL with contrib in {DEBIAN}: apt-get install postgresql")
    with password_server(Programs(folder.name, folder, find_programs().account)) as server:
        yield server.url()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reject files go there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def contrib(contrib_url: str) -> Iterator[psycopg.Connection[Any]]:
    """An empty database with the extensions in a schema of their own, which is not on the search path."""
    with psycopg.connect(contrib_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS far CASCADE")
        connection.execute("CREATE SCHEMA far; DROP COLLATION IF EXISTS public.loose")
        for name in EXTENSIONS:
            connection.execute(f"CREATE EXTENSION {name} SCHEMA far")
        yield connection


@pytest.fixture
def engine(contrib_url: str) -> Iterator[sqlalchemy.Engine]:
    """Instead of the embedded server's."""
    engine = engine_of(contrib_url)
    yield engine
    engine.dispose()


def rows_of(contrib: psycopg.Connection[Any], query: str) -> list[Any]:
    return contrib.execute(query).fetchall()


@pytest.mark.parametrize("on_error", ["abort", "reject"])
def test_a_key_of_citext_outside_of_the_search_path(
    contrib: psycopg.Connection[Any], load_rows: LoadRows, writer: str, on_error: str
) -> None:
    contrib.execute("CREATE TABLE t (k far.citext PRIMARY KEY, v text, kept text)")
    contrib.execute("INSERT INTO t VALUES ('Abc', 'a', 'x'), ('Def', 'b', 'y'), ('Ghi', 'c', 'z')")
    before = rows_of(contrib, "SELECT xmin::text, ctid::text FROM t WHERE k OPERATOR(far.=) 'abc'")
    result = load_rows("k,v\nABC,a\ndef,B\n", "t", "upsert", writer=writer, on_error=on_error)
    assert counts(result) == {"unchanged": 1, "updated": 1}
    assert rows_of(contrib, "SELECT xmin::text, ctid::text FROM t WHERE k OPERATOR(far.=) 'abc'") == before
    result = load_rows(
        "k,v\nabc,a\nDEF,B\nDef,n\nnew,n\n", "t", "sync", writer=writer, max_delete=ALL, on_error=on_error
    )
    assert counts(result) == {"unchanged": 1, "updated": 1, "inserted": 1, "duplicates": 1, "deleted": 1}
    assert rows_of(contrib, "SELECT k::text, v, kept FROM t ORDER BY v, 1") == [
        ("Abc", "a", "x"), ("Def", "n", "y"), ("new", "n", None),
    ]  # fmt: skip


def test_a_value_of_citext_differs_by_its_letters(
    contrib: psycopg.Connection[Any], load_rows: LoadRows, writer: str
) -> None:
    contrib.execute("CREATE TABLE t (id integer PRIMARY KEY, v far.citext, w far.citext[], p far.ltree)")
    feed = "id,v,w,p\n1,Abc,{Abc},a.b\n"
    for text, account in ((feed, "inserted"), (feed, "unchanged"), (feed.replace("1,A", "1,a"), "updated"),
                          (feed.replace("{A", "{a"), "updated"), (feed.replace("a.b", "a.c"), "updated")):  # fmt: skip
        if account == "updated":
            load_rows(feed, "t", "upsert", writer=writer)
        assert counts(load_rows(text, "t", "upsert", writer=writer)) == {account: 1}, text


@pytest.mark.parametrize("mode", ["upsert", "sync", "ignore"])
def test_a_key_of_ltree(contrib: psycopg.Connection[Any], load_rows: LoadRows, writer: str, mode: str) -> None:
    contrib.execute("CREATE TABLE t (p far.ltree PRIMARY KEY, v text); INSERT INTO t VALUES ('a.b', 'x'), ('a.c', 'y')")
    account = counts(load_rows("p,v\na.b,x\na.c,n\na.d,n\n", "t", mode, writer=writer))
    assert account == (
        {"inserted": 1, "skipped": 2} if mode == "ignore" else {"inserted": 1, "updated": 1, "unchanged": 1}
    )


@pytest.mark.parametrize("folded_first", [False, True])
def test_an_index_that_calls_more_the_same_is_not_the_arbiter(
    contrib: psycopg.Connection[Any], load_rows: LoadRows, writer: str, folded_first: bool
) -> None:
    contrib.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    indexes = ["CREATE UNIQUE INDEX exact ON t (k)", "CREATE UNIQUE INDEX folded ON t (k COLLATE loose)"]
    contrib.execute("CREATE TABLE t (k text NOT NULL, v text)")
    for statement in reversed(indexes) if folded_first else indexes:
        contrib.execute(statement)
    contrib.execute("INSERT INTO t VALUES ('abc', 'old')")
    result = load_rows("k,v\nABC,new\nd,new\n", "t", "upsert", key=("k",), writer=writer, on_error="reject")
    assert counts(result) == {"inserted": 1, "rejected": 1}
    assert rows_of(contrib, "SELECT k, v FROM t ORDER BY k") == [("abc", "old"), ("d", "new")]


@pytest.mark.parametrize("on_error", ["abort", "reject"])
def test_a_key_with_a_collation_that_folds(
    contrib: psycopg.Connection[Any], load_rows: LoadRows, writer: str, on_error: str
) -> None:
    contrib.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    contrib.execute("CREATE TABLE t (k text COLLATE loose PRIMARY KEY, v text COLLATE loose, kept text)")
    contrib.execute("INSERT INTO t VALUES ('abc', 'a', 'x'), ('def', 'b', 'y')")
    result = load_rows("k,v\nABC,a\nDEF,B\n", "t", "sync", writer=writer, max_delete=ALL, on_error=on_error)
    assert counts(result) == {"unchanged": 1, "updated": 1}
    assert rows_of(contrib, "SELECT k, v, kept FROM t ORDER BY v") == [("abc", "a", "x"), ("def", "B", "y")]
