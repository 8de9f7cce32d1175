"""The options of the pool reach the engine, and what it does is told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from harborctl.db.engine import open_database
from harborctl.db.pool import WatchedPool
from harborctl.errors import TooFewSessions, UsageError
from harborctl.model import ConnectionOptions, PoolOptions
from tests.conftest import Harborctl, execute
from tests.inprocess import Invoke, invoke
from tests.stock.conftest import SHOP

__all__ = ["invoke"]


def set_to(options: ConnectionOptions) -> tuple[Any, ...]:
    """Size, overflow, seconds to wait and to live of the pool that these options make."""
    with open_database(options) as database:
        pool = database.engine.pool
        assert isinstance(pool, WatchedPool)
        return pool.size(), pool._max_overflow, pool.timeout(), pool._recycle


def test_by_default(database_url: str) -> None:
    assert set_to(ConnectionOptions(url=database_url)) == (5, -1, 30, -1)


def test_options_go_before_the_file(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "harborctl.toml"
    file.write_text(
        f'[connections.a]\nurl = "{database_url}"\npool_size = 3\nmax_overflow = 0\n'
        "pool_timeout = 1.5\npool_recycle = 60\n"
    )
    named = ConnectionOptions(name="a", config=str(file))
    assert set_to(named) == (3, 0, 1.5, 60)
    said = ConnectionOptions(name="a", config=str(file), pool=PoolOptions(max_overflow=-1, pool_recycle=9))
    assert set_to(said) == (3, -1, 1.5, 9)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pool_size = 0", "connections.a.pool_size in .* must be a whole number, 1 or more"),
        ("pool_size = 1.5", "connections.a.pool_size in .* must be a whole number, 1 or more"),
        ("pool_size = true", "connections.a.pool_size in .* must be a whole number, 1 or more"),
        ("max_overflow = -2", "connections.a.max_overflow in .* must be a whole number, -1 or more"),
        ('pool_timeout = "1"', "connections.a.pool_timeout in .* must be a number, 0 or more"),
        ("pool_recycle = 0", "connections.a.pool_recycle in .* must be a whole number, 1 or more"),
        ("pool_sise = 1", "has an unknown key connections.a.pool_sise"),
    ],
)
def test_what_the_file_may_not_say(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "harborctl.toml"
    file.write_text(f'[connections.a]\nurl = "postgresql://h/d"\n{line}\n')
    with pytest.raises(UsageError, match=message):
        set_to(ConnectionOptions(name="a", config=str(file)))


def test_use_is_told(engine: Engine, invoke: Invoke, tmp_path: Path) -> None:
    execute(engine, *SHOP)
    (tmp_path / "o.csv").write_text("order,sku,qty\n" + "".join(f"O-{number},MUG-W,1\n" for number in range(110)))
    options = ("--jobs", "3", "--batch", "2", "--pool-size", "1", "--max-overflow", "1", "--metrics-file", "m.prom")
    done = invoke("stock", "reserve", "--from", "o.csv", *options)
    assert (done.code, done.stderr) == (4, "110 orders: 100 reserved, 10 refused\n")
    lines = (tmp_path / "m.prom").read_text().splitlines()
    told = dict(line.split('{job="stock reserve"} ') for line in lines if "{" in line)
    assert (told["harborctl_orders_reserved"], told["harborctl_orders_refused"]) == ("100.0", "10.0")
    assert told["harborctl_exit_code"] == "4.0"
    assert told["harborctl_pool_checkouts"] == "56.0"  # one of them looks whether the tables are there
    assert told["harborctl_pool_overflow"] == "1.0"
    slowest, together = (float(told[f"harborctl_pool_checkout_{kind}seconds"]) for kind in ("longest_", ""))
    assert 0 < slowest < together


def test_a_session_that_does_not_become_free(
    engine: Engine, database_url: str, harborctl: Harborctl, tmp_path: Path
) -> None:
    execute(engine, *SHOP)
    (tmp_path / "o.csv").write_text("order,sku,qty\nA,MUG-W,1\nB,MUG-W,1\n")
    options = ("--jobs", "2", "--batch", "1", "--pool-size", "1", "--max-overflow", "0", "--pool-timeout", "0.2")
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT FROM harbor.variants WHERE id = 1 FOR UPDATE")
        running = pool.submit(harborctl, "stock", "reserve", "--from", "o.csv", "--lock-timeout", "5", *options)
        with psycopg.connect(database_url, autocommit=True) as watching:
            while watching.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() != (1,):
                assert not running.done()
            watching.execute("SELECT pg_sleep(0.5)")
        other.rollback()
        done = running.result()
    assert done.code == 3
    assert done.stderr == (
        "error: no session of the pool became free in time\n"
        "hint: Raise --pool-size or --max-overflow, or wait longer by --pool-timeout.\n"
    )


def test_a_load_that_needs_more_than_the_pool_gives(database_url: str, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    invoke("query", "SELECT 1")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int)")
    done = invoke(
        "load", "t.csv", "-t", "t", "--commit-every", "1", "--pool-size", "1", "--max-overflow", "0", "--json"
    )
    assert (done.code, json.loads(done.stdout)["error"]["code"]) == (3, TooFewSessions.default_code)
    assert "--pool-size" in done.stderr
    assert (
        invoke("load", "t.csv", "-t", "t", "--commit-every", "1", "--pool-size", "2", "--max-overflow", "0").code == 0
    )
