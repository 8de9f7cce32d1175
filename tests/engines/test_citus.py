"""What Citus must be spared: rows of the target on their way through the coordinator, an attempt for each bad row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.engines.servers import Engines
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

# A merge that moved the target to the coordinator would meet this limit: its rows are 20 MB.
TIGHT = "?options=-c%20citus.max_intermediate_result_size%3D1MB"
ROWS = 20_000
WIDE = "x" * 1000


@dataclass(frozen=True)
class Cluster:
    """A coordinator with a ledger."""

    url: str
    invoke: Invoke

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                found = cursor.fetchall() if cursor.description else []
        return found

    def load(self, file: Path, *options: str) -> dict[str, Any]:
        done = self.invoke("load", file, "--json", *options, env={"HARBORCTL_URL": self.url + TIGHT})
        return {"code": done.code, "stderr": done.stderr, **json.loads(done.stdout)}


@pytest.fixture
def citus(engines: Engines, invoke: Invoke) -> Iterator[Cluster]:
    if engines.citus is None:
        pytest.skip("citus is not installed beside these programs: see tests/engines/README.md")
    cluster = Cluster(engines.citus, invoke)
    assert invoke("migrate", "up", "ledger", env={"HARBORCTL_URL": cluster.url}).code == 0
    yield cluster
    cluster.execute("DROP TABLE IF EXISTS wide, kinds CASCADE")


@pytest.fixture
def wide(citus: Cluster) -> Cluster:
    """With a table `wide` of 20 MB."""
    citus.execute(
        "CREATE TABLE kinds (kind int PRIMARY KEY)",
        "SELECT create_reference_table('kinds')",
        "INSERT INTO kinds SELECT generate_series(0, 9)",
        "CREATE TABLE wide (id bigint PRIMARY KEY, kind int NOT NULL REFERENCES kinds, price numeric(12,2)"
        " CONSTRAINT price_ok CHECK (price >= 0), note text)",
        "SELECT create_distributed_table('wide', 'id', shard_count => 8)",
        f"INSERT INTO wide SELECT n, n % 10, n, '{WIDE}' FROM generate_series(1, {ROWS}) AS n",
        "ANALYZE wide",
    )
    return citus


Feed = Callable[..., Path]


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    def write(rows: list[tuple[object, ...]], names: tuple[str, ...] = ("id", "kind", "price", "note")) -> Path:
        path = tmp_path / "wide.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])
        return path

    return write


# Of 2 000 rows a half is there: one in two of these is different.
ROWS_OF_FEED = [(n, n % 10, n + n % 2, WIDE) for n in range(ROWS - 999, ROWS + 1001)]


@pytest.mark.parametrize("is_rejecting", [False, True])
@pytest.mark.parametrize("mode", ["ignore", "upsert", "sync"])
def test_nothing_of_the_target_is_moved(wide: Cluster, feed: Feed, mode: str, *, is_rejecting: bool) -> None:
    options = ["--max-delete", "100%"] if mode == "sync" else []
    options += ["--on-error", "reject"] if is_rejecting else []
    done = wide.load(feed(ROWS_OF_FEED), "--mode", mode, *options)
    assert (done["code"], done["inserted"]) == (0, 1000), done["stderr"]
    assert done["stderr"] == ""  # it would warn of a merge on the coordinator
    assert done["updated"] == (0 if mode == "ignore" else 500)
    assert done["deleted"] == (ROWS - 1000 if mode == "sync" else 0)
    [(rows, changed)] = wide.execute("SELECT count(*), count(*) FILTER (WHERE price <> id) FROM wide")
    assert rows == (2000 if mode == "sync" else ROWS + 1000)
    assert changed == (500 if mode == "ignore" else 1000)
    assert not wide.execute("SELECT relname FROM pg_class WHERE relname LIKE 'harborctl_staging%'")


def test_some_columns_only(wide: Cluster, feed: Feed) -> None:
    rows = [row[:3] for row in ROWS_OF_FEED]
    done = wide.load(feed(rows, ("id", "kind", "price")), "--mode", "upsert")
    assert (done["inserted"], done["updated"], done["unchanged"]) == (1000, 500, 500)
    again = wide.load(feed(rows, ("id", "kind", "price")), "--mode", "upsert", "--newest-by", "price")
    assert (again["inserted"], again["updated"], again["unchanged"]) == (0, 0, 2000)


BAD = {
    "check": [(n, 1, -1 if n % 6 == 0 else 1, "") for n in range(30_000, 36_000)],
    "foreign key": [(n, 99 if n % 6 == 0 else 1, 1, "") for n in range(30_000, 36_000)],
    "key in the table": [(n // 6 if n % 6 == 0 else n, 1, 1, "") for n in range(30_000, 36_000)],
    "key in the file": [(n - 1 if n % 6 == 0 else n, 1, 1, "") for n in range(30_001, 36_001)],
    "all of them": [
        (n // 6 if n % 24 == 0 else n, 99 if n % 24 == 6 else 1, "abc" if n % 24 == 12 else -(n % 24 == 18), "")
        for n in range(30_000, 36_000)
    ],
}
CODES = {"check": "23514", "foreign key": "23503", "key in the table": "23505", "key in the file": "23505"}


@pytest.mark.parametrize("kind", BAD)
def test_a_thousand_bad_rows(wide: Cluster, feed: Feed, kind: str) -> None:
    done = wide.load(feed(BAD[kind]), "--on-error", "reject", "--force")
    assert (done["code"], done["inserted"], done["rejected"]) == (4, 5000, 1000), done["stderr"]
    assert wide.execute("SELECT count(*) FROM wide") == [(ROWS + 5000,)]
    codes = {reason["code"] for reason in done["reject_reasons"]}
    assert codes == ({CODES[kind]} if kind in CODES else {"23505", "23503", "22P02", "23514"})
    assert not [reason for reason in done["reject_reasons"] if "wide_1" in reason["message"]]
    assert done["seconds"] < 60  # four minutes, when each bad row took an attempt of its own


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ((30_002, 1, -1, ""), "23514"),
        ((30_002, 99, 1, ""), "23503"),
        ((1, 1, 1, ""), "23505"),
        ((2, "", 1, ""), "23502"),
    ],
)
def test_the_row_that_ends_a_load_is_named(
    wide: Cluster, feed: Feed, mode: str, bad: tuple[object, ...], code: str
) -> None:
    if mode == "upsert" and code == "23505":
        pytest.skip("an upsert updates the row")
    done = wide.load(feed([(30_001, 1, 1, ""), bad, (30_003, 1, 1, "")]), "--mode", mode)
    assert (done["code"], done["error"]["code"], done["error"]["line"]) == (1, code, 3)
    assert "_10" not in done["error"]["message"]
