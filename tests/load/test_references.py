"""Foreign keys: what they take along, rows that refer to rows of their own table, constraints that are not in force."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.model import Cascaded, Limit
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
