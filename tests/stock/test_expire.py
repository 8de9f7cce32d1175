"""Expire: what is overdue gives its pieces back once, whoever does it, and however often."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from harborctl.stock.expire import Expired, expire
from tests.conftest import Run, execute
from tests.inprocess import Invoke
from tests.stock.conftest import Stock, disagreeing, everything, free, movements, pass_time

Start = Callable[..., AbstractContextManager[subprocess.Popen[str]]]


def make_overdue(engine: Engine, orders: int, *, variants: int = 3) -> None:
    """So many reservations whose time is over, of one or two pieces, spread over variants, beside one that holds."""
    execute(
        engine,
        "UPDATE harbor.variants SET stock_qty = 1000",
        f"""INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, expires_at)
            SELECT 1 + n % {variants}, 'O-' || n, 1 + n % 2, now() - interval '1 second' * (n / 4)
            FROM generate_series(1, {orders}) AS n""",
        "INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, expires_at)"
        " VALUES (1, 'HOLDS', 7, now() + interval '1 hour')",
    )


def states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        query = text("SELECT state, count(*) FROM harbor.stock_reservations GROUP BY state")
        return {row[0]: row[1] for row in connection.execute(query)}


def test_what_is_overdue_is_ended(shop: Engine, stock: Stock, invoke: Invoke) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    stock("reserve", "MUG-B", "--qty", "2", "--order", "A-1")
    stock("reserve", "MUG-W", "--qty", "4", "--order", "A-2")
    stock("reserve", "TEE-R", "--qty", "1", "--order", "A-3")
    stock("confirm", "A-3")
    pass_time(shop)
    stock("reserve", "MUG-W", "--qty", "5", "--order", "A-4")
    assert invoke("stock", "expire") == Run(0, "expired 3 reservations, of 9 pieces\n", "")
    assert free(shop) == {"MUG-W": 95, "MUG-B": 10, "TEE-R": 4, "TEE-G": 0}
    assert sorted(movements(shop)[-3:]) == [
        (1, "A-1", 3, "expired"),
        (1, "A-2", 4, "expired"),
        (2, "A-1", 2, "expired"),
    ]
    assert disagreeing(shop) == []
    before = everything(shop)
    assert invoke("stock", "expire") == Run(0, "", "")
    document = stock("expire")
    assert (document["status"], document["reservations"], document["pieces"]) == ("expired", 0, 0)
    assert everything(shop) == before
    assert [each["state"] for each in stock("show", "A-1")["reservations"]] == ["expired", "expired"]


@pytest.mark.parametrize("batch", [1, 10, 1000])
def test_batches(shop: Engine, batch: int) -> None:
    """Each is a transaction of its own, also where many run out at one moment."""
    make_overdue(shop, 40)
    done = list(expire(shop, batch))
    assert sum(done, Expired()) == Expired(40, 60)
    assert [each.reservations for each in done[:-1]] == [batch] * (len(done) - 1)
    with shop.connect() as connection:
        moments = connection.scalar(
            text("SELECT count(DISTINCT at) FROM harbor.stock_movements WHERE reason = 'expired'")
        )
    assert moments == len(done)
    assert states(shop) == {"expired": 40, "active": 1}
    assert sum(free(shop).values()) == 4060
    assert disagreeing(shop) == []
    assert list(expire(shop, batch)) == []


def test_moments_without_end(shop: Engine) -> None:
    make_overdue(shop, 3)
    execute(shop, "UPDATE harbor.stock_reservations SET expires_at = '-infinity' WHERE order_ref = 'O-1'")
    execute(shop, "UPDATE harbor.stock_reservations SET expires_at = 'infinity' WHERE order_ref = 'HOLDS'")
    assert sum(expire(shop, 1), Expired()) == Expired(3, 5)


def test_what_others_have_locked_is_left_to_them(shop: Engine, database_url: str, invoke: Invoke) -> None:
    """Nobody waits for another host that expires, too; and of what it rolls back the next run takes care."""
    make_overdue(shop, 10)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM harbor.stock_reservations WHERE order_ref IN ('O-1', 'O-2') FOR UPDATE")
        assert invoke("stock", "expire", "--batch", "3").stdout == "expired 8 reservations, of 12 pieces\n"
        other.rollback()
    assert invoke("stock", "expire").stdout == "expired 2 reservations, of 3 pieces\n"
    assert disagreeing(shop) == []


def test_stock_that_changes_meanwhile(shop: Engine, database_url: str, start: Start) -> None:
    """The variant's row is locked by somebody who changes it: pieces are added to what that makes of it."""
    make_overdue(shop, 10, variants=1)
    with psycopg.connect(database_url) as other:
        other.execute("UPDATE harbor.variants SET stock_qty = stock_qty - 400 WHERE id = 1")
        with start("stock", "expire") as process:
            wait_until(shop, "SELECT count(*) FROM pg_locks WHERE NOT granted")
            other.commit()
            assert process.communicate(timeout=60) == ("expired 10 reservations, of 15 pieces\n", "")
    assert free(shop)["MUG-W"] == 615
    assert disagreeing(shop) == []


def test_metrics_and_pings(shop: Engine, invoke: Invoke, tmp_path: Path, watcher: tuple[str, list[str]]) -> None:
    url, called = watcher
    make_overdue(shop, 10)
    arguments = ("stock", "expire", "--metrics-file", "m.prom", "--ping", url)
    assert invoke(*arguments).code == 0
    told = (tmp_path / "m.prom").read_text()
    assert 'harborctl_expired_reservations{job="stock expire"} 10.0' in told
    assert 'harborctl_expired_pieces{job="stock expire"} 15.0' in told
    assert 'harborctl_exit_code{job="stock expire"} 0.0' in told
    execute(shop, "ALTER TABLE harbor.variants ADD CONSTRAINT small CHECK (stock_qty < 1000) NOT VALID")
    execute(shop, "UPDATE harbor.stock_reservations SET expires_at = now() WHERE order_ref = 'HOLDS'")
    before = everything(shop)
    assert invoke(*arguments).code == 1
    assert everything(shop) == before
    assert 'harborctl_exit_code{job="stock expire"} 1.0' in (tmp_path / "m.prom").read_text()
    assert called == ["/ping/1/start", "/ping/1", "/ping/1/start", "/ping/1/fail"]


@pytest.mark.parametrize("arguments", [("--batch", "0"), ("--watch", "0"), ("--watch", "x"), ("--ping", "ftp://x")])
def test_usage(shop: Engine, invoke: Invoke, arguments: tuple[str, str]) -> None:
    assert invoke("stock", "expire", *arguments).code == 2


# ---- --watch ----


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Start:
    """Starts `harborctl` as a process, which is gone at the end of the block."""

    @contextmanager
    def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "harborctl", *arguments],
            env={**os.environ, "HARBORCTL_URL": database_url, "HARBORCTL_HOME": str(tmp_path / "home")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    return started


def wait_until(engine: Engine, query: str, value: int = 1) -> None:
    deadline = time.monotonic() + 60
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.scalar(text(query)) != value:
            assert time.monotonic() < deadline
            time.sleep(0.02)


ACTIVE = "SELECT count(*) FROM harbor.stock_reservations WHERE state = 'active'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watch(shop: Engine, start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """It tells only of rounds that found something, outlives that its session is ended, and ends when it is told to."""
    metrics = str(tmp_path / "m.prom")
    with start("stock", "expire", "--watch", "0.1", "--json", "--metrics-file", metrics) as process:
        for _ in range(2):
            execute(
                shop,
                "INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, expires_at)"
                " VALUES (1, 'A', 2, now()), (1, 'B', 3, now())",
            )
            wait_until(shop, ACTIVE, 0)
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'harborctl'"
            execute(shop, ended)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [json.loads(line)["reservations"] for line in out.splitlines()] == [2, 2]
    assert "Traceback" not in err
    assert 'harborctl_expired_pieces{job="stock expire"} 10.0' in Path(metrics).read_text()
    assert free(shop)["MUG-W"] == 110
    assert disagreeing(shop) == []


def test_a_batch_is_done_before_the_end(shop: Engine, database_url: str, start: Start) -> None:
    """SIGTERM while a batch waits for a row: it is done, and no other begun; of what stays the exit code tells."""
    make_overdue(shop, 10, variants=1)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM harbor.variants WHERE id = 1 FOR UPDATE")
        with start("stock", "expire", "--batch", "4") as once:
            wait_until(shop, "SELECT count(*) FROM pg_locks WHERE NOT granted")
            with start("stock", "expire", "--watch", "60") as watching:
                wait_until(shop, "SELECT count(*) FROM pg_locks WHERE NOT granted", 2)
                once.send_signal(signal.SIGTERM)
                watching.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                other.rollback()
                assert once.communicate(timeout=60) == ("", "error: interrupted: 4 reservations have been expired\n")
                assert watching.communicate(timeout=60)[0].startswith("expired 6 reservations")
    assert (once.returncode, watching.returncode) == (130, 0)
    assert states(shop) == {"expired": 10, "active": 1}


def test_whoever_asks_twice_does_not_wait(shop: Engine, database_url: str, start: Start) -> None:
    make_overdue(shop, 10, variants=1)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM harbor.variants WHERE id = 1 FOR UPDATE")
        with start("stock", "expire", "--watch", "60") as process:
            wait_until(shop, "SELECT count(*) FROM pg_locks WHERE NOT granted")
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.5)  # psycopg looks for signals ten times a second
            process.communicate(timeout=60)
    assert process.returncode == 130
    assert states(shop) == {"active": 11}
