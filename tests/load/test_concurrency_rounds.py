"""Random loads beside another session that writes between any two of their statements: the outcome is that of an order.

The other session comes in at a random statement of the load. It waits for no lock: if it cannot write it gives up, and
has not been. Afterwards the table is as if the load and the others had run one after the other (in upsert and
ignore, which lock nothing that is equal, each row by itself is), or the load failed and has not been.

HARBORCTL_TEST_CONCURRENT_ROUNDS says how many rounds there are for each shape of table.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.load.run.loader import LoadFailed
from harborctl.model import Limit
from tests.conftest import ours
from tests.load.direct import counts, csv_text, load_file
from tests.load.sizes import CONCURRENT_ROUNDS

Database = psycopg.Connection[Any]
Rows = dict[int, str]

MODES = ("append", "ignore", "upsert", "upsert", "sync", "sync", "replace")
SHAPES = {
    "plain": "CREATE TABLE t (id integer PRIMARY KEY, v text)",
    "partitioned": "CREATE TABLE t (id integer PRIMARY KEY, v text) PARTITION BY HASH (id);"
    "CREATE TABLE p0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
    "CREATE TABLE p1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "triggered": "CREATE TABLE t (id integer PRIMARY KEY, v text);"
    "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
    "CREATE TRIGGER pass BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pass()",
    "defaults": "CREATE TABLE t (id integer PRIMARY KEY, v text, made timestamptz DEFAULT now())",
}


def after_other(table: Rows, statements: list[tuple[str, int]]) -> Rows:
    """What the other session makes of the table."""
    result = dict(table)
    for kind, number in statements:
        if kind == "insert":
            result.setdefault(number, "other")
        elif kind == "delete":
            result.pop(number, None)
        elif kind == "update" and number in result:
            result[number] = "other"
    return result


def after_load(table: Rows, feed: Rows, mode: str) -> Rows | None:
    """What the load makes of it; None if it fails."""
    if mode == "append":
        return None if table.keys() & feed.keys() else table | feed
    if mode == "ignore":
        return feed | table
    return table | feed if mode == "upsert" else dict(feed)


def fates_of(before: Rows, feed: Rows, mode: str) -> dict[int, str]:
    """What becomes of each row of a load that meets these rows."""
    there = {"ignore": "skipped"}.get(mode)
    fates = {}
    for key, value in feed.items():
        is_new = key not in before or mode in {"append", "replace"}
        fates[key] = "inserted" if is_new else there or ("unchanged" if before[key] == value else "updated")
    return fates


def orders(
    before: Rows, feed: Rows, mode: str, written: list[list[tuple[str, int]]], *, has_failed: bool
) -> Iterator[tuple[Rows, dict[str, int], dict[int, str]]]:
    """The rows, the account and the fates of each order in which the load and the others may have run."""
    for first in range(len(written) + 1):
        table = before
        for statements in written[:first]:
            table = after_other(table, statements)
        loaded = table if has_failed else after_load(table, feed, mode)
        if loaded is None:
            continue
        fates = fates_of(table, feed, mode)
        deleted = {"replace": len(table), "sync": len(table.keys() - feed.keys())}.get(mode, 0)
        told = Counter(fates.values()) + Counter(deleted=deleted)
        for statements in written[first:]:
            loaded = after_other(loaded, statements)
        yield loaded, dict(told), fates


def write_as_other(database_url: str, statements: list[tuple[str, int]]) -> bool:
    """Write all, or nothing if a lock is not to be had; whether it was written."""
    texts = {
        "insert": "INSERT INTO t VALUES (%s, 'other') ON CONFLICT DO NOTHING",
        "delete": "DELETE FROM t WHERE id = %s",
        "update": "UPDATE t SET v = 'other' WHERE id = %s",
        "lock": "SELECT FROM t WHERE id = %s FOR UPDATE",
    }
    with psycopg.connect(database_url) as other:
        other.execute("SET lock_timeout = '10ms'")
        try:
            for kind, number in statements:
                other.execute(texts[kind], [number])
        except psycopg.errors.LockNotAvailable:
            other.rollback()
            return False
    return True


@pytest.mark.parametrize("shape", SHAPES)
def test_the_outcome_is_that_of_an_order(
    database: Database,
    engine: sqlalchemy.Engine,
    database_url: str,
    tmp_path: Path,
    shape: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # reject files go there
    database.execute(SHAPES[shape])
    draw = random.Random(shape)  # noqa: S311  # not for secrets
    due: list[int] = []  # how many statements of the load are left until the others come in
    planned: list[list[tuple[str, int]]] = []
    written: list[list[tuple[str, int]]] = []

    def come_in(*_: Any) -> None:
        for position, left in enumerate(due):
            due[position] = left - 1
            if left == 0 and write_as_other(database_url, planned[position]):
                written.append(planned[position])

    sqlalchemy.event.listen(ours(engine), "before_cursor_execute", come_in)
    for number in range(CONCURRENT_ROUNDS):
        before = {key: draw.choice("ab") for key in draw.sample(range(8), draw.randint(0, 8))}
        feed = {key: draw.choice("ab") for key in draw.sample(range(8), draw.randint(1, 8))}
        mode, writer = draw.choice(MODES), draw.choice(["values", "copy"])
        settings: dict[str, Any] = {"no_block": True} if mode == "replace" else {}
        if mode == "sync":
            settings = {"max_delete": Limit(percent=100)}
        if draw.random() < 0.3:
            settings["on_error"] = "reject" if mode in {"upsert", "ignore"} else "abort"
        planned[:] = [
            [
                (draw.choice(["insert", "delete", "update", "lock"]), draw.randint(0, 9))
                for _ in range(draw.randint(1, 4))
            ]
            for _ in range(draw.randint(1, 2))
        ]
        written.clear()
        due.clear()
        database.execute("TRUNCATE t")
        database.cursor().executemany("INSERT INTO t VALUES (%s, %s)", before.items())
        path = tmp_path / "t.csv"
        path.write_text(csv_text([{"id": key, "v": value} for key, value in feed.items()]))
        due[:] = sorted(draw.randint(0, 30) for _ in planned)
        account: dict[str, int] | None
        try:
            account = counts(load_file(engine, path, "t", mode, writer=writer, **settings))
        except LoadFailed as failed:
            account = None
            if failed.error.code not in {"23505", "concurrent_changes", "40P01"}:
                raise
        due.clear()
        found = dict(database.execute("SELECT id, v FROM t").fetchall())
        story = (number, shape, mode, writer, settings, before, feed, written, account, found)
        outcomes = list(orders(before, feed, mode, written, has_failed=account is None))
        if mode in {"sync", "replace", "append"} or account is None:
            assert any(found == table and (account is None or account == told) for table, told, _ in outcomes), story
            continue
        # Rows that are equal are neither written nor locked: of each row by itself there is an order.
        assert all(found.get(key) in {table.get(key) for table, _, _ in outcomes} for key in range(10)), story
        possible = [{fates[key] for _, _, fates in outcomes} for key in feed]
        assert sum(account.values()) == len(feed), story
        for fate, count in account.items():
            surely, perhaps = sum(each == {fate} for each in possible), sum(fate in each for each in possible)
            assert surely <= count <= perhaps, story
