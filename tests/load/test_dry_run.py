"""`--dry-run`: all of it happens and is shown, and nothing remains."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from harborctl.model import Change, Difference, Limit
from tests.inprocess import Invoke, invoke
from tests.load.direct import LoadRows, counts, refusal, rows_loader

__all__ = ["invoke", "rows_loader"]

Database = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def items(database: Database) -> None:
    database.execute(
        "CREATE TABLE items (id integer PRIMARY KEY, name text, price numeric(8,2));"
        "INSERT INTO items VALUES (1, 'same', 1), (2, 'old', 2), (3, 'gone', 3)"
    )


FEED = "id,name,price\n1,same,1\n2,new,2\n4,added,\n"


def state(database: Database) -> list[Any]:
    return [
        database.execute("SELECT ctid::text, * FROM items ORDER BY 2").fetchall(),
        database.execute("SELECT count(*) FROM harborctl.loads").fetchall(),
        database.execute("SELECT relpages, reltuples FROM pg_class WHERE relname = 'items'").fetchall(),
    ]


INSERTED = Change("inserted", {"id": "4"}, {"name": Difference(None, "added"), "price": Difference(None, None)})
UPDATED = Change("updated", {"id": "2"}, {"name": Difference("old", "new")})
DELETED = Change("deleted", {"id": "3"}, {"name": Difference("gone", None), "price": Difference("3.00", None)})


@pytest.mark.parametrize(
    ("mode", "account", "changes"),
    [
        ("ignore", {"inserted": 1, "skipped": 2}, (INSERTED,)),
        ("upsert", {"inserted": 1, "updated": 1, "unchanged": 1}, (INSERTED, UPDATED)),
        ("sync", {"inserted": 1, "updated": 1, "unchanged": 1, "deleted": 1}, (INSERTED, UPDATED, DELETED)),
    ],
)
def test_by_key(
    database: Database,
    load_rows: LoadRows,
    writer: str,
    mode: str,
    account: dict[str, int],
    changes: tuple[Change, ...],
) -> None:
    before = state(database)
    limit = {"max_delete": Limit(rows=1)} if mode == "sync" else {}
    result = load_rows(FEED, "items", mode, writer=writer, dry_run=True, ledger=True, **limit)
    assert result.status == "dry_run"
    assert counts(result) == account
    assert result.changes == changes
    assert result.notes == ()
    assert state(database) == before


def test_append_and_replace(database: Database, load_rows: LoadRows, writer: str) -> None:
    before = state(database)
    new = tuple(Difference(None, value) for value in ("9", "x"))
    result = load_rows("id,name\n9,x\n", "items", "append", writer=writer, dry_run=True)
    assert result.changes == (Change("inserted", {}, dict(zip(("id", "name"), new, strict=True))),)
    result = load_rows("id,name\n9,x\n", "items", "replace", writer=writer, dry_run=True)
    assert [change.kind for change in result.changes] == ["inserted", "deleted", "deleted", "deleted"]
    assert counts(result) == {"inserted": 1, "deleted": 3}
    assert state(database) == before


def test_the_sample_is_small(load_rows: LoadRows, writer: str) -> None:
    feed = "id,name\n" + "".join(f"{number},x\n" for number in range(10, 50))
    for mode in ("append", "upsert", "replace"):
        changes = load_rows(feed, "items", mode, writer=writer, dry_run=True).changes
        assert sum(change.kind == "inserted" for change in changes) == 10


def test_failures_are_found(database: Database, load_rows: LoadRows) -> None:
    database.execute(
        "ALTER TABLE items ADD parent integer REFERENCES items DEFERRABLE INITIALLY DEFERRED, ADD CHECK (price < 9)"
    )
    before = state(database)
    assert refusal(lambda: load_rows("id,parent\n1,77\n", "items", "upsert", dry_run=True, ledger=True)).code == "23503"
    assert refusal(lambda: load_rows("id,price\n1,77\n", "items", "upsert", dry_run=True, ledger=True)).code == "23514"
    assert state(database) == before


def test_sequences_that_cannot_go_back(database: Database, load_rows: LoadRows) -> None:
    database.execute("CREATE TABLE s (id integer GENERATED ALWAYS AS IDENTITY, n serial, v text PRIMARY KEY)")
    result = load_rows("v\na\n", "s", "upsert", dry_run=True)
    assert [note.split("sequence ")[1].split(" ")[0] for note in result.notes] == ["public.s_id_seq", "public.s_n_seq"]
    assert load_rows("v,id,n\na,1,1\n", "s", "append", dry_run=True).notes == ()
    assert database.execute("SELECT nextval('s_id_seq')").fetchone() == (2,)


def test_as_a_user_sees_it(invoke: Invoke, database: Database, tmp_path: Any) -> None:
    (tmp_path / "items.csv").write_text(FEED + '5,"a\nb",\n')
    result = invoke("load", "items.csv", "-m", "sync", "--max-delete", "50%", "--dry-run", "--json")
    assert (result.code, result.stderr) == (0, "")
    summary = json.loads(result.stdout)
    assert summary["status"] == "dry_run"
    assert summary["changes"][2] == {
        "kind": "updated",
        "key": {"id": "2"},
        "columns": {"name": {"old": "old", "new": "new"}},
    }
    result = invoke("load", "items.csv", "-m", "sync", "--max-delete", "50%", "--dry-run")
    assert (result.code, result.stderr) == (0, "")
    assert "sync, rolled back" in result.stdout
    for line in (
        "inserted  id=5: name='a\\nb'  price=NULL",
        "updated   id=2: name old → new",
        "deleted   id=3: name=gone  price=3.00",
    ):
        assert line in result.stdout.splitlines()
    assert "\x1b" not in result.stdout


def test_notes_go_to_stderr(invoke: Invoke, database: Database, tmp_path: Any) -> None:
    database.execute("CREATE TABLE s (id serial, v text)")
    (tmp_path / "s.csv").write_text("v\na\n")
    result = invoke("load", "s.csv", "--dry-run")
    assert result.code == 0
    assert "sequence public.s_id_seq" in result.stderr
    assert "inserted  v=a" in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("-m", "append", "--key", "id"),
        ("-m", "replace", "--keep", "id"),
        ("-m", "sync", "--newest-by", "id"),
        ("-m", "upsert", "--max-delete", "5"),
        ("-m", "upsert", "--no-block"),
        ("-m", "sync", "--max-delete", "-1"),
        ("-m", "sync", "--max-delete", "101%"),
        ("-m", "sync", "--max-delete", "x"),
        ("-m", "sync", "--max-delete", "nan%"),
    ],
)
def test_options_without_a_meaning(invoke: Invoke, tmp_path: Any, options: tuple[str, ...]) -> None:
    (tmp_path / "items.csv").write_text(FEED)
    result = invoke("load", "items.csv", *options)
    assert (result.code, result.stdout) == (2, "")
    assert options[2] in result.stderr
