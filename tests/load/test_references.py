"""Foreign keys: what they take along, rows that refer to rows of their own table, constraints that are not in force."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.model import Cascaded, Limit, LoadResult
from tests.inprocess import Invoke, invoke
from tests.load.direct import LoadRows, counts, refusal, rows_loader

__all__ = ["invoke", "rows_loader"]

Database = psycopg.Connection[Any]
ALL = Limit(percent=100)

# A partitioned parent, rows of which a child refers to; and grandchildren, partitioned as well.
FAMILY = """
    CREATE TABLE parent (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF parent FOR VALUES FROM (0) TO (100);
    CREATE TABLE high PARTITION OF parent FOR VALUES FROM (100) TO (200);
    CREATE TABLE child (id integer PRIMARY KEY, up integer REFERENCES parent ON DELETE CASCADE);
    CREATE TABLE grand (id integer PRIMARY KEY, up integer REFERENCES child ON DELETE CASCADE) PARTITION BY HASH (id);
    CREATE TABLE grand0 PARTITION OF grand FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE grand1 PARTITION OF grand FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE friend (id integer, of_parent integer REFERENCES parent ON DELETE SET NULL);
    INSERT INTO parent SELECT n, 'v' FROM generate_series(1, 150) AS n;
    INSERT INTO child SELECT n, 1 + n % 150 FROM generate_series(1, 600) AS n;
    INSERT INTO grand SELECT n, n FROM generate_series(1, 600) AS n;
    INSERT INTO friend SELECT n, n FROM generate_series(1, 150) AS n;
"""


def rows(database: Database, query: str) -> list[Any]:
    return database.execute(query).fetchall()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rejecting(load_rows: LoadRows, *given: Any, **settings: Any) -> LoadResult:
    """A load that puts bad rows aside; the reject file of the one before goes away."""
    Path("rows.rejects.csv").unlink(missing_ok=True)
    return load_rows(*given, on_error="reject", **settings)


def feed(numbers: range) -> str:
    return "id,v\n" + "".join(f"{n},v\n" for n in numbers)


@pytest.mark.parametrize("table", ["parent", "low"])
@pytest.mark.parametrize("no_block", [False, True])
def test_replace_sees_the_foreign_keys_of_partitions(
    database: Database, load_rows: LoadRows, table: str, no_block: bool
) -> None:
    database.execute(FAMILY)
    error = refusal(partial(load_rows, feed(range(1, 3)), table, "replace", no_block=no_block))
    assert error.code == "0A000"
    assert "child_up_fkey of public.child, friend_of_parent_fkey of public.friend" in error.message
    assert rows(database, "SELECT count(*) FROM child") == [(600,)]


def test_replace_of_a_partition_whose_siblings_refer_to_it(database: Database, load_rows: LoadRows) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, up integer REFERENCES t ON DELETE CASCADE) PARTITION BY RANGE (id);"
        "CREATE TABLE a PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE b PARTITION OF t DEFAULT;"
        "INSERT INTO t VALUES (1, NULL), (20, 1)"
    )
    error = refusal(partial(load_rows, "id,up\n2,\n", "a", "replace", no_block=True))
    assert (error.code, "t_up_fkey of public.t" in error.message) == ("0A000", True)
    # The whole may be replaced: it points at itself only.
    assert counts(load_rows("id,up\n2,\n30,2\n", "t", "replace", no_block=True)) == {"inserted": 2, "deleted": 2}
    sync = partial(load_rows, "id,up\n3,\n", "a", "sync", max_delete=ALL)
    assert "1 rows of public.t" in refusal(sync).message
    assert sync(cascade=True).cascaded == (Cascaded("public.t", 1),)
    assert rows(database, "SELECT id FROM t") == [(3,)]


@pytest.mark.parametrize("table", ["parent", "low"])
@pytest.mark.parametrize("on_error", ["abort", "reject"])
def test_sync_tells_what_foreign_keys_take_along(
    database: Database, load_rows: LoadRows, writer: str, table: str, on_error: str
) -> None:
    database.execute(FAMILY)
    kept = range(11, 151 if table == "parent" else 100)
    sync = partial(load_rows, feed(kept), table, "sync", writer=writer, on_error=on_error)
    for dry_run in (True, False):
        error = refusal(partial(sync, dry_run=dry_run))
        assert (error.code, error.hint) == ("cascade", "If that is meant, say --cascade.")
        assert "40 rows of public.child, 40 rows of public.grand" in error.message
    assert rows(database, "SELECT count(*) FROM child") == [(600,)]
    for dry_run in (True, False):
        result = sync(cascade=True, dry_run=dry_run)
        assert counts(result) == {"unchanged": len(kept), "deleted": 10}
        assert result.cascaded == (Cascaded("public.child", 40), Cascaded("public.grand", 40))
        told = "foreign keys deleted with them: 40 rows of public.child, 40 rows of public.grand"
        assert result.notes[0] == told
        assert result.notes[1].startswith("the deletion changed 10 rows of public.friend: by a foreign key")
    left = "SELECT (SELECT count(*) FROM parent), (SELECT count(*) FROM child), (SELECT count(*) FROM grand)"
    assert rows(database, left) == [(140, 560, 560)]


def test_max_delete_counts_what_goes_along(database: Database, load_rows: LoadRows) -> None:
    database.execute(FAMILY)
    sync = partial(load_rows, feed(range(11, 151)), "parent", "sync", cascade=True, dry_run=True)
    error = refusal(partial(sync, max_delete=Limit(rows=89)))
    assert (error.code, "10 rows of public.parent, and by foreign keys 40 rows" in error.message) == (
        "delete_limit",
        True,
    )
    assert sync(max_delete=Limit(rows=90)).deleted == 10
    # 90 of 150 + 600 + 600 rows.
    assert refusal(partial(sync, max_delete=Limit(percent=6))).code == "delete_limit"
    assert sync(max_delete=Limit(percent=7)).deleted == 10


def test_sync_where_nobody_counts_what_goes_along(database: Database, load_rows: LoadRows) -> None:
    database.execute(FAMILY)
    database.execute(f"ALTER DATABASE {database.info.dbname} SET track_counts = off")
    sync = partial(load_rows, feed(range(2, 151)), "parent", "sync")
    assert "track_counts is off" in refusal(sync).message
    assert "this server does not count them" in sync(cascade=True).notes[0]


def test_the_document_says_what_went_along(database: Database, invoke: Invoke, tmp_path: Path) -> None:
    database.execute(FAMILY)
    (tmp_path / "parent.csv").write_text(feed(range(2, 151)))
    refused = invoke("load", "parent.csv", "-m", "sync", "--no-ledger", "--json")
    assert (refused.code, json.loads(refused.stdout)["error"]["code"]) == (1, "cascade")
    told = invoke("load", "parent.csv", "-m", "sync", "--no-ledger", "--json", "--cascade")
    assert told.code == 0, told
    assert json.loads(told.stdout)["cascaded"] == [
        {"table": "public.child", "rows": 4},
        {"table": "public.grand", "rows": 4},
    ]
    assert invoke("load", "parent.csv", "--cascade").code == 2


TREE = "CREATE TABLE tree (id integer PRIMARY KEY, up integer REFERENCES tree, v text CHECK (v <> 'bad'))"
# 1 → 3 → 2, and two in a ring; 6 hangs on nothing, 7 on 6, 8 is bad and 9 hangs on it.
KIN = "id,up,v\n1,3,a\n3,2,a\n2,,a\n4,5,a\n5,4,a\n6,99,a\n7,6,a\n8,1,bad\n9,8,a\n10,1,a\n"


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("mode", ["append", "ignore", "upsert", "sync"])
def test_rows_wait_for_each_other(
    database: Database, load_rows: LoadRows, writer: str, mode: str, partitioned: bool
) -> None:
    database.execute(TREE + (" PARTITION BY RANGE (id)" if partitioned else ""))
    if partitioned:
        database.execute(
            "CREATE TABLE low PARTITION OF tree FOR VALUES FROM (0) TO (4); CREATE TABLE high PARTITION OF tree DEFAULT"
        )
    whole = rejecting(load_rows, "id,up,v\n1,3,a\n3,2,a\n2,,a\n4,5,a\n5,4,a\n", "tree", mode, writer=writer)
    assert counts(whole) == {"inserted": 5}
    database.execute("DELETE FROM tree")
    result = rejecting(load_rows, KIN, "tree", mode, writer=writer)
    left = [number for (number,) in rows(database, "SELECT id FROM tree ORDER BY 1")]
    assert left == [1, 2, 3, 4, 5, 10]
    assert counts(result) == {"inserted": 6, "rejected": 4}
    assert {(reason.code, reason.column, reason.count) for reason in result.reject_reasons} == {
        ("23503", "up", 3),
        ("23514", "v", 1),
    }


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rows_wait_for_those_of_other_files(database: Database, invoke: Invoke, tmp_path: Path, mode: str) -> None:
    database.execute(TREE)
    for name, text in (("a", "id,up\n1,4\n2,99\n"), ("b", "up,id\n1,3\n,4\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    given = ("a.csv", "b.csv", "-t", "tree", "-m", mode, "--on-error", "reject", "--json")
    result = invoke("load", *given)
    assert (result.code, json.loads(result.stdout)["rejected"]) == (4, 1), result
    assert rows(database, "SELECT id FROM tree ORDER BY 1") == [(1,), (3,), (4,)]
    (tmp_path / "a.csv").write_text("id,up\n1,4\n2,99\n5,1\n")
    for option in (("--commit-every", "1"), ("--jobs", "2")):
        if mode == "append" or option[0] == "--commit-every":
            refused = invoke("load", *given, "--force", *option)
            assert refused.code == 2
            error = json.loads(refused.stdout)["error"]
            assert (error["code"], error["hint"]) == ("not_divisible", f"Leave {option[0]} out.")
    assert invoke("load", *given, "--force").code == 4


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_trigger_of_a_partition_changes_rows_before_they_are_judged(
    database: Database, load_rows: LoadRows, writer: str, mode: str
) -> None:
    database.execute(
        "CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1);"
        "CREATE TABLE t (id integer PRIMARY KEY, r integer REFERENCES other, v integer CHECK (v > 0))"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF t DEFAULT;"
        "CREATE FUNCTION mend() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.r := 1; NEW.v := abs(NEW.v); RETURN NEW; END';"
        "CREATE TRIGGER mend BEFORE INSERT OR UPDATE ON low FOR EACH ROW EXECUTE FUNCTION mend()"
    )
    feed = "id,r,v\n" + "".join(f"{n},{n},{-n}\n" for n in range(1, 21))
    result = rejecting(load_rows, feed, "t", mode, writer=writer)
    assert counts(result) == {"inserted": 9, "rejected": 11}
    assert rows(database, "SELECT count(*), min(v), max(r) FROM t") == [(9, 1, 1)]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_constraints_of_partitions(database: Database, load_rows: LoadRows, writer: str, mode: str) -> None:
    """An own name of a partition's does not make all foreign keys suspects, and holds there only."""
    database.execute(
        "CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1);"
        "CREATE TABLE t (id integer PRIMARY KEY, r integer, q integer REFERENCES other) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF t DEFAULT;"
        "ALTER TABLE low ADD CONSTRAINT low_only FOREIGN KEY (r) REFERENCES other;"
        "ALTER TABLE low ADD CONSTRAINT low_check CHECK (id <> 3)"
    )
    feed = "id,r,q\n" + "".join(f"{n},{1 + (n % 2 == 0)},{1 + (n == 15)}\n" for n in range(1, 21))
    result = rejecting(load_rows, feed, "t", mode, writer=writer)
    assert counts(result) == {"inserted": 14, "rejected": 6}
    assert {(reason.column, reason.count) for reason in result.reject_reasons} == {("r", 4), ("q", 1), ("id", 1)}


@pytest.mark.parametrize("mode", ["upsert", "sync"])
def test_what_is_not_valid_is_not_held_against_unchanged_rows(
    database: Database, load_rows: LoadRows, writer: str, mode: str
) -> None:
    database.execute(
        "CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1);"
        "CREATE TABLE t (id integer PRIMARY KEY, v integer, r integer, w text DEFAULT 'old');"
        "INSERT INTO t SELECT n, -n, n, 'old' FROM generate_series(1, 20) AS n;"
        "ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;"
        "ALTER TABLE t ADD CONSTRAINT there FOREIGN KEY (r) REFERENCES other NOT VALID"
    )
    old = "".join(f"{n},{-n},{n},old\n" for n in range(1, 21))
    new = "21,-1,1,a\n22,1,7,a\n23,1,1,a\n"
    result = rejecting(load_rows, "id,v,r,w\n" + old + new, "t", mode, writer=writer)
    assert counts(result) == {"inserted": 1, "unchanged": 20, "rejected": 2}
    # A row that is updated is checked, but not for a foreign key that stays as it is.
    database.execute("ALTER TABLE t DROP CONSTRAINT positive")
    result = rejecting(load_rows, "id,v,r,w\n" + old.replace("old", "new") + new, "t", mode, writer=writer)
    assert counts(result) == {"updated": 20, "inserted": 1, "unchanged": 1, "rejected": 1}


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_what_is_not_enforced_is_not_held_against_rows(
    database: Database, load_rows: LoadRows, writer: str, mode: str
) -> None:
    if database.info.server_version < 180000:
        pytest.skip("NOT ENFORCED is of PostgreSQL 18")
    database.execute(
        "CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1);"
        "CREATE TABLE t (id integer PRIMARY KEY, r integer, CONSTRAINT hard FOREIGN KEY (r) REFERENCES other,"
        " s integer, CONSTRAINT soft FOREIGN KEY (s) REFERENCES other NOT ENFORCED,"
        " CONSTRAINT check_soft CHECK (s < 0) NOT ENFORCED, CONSTRAINT check_hard CHECK (s <> 7))"
    )
    feed = "id,r,s\n" + "".join(f"{n},{1 + n % 2},{n}\n" for n in range(1, 21))
    result = rejecting(load_rows, feed, "t", mode, writer=writer)
    assert counts(result) == {"inserted": 10, "rejected": 10}


def test_rows_of_an_heir_are_not_in_the_way(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE heir () INHERITS (t);"
        "INSERT INTO t VALUES (1), (2), (3), (4), (5); INSERT INTO heir SELECT n FROM generate_series(6, 20) AS n"
    )
    feed = "id,v\n" + "".join(f"{n},a\n" for n in range(1, 31))
    result = rejecting(load_rows, feed, "t", "append", writer=writer)
    assert counts(result) == {"inserted": 25, "rejected": 5}


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_rows_may_refer_to_rows_further_down(database: Database, load_rows: LoadRows, writer: str, mode: str) -> None:
    database.execute(TREE)
    feed = "id,up\n1,3\n3,2\n2,\n4,5\n5,4\n"
    assert counts(load_rows(feed, "tree", mode, writer=writer)) == {"inserted": 5}
    if mode == "replace":
        assert counts(load_rows(feed, "tree", mode, writer=writer, no_block=True)) == {"inserted": 5, "deleted": 5}


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rings_in_several_files(database: Database, invoke: Invoke, tmp_path: Path, writer: str, mode: str) -> None:
    # 1 → 2 → 3 → 1; 4 hangs on nothing, 5 on 4; 6 and 7 on each other, and 7 is bad.
    database.execute(TREE)
    (tmp_path / "a.csv").write_text("id,up,v\n1,2,a\n4,99,a\n6,7,a\n3,1,a\n")
    (tmp_path / "b.csv").write_text("v,id,up\na,2,3\na,5,4\nbad,7,6\n")
    given = ("a.csv", "b.csv", "-t", "tree", "-m", mode, "--on-error", "reject", "--writer", writer, "--json")
    result = invoke("load", *given)
    summary = json.loads(result.stdout)
    assert (result.code, summary["inserted"], summary["rejected"]) == (4, 3, 4), result
    assert rows(database, "SELECT id FROM tree ORDER BY 1") == [(1,), (2,), (3,)]
    with (tmp_path / "tree.rejects.csv").open() as file:
        told = [tuple(row[f"_harborctl_{name}"] for name in ("file", "line", "code")) for row in csv.DictReader(file)]
    assert told == [
        ("a.csv", "3", "23503"),
        ("a.csv", "4", "23503"),
        ("b.csv", "3", "23503"),
        ("b.csv", "4", "23514"),
    ]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rings_that_no_query_finds(database: Database, load_rows: LoadRows, writer: str, mode: str) -> None:
    """A trigger might change what rows refer to."""
    database.execute(
        TREE + "; CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER pass BEFORE INSERT ON tree FOR EACH ROW EXECUTE FUNCTION pass()"
    )
    feed = "id,up,v\n1,2,a\n4,99,a\n6,7,a\n3,1,a\n2,3,a\n5,4,a\n7,6,bad\n"
    result = rejecting(load_rows, feed, "tree", mode, writer=writer)
    assert counts(result) == {"inserted": 3, "rejected": 4}
    assert rows(database, "SELECT id FROM tree ORDER BY 1") == [(1,), (2,), (3,)]


def test_a_row_is_no_duplicate_of_one_that_is_put_aside(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE other (id integer PRIMARY KEY);"
        "CREATE TABLE t (id integer PRIMARY KEY, r integer REFERENCES other, v text)"
    )
    result = rejecting(load_rows, "id,r,v\n1,7,a\n1,,b\n1,,c\n2,,d\n", "t", "append", writer=writer)
    assert counts(result) == {"inserted": 2, "rejected": 2}
    assert rows(database, "SELECT id, v FROM t ORDER BY 1") == [(1, "b"), (2, "d")]
