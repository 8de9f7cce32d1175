"""How fast stock is reserved and expired, against the server doing the same with nobody in between.

`--from` is measured by pgbench, which sends the same statements with the same values, as they were recorded. `expire`
is measured by one bare UPDATE of the same rows; meanwhile others read and reserve, and a table says how long it takes.
Processor time is that of the client and of all processes of the server: it is the same whatever else the machine does.

    python benchmarks/stock.py [--runs 3] [--orders 20000] [--reservations 5000000] [--only from|expire] [--home DIR]

With --home the server's data stays there, and a later run finds the reservations made; --runs 0 only makes them.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import event

from harborctl.db.engine import set_up_transactions
from harborctl.embedded.programs import find_programs
from harborctl.embedded.server import Server
from harborctl.model import ConnectionOptions
from harborctl.stock.feed import reserve_all
from harborctl.stock.order_file import read_orders
from harborctl.stock.orders import Line, Order
from harborctl.stock.reserve import reserve
from harborctl.stock.transaction import changing_stock

RESULT = Path(__file__).with_name("STOCK.md")
HARBORCTL = Path(sys.executable).with_name("harborctl")

# Everything else is PostgreSQL's default; commits are waited for.
SETTINGS = {"max_wal_size": "8GB", "autovacuum": "off"}
VARIANTS = 1000
# Orders in one transaction of --from: one by one, and as it is by default.
BATCHES = (1, 100)

SHOP = f"""
    INSERT INTO harbor.products (id, sku, name, category, price_cents)
    SELECT n, 'P-' || n, 'Product ' || n, 'things', 100 FROM generate_series(1, {VARIANTS // 10}) AS n;
    INSERT INTO harbor.variants (id, product_id, sku, color, price_cents, stock_qty)
    SELECT n, 1 + (n - 1) / 10, 'V-' || n, n::text, 100, 1000000 FROM generate_series(1, {VARIANTS}) AS n"""

# A fifth has run out; of the rest some hold, most are history. Each has its movement.
HISTORY = """
    SET harbor.stock_movements = 'written';
    INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, state, expires_at, created_at)
    SELECT 1 + (hashint8(n) & 2147483647) % {variants}, 'O-' || n, 1 + n % 3,
           CASE WHEN n % 5 = 0 OR n % 10 = 1 THEN 'active' WHEN n % 2 = 0 THEN 'fulfilled' ELSE 'expired' END,
           now() + CASE WHEN n % 10 = 1 THEN interval '30 days' ELSE interval '-1 second' * ({count} - n) / 10 END,
           now() - interval '60 days' + interval '1 second' * n
    FROM generate_series(1, {count}) AS n;
    INSERT INTO harbor.stock_movements (variant_id, order_ref, delta, reason, at)
    SELECT variant_id, order_ref, -quantity, 'reserved', created_at FROM harbor.stock_reservations ORDER BY id"""
BARE = """UPDATE harbor.stock_reservations SET state = 'expired', updated_at = now()
    WHERE state = 'active' AND expires_at <= now()"""


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds by the clock and of the processor, the client's peak memory in MB."""

    clock: float
    processor: float
    memory: float = 0.0


@dataclass
class Waits:
    """Seconds that somebody took who does one thing again and again."""

    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        if not ordered:
            return "-"
        middle, rare = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.999)]
        return f"{middle * 1000:.1f} / {rare * 1000:.0f} / {ordered[-1] * 1000:.0f} of {len(ordered):,}"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each command")
    parser.add_argument("--orders", type=int, default=20_000, help="orders of --from")
    parser.add_argument("--reservations", type=int, default=5_000_000, help="of which a fifth is expired")
    parser.add_argument("--only", choices=["from", "expire"], help="one of the two")
    parser.add_argument("--home", type=Path, help="where the server's data stays")
    options = parser.parse_args()
    lines: list[str] = []
    with server(options.home) as url:
        prepare_history(url, options.reservations if options.only != "from" else 0)
        if not options.runs:
            return
        with psycopg.connect(url) as connection:
            version = connection.info.parameter_status("server_version")
        settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
        lines += [
            f"Medians of {options.runs} runs in turn; whole processes, start-up included.",
            f"PostgreSQL {version} ({settings}),",
            f"Python {platform.python_version()}, {os.cpu_count()} cores, client and server on one machine.",
            "",
        ]
        if options.only != "expire":
            lines += [*measure_from(url, options.orders, options.runs), ""]
        if options.only != "from":
            lines += [*measure_expire(url, options.reservations, options.runs), ""]
    report = "\n".join(lines)
    print(report)
    if not options.only:
        RESULT.write_text(report)


@contextmanager
def server(kept: Path | None) -> Iterator[str]:
    """A server of its own, with a template database `shop`."""
    home = kept or Path(tempfile.mkdtemp(prefix="harborctl-bench-"))
    embedded = Server(home)
    try:
        with embedded.leased():
            with psycopg.connect(embedded.url, autocommit=True) as connection:
                for name, value in SETTINGS.items():
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        with embedded.leased():
            if made(embedded.url, "shop", "template1"):
                shop = of(embedded.url, "shop")
                migrate: list[str | Path] = [HARBORCTL, "migrate", "up", "harbor", "--url", shop, "--quiet"]
                subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
                prepare(shop, SHOP)
            yield embedded.url
    finally:
        if not kept:
            shutil.rmtree(home)


def made(url: str, database: str, template: str) -> bool:
    """Make a database; False if it is there already."""
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            return False
        connection.execute(f"CREATE DATABASE {database} TEMPLATE {template}".encode())
        return True


def of(url: str, database: str) -> str:
    """The URL of another database of the server."""
    return sqlalchemy.make_url(url).set(database=database).render_as_string(hide_password=False)


def prepare(url: str, statements: str) -> None:
    """Run statements, and leave nothing for the server to do later."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())
        connection.execute("VACUUM (ANALYZE, FREEZE)")
        connection.execute("CHECKPOINT")


@contextmanager
def copied(url: str, template: str) -> Iterator[str]:
    """A copy of a database, whose pages are in the cache or not just as those of any other copy."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE measured TEMPLATE {template} STRATEGY file_copy".encode())
        connection.execute("CHECKPOINT")
        try:
            yield of(url, "measured")
        finally:
            connection.execute("DROP DATABASE measured WITH (FORCE)")


def engine_of(url: str) -> sqlalchemy.Engine:
    """An engine with the transactions of the program."""
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))
    set_up_transactions(engine, ConnectionOptions())
    return engine


def server_seconds(url: str) -> float:
    """Seconds of the processor that the server has used so far: those of its processes, ended ones included."""
    with psycopg.connect(url) as connection:
        backend = connection.info.backend_pid
        postmaster = int(Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[1])
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        # proc(5): utime, stime, cutime, cstime are the fields 14 to 17, and ppid is the fourth.
        if int(stat.parent.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def timed(url: str, command: list[str | Path], **settings: Any) -> Cost:
    """Run it to its end; what it took."""
    server, start, peak = server_seconds(url), time.perf_counter(), 0
    process = subprocess.Popen(command, **settings)
    # What wait4() tells of memory begins with that of the process that started it, which is ours, and large.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
        time.sleep(0.02)
    clock = time.perf_counter() - start
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    processor = usage.ru_utime + usage.ru_stime + server_seconds(url) - server
    return Cost(clock, processor, peak / 1024)


def middle(costs: list[Cost]) -> Cost:
    """Of each kind the median, of memory the most."""
    return Cost(
        statistics.median(each.clock for each in costs),
        statistics.median(each.processor for each in costs),
        max(each.memory for each in costs),
    )


def row(what: object, count: int, ours: list[Cost], base: list[Cost] | None = None) -> str:
    """A line of a table; the ratio is that of runs which followed each other."""
    cost = middle(ours)
    ratios = ["", ""]
    if base:
        pairs = list(zip(ours, base, strict=True))
        ratios = [
            f"**{statistics.median(o.clock / b.clock for o, b in pairs):.2f}**",
            f"**{statistics.median(o.processor / b.processor for o, b in pairs):.2f}**",
        ]
    return (
        f"| {what} | {cost.clock:.2f} | {ratios[0]} | {cost.processor:.2f} | {ratios[1]} | {count / cost.clock:,.0f} |"
        f" {cost.memory or 0:.0f} |"
    )


HEAD = (
    "| | clock s | ratio | processor s | ratio | reservations/s | client's peak MB |",
    "|---|---|---|---|---|---|---|",
)


# ---- reserve --from


def measure_from(url: str, count: int, runs: int) -> Iterator[str]:
    """The table of `stock reserve --from`."""
    yield f"`stock reserve --from`, {count:,} orders of one variant each, of {VARIANTS:,} variants:"
    yield ""
    yield from HEAD
    with tempfile.TemporaryDirectory() as name:
        orders = Path(name) / "orders.csv"
        chosen = random.Random(17)  # noqa: S311  # the same in each run
        lines = (f"O-{n},V-{chosen.randint(1, VARIANTS)},1\n" for n in range(count))
        orders.write_text("order,sku,qty\n" + "".join(lines))
        programs = find_programs()
        for batch in BATCHES:
            script = Path(name) / "statements.sql"
            with copied(url, "shop") as database:
                script.write_text("".join(f"{statement};\n" for statement in recorded(database, orders, batch)))
            script.chmod(0o644)
            theirs, ours = list[Cost](), list[Cost]()
            for _ in range(runs):
                with copied(url, "shop") as database:
                    bench: list[str | Path] = [programs.path("pgbench"), "-n", "-c", "1", "-t", "1"]
                    bench += ["-f", script, database]
                    theirs.append(timed(url, bench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                    check(database, count)
                with copied(url, "shop") as database, (Path(name) / "out").open("w") as out:
                    reserving: list[str | Path] = [HARBORCTL, "stock", "reserve", "--from", orders]
                    reserving += ["--batch", str(batch), "--url", database, "--quiet"]
                    ours.append(timed(url, reserving, stdout=out))
                    check(database, count)
            yield row(f"pgbench, {batch} in a transaction", count, theirs)
            yield row(f"harborctl, {batch} in a transaction", count, ours, theirs)


def recorded(url: str, orders: Path, batch: int) -> list[str]:
    """The statements by which `--from` reserves, with their values."""
    engine, statements = engine_of(url), list[str]()
    for word in ("BEGIN", "COMMIT", "ROLLBACK"):
        event.listen(engine, word.lower(), lambda _, word=word: statements.append(word))

    @event.listens_for(engine, "before_cursor_execute")
    def _note(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        driver = connection.connection.driver_connection
        statements.append(psycopg.ClientCursor(driver).mogrify(statement, parameters))

    for _ in reserve_all(engine, read_orders(str(orders)), 15, batch=batch, jobs=1, warn=print):
        pass
    engine.dispose()
    return statements


def check(url: str, count: int) -> None:
    """See that all that was to be reserved is."""
    with psycopg.connect(url) as connection:
        made = connection.execute("SELECT count(*) FROM harbor.stock_reservations WHERE state = 'active'").fetchone()
    if made != (count,):
        raise SystemExit(f"{made} reservations instead of {count}")


# ---- expire


def prepare_history(url: str, count: int) -> None:
    """The database `large`, of so many reservations."""
    if count and made(url, "large", "shop"):
        prepare(of(url, "large"), HISTORY.format(variants=VARIANTS, count=count))


def measure_expire(url: str, count: int, runs: int) -> Iterator[str]:
    """The table of `stock expire`."""
    overdue = count // 5
    base, alone, beside = list[Cost](), list[Cost](), list[Cost]()
    reading, reserving, quiet_reading, quiet_reserving = Waits(), Waits(), Waits(), Waits()
    for _ in range(runs):
        with copied(url, "large") as database:
            bare: list[str | Path] = [find_programs().path("psql"), "-q", "-X", "-c", BARE, database]
            base.append(timed(url, bare))
        with copied(url, "large") as database:
            alone.append(timed(url, expiring(database), stdout=subprocess.DEVNULL))
            check(database, count // 10)
        with copied(url, "large") as database:
            with others(database, quiet_reading, quiet_reserving):
                time.sleep(10)
            with others(database, reading, reserving):
                beside.append(timed(url, expiring(database), stdout=subprocess.DEVNULL))
    with copied(url, "large") as database, psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "DELETE FROM harbor.stock_reservations WHERE id > 1000 + %s AND state = 'active' AND expires_at < now()",
            [count // 20],
        )
        few = timed(url, expiring(database), stdout=subprocess.DEVNULL)
    yield f"`stock expire`, {overdue:,} expired of {count:,} reservations, of {VARIANTS:,} variants:"
    yield ""
    yield from HEAD
    yield row("one bare UPDATE", overdue, base)
    yield row("expire", overdue, alone, base)
    yield row("expire while others read and reserve", overdue, beside)
    yield row(f"expire of {count // 100:,}", count // 100, [few])
    yield ""
    yield "| milliseconds: median / 99.9 % / longest | nobody expires | while one expires |"
    yield "|---|---|---|"
    yield f"| read a variant and who holds it | {quiet_reading} | {reading} |"
    yield f"| reserve | {quiet_reserving} | {reserving} |"


def expiring(database: str) -> list[str | Path]:
    """The command."""
    return [HARBORCTL, "stock", "expire", "--url", database]


@contextmanager
def others(url: str, reading: Waits, reserving: Waits) -> Iterator[None]:
    """Inside this block one reads and one reserves, twenty times a second, and note how long it took."""
    engine, over = engine_of(url), threading.Event()

    def read() -> None:
        statement = sqlalchemy.text(
            "SELECT v.stock_qty, (SELECT count(*) FROM harbor.stock_reservations AS r"
            " WHERE r.variant_id = v.id AND r.state = 'active') FROM harbor.variants AS v WHERE v.id = :id"
        )
        with engine.connect() as connection:
            connection.execute(statement, {"id": random.randint(1, VARIANTS)}).one()  # noqa: S311  # no secret

    def take() -> None:
        order = Order(f"N-{random.getrandbits(60)}", (Line(f"V-{random.randint(1, VARIANTS)}", 1),))  # noqa: S311
        with changing_stock(engine) as connection:
            reserve(connection, [order], 15)

    def again(act: Callable[[], None], waits: Waits) -> None:
        while not over.wait(0.05):
            start = time.perf_counter()
            act()
            waits.seconds.append(time.perf_counter() - start)

    for first in (read, take):  # it also connects
        first()
    threads = [threading.Thread(target=again, args=each) for each in ((read, reading), (take, reserving))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        engine.dispose()


if __name__ == "__main__":
    main()
