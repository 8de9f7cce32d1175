"""What each mode does to a table, and that its account of it is true."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.model import Limit, OnDuplicate
from tests.conftest import ours
from tests.inprocess import Invoke, invoke
from tests.load.direct import LoadRows, counts, refusal, rows_loader

__all__ = ["invoke", "rows_loader"]

Database = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def items(database: Database) -> None:
    database.execute(
        "CREATE TABLE items (id integer PRIMARY KEY, sku text UNIQUE, name text, seen integer,"
        " created timestamptz DEFAULT '2020-01-01', touched timestamptz DEFAULT '2020-01-01')"
    )


def table(database: Database, what: str = "id, name") -> list[Any]:
    return database.execute(f"SELECT {what} FROM items ORDER BY 1").fetchall()


def versions(database: Database, name: str = "items") -> list[Any]:
    return database.execute(f"SELECT ctid::text, xmin::text, xmax::text FROM {name} ORDER BY 1").fetchall()


OLD = "INSERT INTO items (id, sku, name) VALUES (1, 'a', 'same'), (2, 'b', 'old'), (3, 'c', 'gone')"
FEED = "id,name\n1,same\n2,lost\n2,new\n4,added\n"


def test_each_mode_by_key(database: Database, load_rows: LoadRows, writer: str) -> None:
    expected = {
        "ignore": (
            {"inserted": 1, "skipped": 2, "duplicates": 1},
            [(1, "same"), (2, "old"), (3, "gone"), (4, "added")],
        ),
        "upsert": (
            {"inserted": 1, "updated": 1, "unchanged": 1, "duplicates": 1},
            [(1, "same"), (2, "new"), (3, "gone"), (4, "added")],
        ),
        "sync": (
            {"inserted": 1, "updated": 1, "unchanged": 1, "duplicates": 1, "deleted": 1},
            [(1, "same"), (2, "new"), (4, "added")],
        ),
    }
    for mode, (account, rows) in expected.items():
        database.execute("TRUNCATE items; " + OLD)
        settings = {"max_delete": Limit(percent=50)} if mode == "sync" else {}
        assert counts(load_rows(FEED, "items", mode, writer=writer, **settings)) == account
        assert table(database) == rows


def exported(database: Database, name: str) -> str:
    with database.cursor() as cursor, cursor.copy(f"COPY {name} TO STDOUT (FORMAT csv, HEADER)") as copy:
        return b"".join(bytes(block) for block in copy).decode()


def supports(database: Database, statement: str) -> bool:
    try:
        with database.transaction(force_rollback=True):
            database.execute(statement)
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


FOLDING = "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"


@pytest.mark.parametrize("mode", ["ignore", "upsert", "sync"])
def test_equal_rows_are_not_touched(database: Database, load_rows: LoadRows, writer: str, mode: str) -> None:
    database.execute(
        "CREATE TABLE every (id integer PRIMARY KEY, j json, jb jsonb, p point, b box, n numeric, n2 numeric(9,2),"
        " f float8, i interval, a text[], ja json[], r numrange, c char(5), t tsvector, bits bit(3), x xml)"
    )
    database.execute(
        "INSERT INTO every VALUES (1, '{\"a\": 1}', '{\"a\": 1}', '(1,2)', '(1,2),(3,4)', 1.50, 1.5, 0.1,"
        " '1 day', '{a,NULL}', '{1,2}', '[1.0,2)', 'ab', 'a b', '101', NULL)"
    )
    database.execute("INSERT INTO every (id) VALUES (2)")
    if supports(database, "SELECT CAST('<a/>' AS xml)"):
        database.execute("UPDATE every SET x = '<a/>'")
    database.execute("VACUUM FULL every")
    before = versions(database, "every")
    result = load_rows(exported(database, "every"), "every", mode, writer=writer)
    assert counts(result) == {"skipped" if mode == "ignore" else "unchanged": 2}
    assert versions(database, "every") == before
    database.execute("VACUUM every")  # would remove dead rows, and count them
    sizes = "SELECT n_dead_tup, n_tup_upd - n_tup_hot_upd, pg_relation_size(relid) FROM pg_stat_user_tables"
    assert database.execute(sizes + " WHERE relname = 'every'").fetchone() in [(0, 0, 8192), (0, 2, 8192)]


def test_no_dead_rows_appear(database: Database, load_rows: LoadRows, writer: str) -> None:
    feed = "id,name\n" + "".join(f"{number},x\n" for number in range(3000))
    load_rows(feed, "items", "upsert", writer=writer)
    size = database.execute("SELECT pg_relation_size('items')").fetchone()
    before = versions(database)
    for mode in ("upsert", "sync", "ignore"):
        load_rows(feed, "items", mode, writer=writer)
    assert versions(database) == before
    # Any row version written since would have taken room.
    load_rows("id,name\n-1,x\n", "items", "upsert", writer=writer)
    assert database.execute("SELECT pg_relation_size('items')").fetchone() == size


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("json", '{"a":1}', '{"a": 1}'),
        ("xml", "<a/>", "<b/>"),
        ("point", "(1,2)", "(2,1)"),
        ("box", "(0,0),(2,3)", "(0,0),(3,2)"),
        ("numeric", "1.0", "1.00"),
        ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
        ("interval", "1 day", "24:00"),
        ("json[]", '{"1"}', '{"2"}'),
        ("text COLLATE folding", "a", "A"),
        ("text", "a", None),
        ("json", None, "1"),
    ],
)
def test_what_looks_different_is_updated(
    database: Database, load_rows: LoadRows, kind: str, old: str | None, new: str | None
) -> None:
    # A server may be built without ICU or libxml: then there are no such columns.
    if "folding" in kind:
        if supports(database, FOLDING):
            database.execute(FOLDING)
        else:
            kind = "text"
    if kind == "xml" and not supports(database, "SELECT CAST('<a/>' AS xml)"):
        kind = "json[]"
        old, new = "{1}", "{NULL}"
    database.execute(f"CREATE TABLE t (id integer PRIMARY KEY, v {kind})")
    load_rows([{"id": 1, "v": old}], "t", "append")
    assert counts(load_rows([{"id": 1, "v": old}], "t", "upsert")) == {"unchanged": 1}
    before = database.execute('SELECT v::text COLLATE "C" FROM t').fetchone()
    assert counts(load_rows([{"id": 1, "v": new}], "t", "upsert")) == {"updated": 1}
    assert database.execute('SELECT v::text COLLATE "C" FROM t').fetchone() != before
    assert counts(load_rows([{"id": 1, "v": new}], "t", "upsert")) == {"unchanged": 1}


def test_only_columns_of_the_file_are_updated(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("INSERT INTO items (id, sku, name, seen) VALUES (1, 'a', 'old', 7)")
    load_rows("sku,id,name\na,1,new\n", "items", "upsert", writer=writer)
    assert table(database, "id, sku, name, seen") == [(1, "a", "new", 7)]


def test_a_key_alone_inserts_what_is_missing(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(OLD)
    assert counts(load_rows("id\n1\n9\n", "items", "upsert", writer=writer)) == {"inserted": 1, "unchanged": 1}


def test_keep_and_touch(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(OLD)
    feed = "id,name,created\n1,same,2021-01-01\n2,new,2021-01-01\n4,added,2021-01-01\n"
    result = load_rows(feed, "items", "upsert", writer=writer, keep=("created",), touch="touched")
    assert counts(result) == {"inserted": 1, "updated": 1, "unchanged": 1}
    rows = table(database, "id, name, extract(year FROM created)::int, touched > now() - interval '1 hour'")
    assert rows == [
        (1, "same", 2020, False),
        (2, "new", 2020, True),
        (3, "gone", 2020, False),
        (4, "added", 2021, True),
    ]
    unknown = refusal(lambda: load_rows(feed, "items", "upsert", keep=("creatd",)))
    assert (unknown.exit_code, unknown.hint) == (2, "Did you mean created?")
    assert refusal(lambda: load_rows(feed, "items", "upsert", touch="created")).code == "42701"
    assert refusal(lambda: load_rows(feed, "items", "upsert", touch="sku")).code == "42804"


@pytest.mark.parametrize(("which", "name"), [("last", "three"), ("first", "one")])
def test_of_duplicates_one_wins(database: Database, load_rows: LoadRows, writer: str, which: str, name: str) -> None:
    feed = f"id,name\n1,one\n1,{'long ' * 500}\n2,other\n1,three\n"
    result = load_rows(feed, "items", "upsert", writer=writer, on_duplicate=OnDuplicate(which))
    assert counts(result) == {"inserted": 2, "duplicates": 2}
    assert table(database) == [(1, name), (2, "other")]


def test_the_last_of_many_rows_of_odd_lengths_wins(database: Database, load_rows: LoadRows, writer: str) -> None:
    # Short rows fit into gaps that long ones leave in the pages of a table.
    rows = [{"id": 1, "name": str(n) + " " + "x" * (n * 977 % 5000)} for n in range(400)]
    load_rows(rows, "items", "upsert", writer=writer)
    assert [name.split()[0] for _, name in table(database)] == ["399"]


def test_duplicates_can_be_refused(database: Database, load_rows: LoadRows, writer: str) -> None:
    feed = 'id,name\n1,"a\nb"\n2,c\n3,d\n2,e\n'
    error = refusal(lambda: load_rows(feed, "items", "upsert", writer=writer, on_duplicate=OnDuplicate.ERROR))
    assert (error.location.line, error.code, error.exit_code) == (6, "23505", 1)
    assert "(2) is also that of" in error.message
    assert "line 4" in error.message
    assert table(database) == []


def test_newest_by(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "INSERT INTO items (id, name, seen) VALUES (1, 'newer', 9), (2, 'older', 1), (3, 'never', NULL),"
        " (4, 'same', 5), (5, 'tie', 5), (6, 'x', 3)"
    )
    feed = "id,name,seen\n1,no,8\n2,yes,2\n2,no,1\n3,yes,1\n4,same,5\n5,yes,5\n6,no,\n7,first,2\n7,second,1\n7,third,\n"
    result = load_rows(feed, "items", "upsert", writer=writer, newest_by="seen")
    assert counts(result) == {"inserted": 1, "updated": 3, "unchanged": 1, "stale": 2, "duplicates": 3}
    assert table(database, "id, name, seen") == [
        (1, "newer", 9), (2, "yes", 2), (3, "yes", 1), (4, "same", 5), (5, "yes", 5), (6, "x", 3), (7, "first", 2),
    ]  # fmt: skip
    assert refusal(lambda: load_rows(feed, "items", "upsert", newest_by="sen")).hint == "Did you mean seen?"
    database.execute("ALTER TABLE items ADD doc json")
    orderless = refusal(lambda: load_rows("id,doc\n1,1\n", "items", "upsert", newest_by="doc"))
    assert (orderless.exit_code, orderless.message) == (2, "--newest-by names column doc, whose type json has no order")
    assert "which the source lacks" in refusal(lambda: load_rows(feed, "items", "upsert", newest_by="created")).message


@pytest.mark.parametrize(
    ("mode", "most"), [("append", 43), ("ignore", 34), ("upsert", 34), ("sync", 40), ("replace", 36)]
)
def test_a_small_load_asks_little(
    database: Database, engine: sqlalchemy.Engine, load_rows: LoadRows, mode: str, most: int
) -> None:
    # Each statement is a round trip: to a server far away they are most of what a small load takes.
    database.execute(OLD)
    load_rows("id,name\n9,x\n", "items", "append")  # the engine's own questions come with its first connection
    sent: list[str] = []
    sqlalchemy.event.listen(ours(engine), "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    settings = {"max_delete": Limit(percent=100)} if mode == "sync" else {}
    load_rows("id,name\n5,a\n6,b\n", "items", mode, writer="values", ledger=True, **settings)
    assert len(sent) <= most, sent


# -- keys


def test_unique_indexes_as_keys(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE people (email text, town text, state text DEFAULT 'active', name text);"
        "CREATE UNIQUE INDEX by_email ON people (lower(email));"
        "CREATE UNIQUE INDEX active ON people (town) INCLUDE (name) WHERE state = 'active'"
    )
    feed = "email,town,state,name\nA@x,Ulm,active,a\nB@x,Ulm,gone,b\nC@x,Bonn,active,c\n"
    for key in (("lower(email)",), ("LOWER( email )",), ("email",)):
        database.execute("TRUNCATE people")
        assert counts(load_rows(feed, "people", "upsert", writer=writer, key=key)) == {"inserted": 3}
        again = load_rows(
            feed.replace("A@x", "a@X").replace(",c\n", ",new\n"), "people", "upsert", writer=writer, key=key
        )
        assert counts(again) == {"updated": 2, "unchanged": 1}
        assert database.execute("SELECT email FROM people WHERE name = 'a'").fetchall() == [("a@X",)]
    database.execute("DROP INDEX by_email")
    database.execute("TRUNCATE people")
    assert counts(load_rows(feed, "people", "upsert", writer=writer, key=("town",))) == {"inserted": 3}
    again = load_rows(feed.replace(",a\n", ",new\n"), "people", "upsert", writer=writer, key=("town",))
    # A row that the index is not about has no key: it is always new.
    assert counts(again) == {"inserted": 1, "updated": 1, "unchanged": 1}
    refused = refusal(lambda: load_rows(feed, "people", "sync", key=("town",)))
    assert "does not hold for all rows" in refused.message
    no_state = refusal(lambda: load_rows("email,town\na,b\n", "people", "upsert", key=("town",)))
    assert "lacks column state" in no_state.message


def test_sync_by_an_expression(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("CREATE TABLE people (email text, name text); CREATE UNIQUE INDEX ON people (lower(email))")
    database.execute("INSERT INTO people VALUES ('A', 'a'), ('B', 'b'), ('C', 'c')")
    result = load_rows(
        "email,name\na,a\nc,new\n", "people", "sync", writer=writer, key=("email",), max_delete=Limit(rows=1)
    )
    assert counts(result) == {"updated": 2, "deleted": 1}
    assert database.execute("SELECT * FROM people ORDER BY 1").fetchall() == [("a", "a"), ("c", "new")]
    null = refusal(lambda: load_rows("email,name\nx,x\n,y\n", "people", "sync", writer=writer, key=("email",)))
    assert (null.location.line, null.code) == (3, "23502")


def test_an_expression_as_a_user_writes_it(invoke: Invoke, database: Database, tmp_path: Path) -> None:
    database.execute('CREATE TABLE t (a text, "b,c" text, v text); CREATE UNIQUE INDEX ON t (coalesce(a, \'\'), "b,c")')
    database.execute("CREATE UNIQUE INDEX ON t (lower(\"b,c\")) WHERE v = '1'")
    (tmp_path / "t.csv").write_text('a,"b,c"\n,x\nq,y\n')
    for key in ("coalesce(a,''),\"b,c\"", "COALESCE(a, ''::text), \"b,c\"", 'lower("b,c")'):
        result = invoke("load", "t.csv", "-m", "ignore", "--key", key, "--set", "v=1")
        assert (result.code, result.stderr) == (0, ""), key
    assert database.execute("SELECT count(*) FROM t").fetchone() == (2,)


@pytest.mark.parametrize("where", ["index", "column"])
def test_a_key_with_a_collation(database: Database, load_rows: LoadRows, writer: str, where: str) -> None:
    if not supports(database, FOLDING):
        pytest.skip("this server is built without ICU: no collation of it calls different texts equal")
    database.execute(FOLDING)
    if where == "index":
        database.execute("CREATE TABLE t (a text, v text); CREATE UNIQUE INDEX ON t (a COLLATE folding)")
    else:
        database.execute("CREATE TABLE t (a text COLLATE folding PRIMARY KEY, v text)")
    feed = "a,v\nx,1\nX,2\n"
    assert counts(load_rows(feed, "t", "upsert", writer=writer, key=("a",))) == {"inserted": 1, "duplicates": 1}
    assert counts(load_rows("a,v\nX,2\n", "t", "upsert", writer=writer, key=("a",))) == {"unchanged": 1}
    assert counts(load_rows("a,v\nx,2\n", "t", "sync", writer=writer, key=("a",))) == (
        {"updated": 1} if where == "index" else {"unchanged": 1}
    )


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("id integer PRIMARY KEY, a text, b text", "{n},a,b"),
        ("id integer, a text, b text, PRIMARY KEY (a, id)", "{n},a,b"),
        ("id integer, a text PRIMARY KEY, b text", "1,{n},b"),
        ("id integer, a text, b text, UNIQUE NULLS NOT DISTINCT (a, b)", "1,{n},"),
    ],
)
@pytest.mark.parametrize("shuffled", [False, True], ids=["rising", "shuffled"])
def test_many_rows(database: Database, load_rows: LoadRows, writer: str, key: str, row: str, shuffled: bool) -> None:
    database.execute(f"CREATE TABLE t ({key}, v integer)")
    numbers = [n * 7 % 5000 if shuffled else n for n in range(5000)]

    def feed(value: int) -> str:
        return "id,a,b,v\n" + "".join(f"{row.format(n=n)},{value if n % 10 == 0 else 0}\n" for n in numbers)

    assert counts(load_rows(feed(0), "t", "upsert", writer=writer)) == {"inserted": 5000}
    assert counts(load_rows(feed(0), "t", "upsert", writer=writer)) == {"unchanged": 5000}
    assert counts(load_rows(feed(1), "t", "upsert", writer=writer)) == {"updated": 500, "unchanged": 4500}
    again = feed(1) + "".join(f"{row.format(n=n)},2\n" for n in range(4000, 5010))
    expected = {"inserted": 10, "updated": 1000, "unchanged": 4000, "duplicates": 1000}
    assert counts(load_rows(again, "t", "sync", writer=writer)) == expected
    assert database.execute("SELECT v, count(*) FROM t GROUP BY v ORDER BY v").fetchall() == [
        (0, 3600), (1, 400), (2, 1010)
    ]  # fmt: skip


def test_nulls_that_are_not_distinct(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("CREATE TABLE t (a integer, b text, v text, UNIQUE NULLS NOT DISTINCT (a, b))")
    feed = "a,b,v\n1,,x\n,,y\n,,z\n"
    assert counts(load_rows(feed, "t", "upsert", writer=writer)) == {"inserted": 2, "duplicates": 1}
    assert counts(load_rows(feed, "t", "upsert", writer=writer)) == {"unchanged": 2, "duplicates": 1}
    assert counts(load_rows("a,b,v\n1,,w\n", "t", "sync", writer=writer, max_delete=Limit(percent=100))) == {
        "updated": 1,
        "deleted": 1,
    }


def test_a_null_key_is_located(database: Database, load_rows: LoadRows, writer: str) -> None:
    for mode in ("ignore", "upsert", "sync"):
        feed = 'sku,id\n"a\n",1\n,2\n'
        error = refusal(partial(load_rows, feed, "items", mode, key=("sku",), writer=writer))
        assert (error.location.line, error.column, error.code, error.exit_code) == (4, "sku", "23502", 1)
    assert table(database) == []


def test_what_the_table_refuses_is_located(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v varchar(3) NOT NULL)")
    for text, code in (("1,a\n2,\n", "23502"), ("1,a\n2,long\n", "22001")):
        error = refusal(partial(load_rows, "id,v\n" + text, "t", "upsert", writer=writer))
        assert (error.location.line, error.column, error.code) == (3, "v", code)


def test_keys_that_do_not_fit(database: Database, load_rows: LoadRows) -> None:
    database.execute(
        "CREATE TABLE none (a integer); CREATE TABLE late (a integer PRIMARY KEY DEFERRABLE, b integer);"
        "CREATE TABLE two (a integer UNIQUE, b integer UNIQUE); CREATE TABLE one (a integer UNIQUE, b integer)"
    )
    none = refusal(lambda: load_rows("a\n1\n", "none", "upsert"))
    assert (none.code, none.exit_code, none.hint) == ("no_key", 2, "Add a primary key or a unique constraint to it.")
    assert "(a) is deferrable" in refusal(lambda: load_rows("a\n1\n", "late", "upsert")).message
    database.execute("CREATE TABLE made (a text, g text GENERATED ALWAYS AS (lower(a)) STORED UNIQUE)")
    assert "(g) is generated by the database" in refusal(lambda: load_rows("a\nx\n", "made", "upsert")).message
    if database.info.server_version >= 180000:
        database.execute("CREATE TABLE times (a int4range, b daterange, PRIMARY KEY (a, b WITHOUT OVERLAPS))")
        overlaps = refusal(lambda: load_rows('a,b\n"[1,2)",empty\n', "times", "upsert"))
        assert "(a, b) is WITHOUT OVERLAPS, which no load can go by" in overlaps.message
    assert "(a); (b)" in refusal(lambda: load_rows("a,b\n1,1\n", "two", "upsert")).hint
    assert "no unique constraint" in refusal(lambda: load_rows("a,b\n1,1\n", "two", "upsert", key=("a", "b"))).message
    assert (
        "the source lacks column id, which the key (id)"
        in refusal(lambda: load_rows("name\nx\n", "items", "upsert")).message
    )
    assert "names column skew" in refusal(lambda: load_rows("id\n1\n", "items", "upsert", key=("skew",))).message
    assert counts(load_rows("a,b\n1,1\n", "one", "upsert")) == {"inserted": 1}


# -- sync and replace


def test_sync_refuses_to_delete_too_much(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("INSERT INTO items (id) SELECT generate_series(1, 10)")
    seven = "id\n" + "".join(f"{number}\n" for number in range(1, 8))
    error = refusal(lambda: load_rows(seven, "items", "sync", writer=writer))
    assert (error.code, error.exit_code) == ("delete_limit", 1)
    assert "3 of 10 rows of public.items; the limit is 20 %" in error.message
    empty = refusal(lambda: load_rows("id\n", "items", "sync", writer=writer))
    assert empty.code == "empty_source"
    assert len(table(database)) == 10
    assert counts(load_rows(seven, "items", "sync", writer=writer, max_delete=Limit(rows=3))) == {
        "unchanged": 7,
        "deleted": 3,
    }
    assert counts(load_rows("id\n", "items", "sync", writer=writer, allow_empty=True)) == {"deleted": 7}


@pytest.mark.parametrize(("percent", "deletes"), [(29.0, True), (28.9, False), (100, True), (0, False)])
def test_a_share_to_delete_is_exact(database: Database, load_rows: LoadRows, percent: float, deletes: bool) -> None:
    database.execute("INSERT INTO items (id) SELECT generate_series(1, 100)")
    feed = "id\n" + "".join(f"{number}\n" for number in range(1, 72))
    load = partial(load_rows, feed, "items", "sync", max_delete=Limit(percent=percent))
    if deletes:
        assert load().deleted == 29
    else:
        assert f"29 of 100 rows of public.items; the limit is {percent:g} %" in refusal(load).message


def test_sync_moves_a_unique_value_from_a_row_that_goes(database: Database, load_rows: LoadRows) -> None:
    database.execute("INSERT INTO items (id, sku) VALUES (1, 'a')")
    result = load_rows("id,sku\n2,a\n", "items", "sync", max_delete=Limit(percent=100))
    assert counts(result) == {"inserted": 1, "deleted": 1}


def test_unique_values_that_change_places(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("INSERT INTO items (id, sku) VALUES (1, 'a'), (2, 'b')")
    for mode in ("upsert", "sync"):
        error = refusal(partial(load_rows, "id,sku\n1,b\n2,a\n", "items", mode, writer=writer))
        assert (error.code, error.exit_code) == ("23505", 1)
        assert "items_sku_key" in error.message
        assert "Another row has this value" in error.hint
    assert table(database, "id, sku") == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("no_block", [False, True])
def test_replace(database: Database, load_rows: LoadRows, writer: str, no_block: bool) -> None:
    database.execute(OLD)
    database.execute("CREATE VIEW names AS SELECT name FROM items; GRANT SELECT ON items TO PUBLIC")
    before = database.execute("SELECT oid, relacl::text FROM pg_class WHERE relname = 'items'").fetchone()
    result = load_rows("id,name\n7,x\n8,y\n", "items", "replace", writer=writer, no_block=no_block)
    assert counts(result) == {"inserted": 2, "deleted": 3}
    assert database.execute("SELECT * FROM names ORDER BY 1").fetchall() == [("x",), ("y",)]
    assert database.execute("SELECT oid, relacl::text FROM pg_class WHERE relname = 'items'").fetchone() == before
    error = refusal(lambda: load_rows("id,name\n7,x\n7,y\n", "items", "replace", writer=writer, no_block=no_block))
    assert error.code == "23505"
    assert table(database) == [(7, "x"), (8, "y")]


def test_replaced_rows_are_frozen(database: Database, load_rows: LoadRows) -> None:
    # A text that the binary form cannot hold makes a second COPY.
    text = "id,created\n" + "".join(f"{number},2020-01-01\n" for number in range(90_000)) + "90000,yesterday\n"
    load_rows(text, "items", "replace", writer="copy")
    database.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    plan = database.execute("EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM items").fetchone()
    assert plan is not None
    # Only frozen pages need no look at the rows before the first VACUUM; the last one may be half full.
    assert plan[0][0]["Plan"]["Heap Fetches"] < 300


def test_replace_a_table_that_others_point_at(database: Database, load_rows: LoadRows) -> None:
    database.execute("CREATE TABLE parts (item integer CONSTRAINT of_item REFERENCES items ON DELETE CASCADE)")
    database.execute(OLD)
    for no_block in (False, True):
        error = refusal(partial(load_rows, "id\n1\n", "items", "replace", no_block=no_block))
        assert "of_item of public.parts" in error.message
        assert "--mode sync" in error.hint
    database.execute("CREATE TABLE tree (id integer PRIMARY KEY, parent integer REFERENCES tree)")
    for _ in range(2):
        assert load_rows("id,parent\n1,\n2,1\n", "tree", "replace").inserted == 2
