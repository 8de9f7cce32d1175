"""Many at once, and killed at any moment: nothing is sold twice, and every snapshot adds up.

HARBORCTL_TEST_STOCK_ROUNDS makes so many rounds with 22 processes each, of which 16 fight for 100 mugs, and takes 200
snapshots in each; without it there are a few threads. HARBORCTL_TEST_STOCK_KILLS kills so many clients, and restarts
the server a fifth as often.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from harborctl.db.engine import open_database
from harborctl.db.migrations import upgrade
from harborctl.embedded.server import Server
from harborctl.errors import StockRefused
from harborctl.model import ConnectionOptions
from harborctl.stock.expire import expire
from harborctl.stock.feed import reserve_all
from harborctl.stock.orders import Line, Order
from harborctl.stock.settle import confirm, release
from harborctl.stock.transaction import changing_stock
from tests.conftest import engine_of
from tests.inprocess import Invoke

ROUNDS = int(os.environ.get("HARBORCTL_TEST_STOCK_ROUNDS", "0"))
KILLS = int(os.environ.get("HARBORCTL_TEST_STOCK_KILLS", "0"))
SNAPSHOTS = 200 if ROUNDS else 20

# The first is what all want.
START = {"MUG": 100, "A": 300, "B": 300, "C": 300, "D": 300}
EMPTY = """
    TRUNCATE harbor.products, harbor.variants, harbor.stock_reservations, harbor.stock_movements;
    INSERT INTO harbor.products (id, sku, name, category, price_cents) VALUES (1, 'P', 'P', 'things', 100)"""
SHOP = """
    INSERT INTO harbor.variants (id, product_id, sku, color, price_cents, stock_qty)
    SELECT n, 1, key, key, 100, value::int FROM json_each_text(%s) WITH ORDINALITY AS v (key, value, n)"""
# One statement sees one moment.
SNAPSHOT = """
    SELECT variant.sku, variant.stock_qty,
           coalesce(sum(reservation.quantity) FILTER (WHERE reservation.state = 'active'), 0) AS held,
           coalesce(sum(reservation.quantity) FILTER (WHERE reservation.state = 'fulfilled'), 0) AS sold,
           (SELECT sum(delta) FROM harbor.stock_movements WHERE variant_id = variant.id) AS moved
    FROM harbor.variants AS variant LEFT JOIN harbor.stock_reservations AS reservation
        ON reservation.variant_id = variant.id
    GROUP BY variant.id"""


def set_up(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EMPTY)
        connection.execute(SHOP, [json.dumps(START)])


def check_snapshot(connection: psycopg.Connection) -> None:
    for sku, free, held, sold, moved in connection.execute(SNAPSHOT).fetchall():
        assert free >= 0
        assert free + held + sold == START[sku], (sku, free, held, sold)
        assert moved == free, (sku, free, moved)


# ---- many at once

Counts = Counter[str]


def work(kind: str, url: str, stop: Path, seed: int) -> Counts:
    """Do one thing again and again until `stop` is there; how often what came out."""
    chosen, counts, number = random.Random(seed), Counter[str](), 0  # noqa: S311  # repeatable
    with open_database(ConnectionOptions(url=url)) as database:
        while not stop.exists():
            number += 1
            act(kind, database.engine, f"{seed}-{number}", chosen, counts)
    return counts


def act(kind: str, engine: sqlalchemy.Engine, name: str, chosen: random.Random, counts: Counts) -> None:
    if kind == "expire":
        counts["expired"] += sum(done.reservations for done in expire(engine, chosen.randint(1, 10)))
        return
    if kind == "release":
        with engine.connect() as connection:
            query = "SELECT order_ref FROM harbor.stock_reservations WHERE state = 'active' ORDER BY random() LIMIT 1"
            found = connection.scalar(sqlalchemy.text(query))
        end = confirm if chosen.random() < 0.02 else release
        try:
            with changing_stock(engine) as connection:
                counts[end.__name__] += len(end(connection, found or ""))
        except StockRefused as error:
            counts[error.code] += 1
        return
    skus = ["MUG"] if kind == "mug" else chosen.sample(list(START), 3)
    orders = [Order(name, tuple(Line(sku, 1) for sku in skus))]
    # Most run out at once, or there would soon be nothing left to fight for.
    minutes = chosen.choice((0, 0, 0, 15))
    [[result]] = reserve_all(engine, orders, minutes, batch=1, jobs=1, warn=lambda _: counts.update(["again"]))
    counts[result.answer] += 1
    counts["pieces"] += len(result.reservations)


WORKERS = ["mug"] * 16 + ["basket"] * 4 + ["expire", "release"]
FEW = ["mug"] * 3 + ["basket"] * 2 + ["expire", "release"]


@pytest.mark.parametrize("number", range(max(ROUNDS, 1)))
def test_many_at_once(
    database_url: str, invoke: Invoke, tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    workers = WORKERS if ROUNDS else FEW
    set_up(database_url)
    stop = tmp_path / "stop"
    pool: Executor = ThreadPoolExecutor(len(workers))
    if ROUNDS:
        pool = ProcessPoolExecutor(len(workers), mp_context=multiprocessing.get_context("spawn"))
    with pool, psycopg.connect(database_url, autocommit=True) as connection:
        running = [
            pool.submit(work, kind, database_url, stop, number * 100 + place) for place, kind in enumerate(workers)
        ]
        try:
            sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            deadline = time.monotonic() + 120
            while connection.execute(sessions).fetchone() != (len(workers) + 1,):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            reserved = "SELECT count(*) FROM harbor.stock_movements WHERE reason = 'reserved'"
            [before] = connection.execute(reserved).fetchone() or (0,)
            started = time.monotonic()
            for _ in range(SNAPSHOTS):
                check_snapshot(connection)
                time.sleep(0.02)
            seconds = time.monotonic() - started
            [after] = connection.execute(reserved).fetchone() or (0,)
        finally:
            stop.touch()
        counts = sum((each.result() for each in running), Counter[str]())
        check_snapshot(connection)
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert connection.execute(deadlocks).fetchone() == (0,)
    assert counts["again"] == 0
    assert counts["pieces"]
    assert counts["expired"]
    assert counts["release"]
    if ROUNDS:
        with capfd.disabled():
            sys.stdout.write(f"\n{(after - before) / seconds:,.0f} reservations/s in {seconds:.1f} s, {dict(counts)}\n")
    check_ledger(invoke)


def check_ledger(invoke: Invoke, *arguments: str) -> None:
    done = invoke("report", "stock_ledger", "--format", "json", *arguments)
    assert (done.code, json.loads(done.stdout), done.stderr) == (0, [], "")


# ---- killed at any moment


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own, to be killed."""
    server = Server(tmp_path_factory.mktemp("killed"))
    with server.leased():
        engine = engine_of(server.url)
        upgrade(engine)
        engine.dispose()
        yield server


def started(url: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harborctl", "stock", *map(str, arguments), "--url", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def orders_file(folder: Path, number: int) -> Path:
    """Orders of one to three variants, of which some cannot be filled."""
    chosen = random.Random(number)  # noqa: S311  # repeatable
    file = folder / "orders.csv"
    lines = (
        f"O-{number}-{order},{sku},1\n"
        for order in range(400)
        for sku in chosen.sample(list(START), chosen.randint(1, 3))
    )
    file.write_text("order,sku,qty\n" + "".join(lines))
    return file


def make_overdue(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE harbor.stock_reservations SET expires_at = now() WHERE id % 3 > 0")


def check_all(url: str) -> None:
    """What was killed has not gone from the server yet, perhaps: its transaction goes with it."""
    with psycopg.connect(url, autocommit=True) as connection:
        gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'harborctl'"
        deadline = time.monotonic() + 30
        while connection.execute(gone).fetchone() != (0,):
            check_snapshot(connection)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        check_snapshot(connection)


COMMANDS: dict[str, tuple[str, ...]] = {
    "jobs": ("reserve", "--batch", "3", "--jobs", "3", "--from"),
    "reserve": ("reserve", "--batch", "3", "--from"),
    "expire": ("expire", "--batch", "3"),
}


def test_killed_clients(server: Server, invoke: Invoke, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is killed, and whenever; run again to the end, it has done what it was to do, once."""
    usual = dict.fromkeys(COMMANDS, 1.5)
    hits = 0
    for number in range(KILLS or 1):
        kind = list(COMMANDS)[number % len(COMMANDS)]
        if number % len(COMMANDS) == 0:
            set_up(server.url)
        if kind == "expire":
            make_overdue(server.url)
        source = [orders_file(tmp_path, number)] if kind != "expire" else []
        process = started(server.url, *COMMANDS[kind], *source)
        time.sleep(random.uniform(0.3, 1.05) * usual[kind])  # noqa: S311  # no secret
        process.kill()
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
        check_all(server.url)
        began = time.monotonic()
        again = started(server.url, *COMMANDS[kind], *source)
        out, err = again.communicate(timeout=120)
        usual[kind] = (usual[kind] + time.monotonic() - began) / 2
        assert again.returncode in {0, 1, 4}, err
        check_all(server.url)
        if source:
            told = Counter(json.loads(line)["order"] for line in out.splitlines())
            assert sorted(told.values()) == [1] * 400
        check_ledger(invoke, "--url", server.url)
    if KILLS:
        with capfd.disabled():
            sys.stdout.write(f"\n{hits} of {KILLS} were killed before they were done\n")


def test_restarted_server(server: Server, invoke: Invoke, tmp_path: Path) -> None:
    """A service and a feed live through it: what they were doing is done by the server that comes up."""
    set_up(server.url)
    watching = started(server.url, "expire", "--batch", "5", "--watch", "0.1")
    try:
        for number in range(KILLS // 5 or 1):
            feeding = started(server.url, *COMMANDS["jobs"], orders_file(tmp_path, 10_000 + number))
            time.sleep(random.uniform(0.6, 2.0))  # noqa: S311  # no secret
            pid = server.state().pid
            assert pid is not None
            os.kill(pid, signal.SIGQUIT)
            server.stop()
            server.start()
            out, err = feeding.communicate(timeout=120)
            assert feeding.returncode in {0, 1, 4}, err
            assert len({json.loads(line)["order"] for line in out.splitlines()}) == 400
            make_overdue(server.url)
            with psycopg.connect(server.url, autocommit=True) as connection:
                overdue = (
                    "SELECT count(*) FROM harbor.stock_reservations WHERE state = 'active' AND expires_at <= now()"
                )
                deadline = time.monotonic() + 60
                while connection.execute(overdue).fetchone() != (0,):
                    assert watching.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                check_snapshot(connection)
            check_ledger(invoke, "--url", server.url)
    finally:
        watching.terminate()
        out, err = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "Traceback" not in err
    assert "expired" in out
