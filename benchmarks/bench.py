"""How fast harborctl is, as a ratio to `psql \\copy` of the same rows in the same run.

Every figure is of a whole process, start-up included. The two programs take turns, so that a machine whose speed drifts
slows both; the table gives medians. Nothing else should run meanwhile.

    python benchmarks/bench.py [--scale 1] [--runs 5] [--only NAME …] [--memory-scale 10]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from harborctl.embedded.programs import find_psql
from harborctl.embedded.server import Server

HERE = Path(__file__).parent
DATA = HERE / "data"
RESULT = HERE / "RESULT.md"
HARBORCTL = Path(sys.executable).with_name("harborctl")

COMMITTED_WITH_REJECTS = 4

# What a server for loading is set to; everything else is PostgreSQL's default.
SETTINGS = {"max_wal_size": "4GB", "autovacuum": "off"}

TABLES = {
    "lineitem": """CREATE TABLE lineitem (
        l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL, l_linenumber integer NOT NULL,
        l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
        l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL,
        l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
        l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL)""",
    "orders": """CREATE TABLE orders (
        o_orderkey bigint PRIMARY KEY, o_custkey bigint NOT NULL, o_orderstatus char(1) NOT NULL,
        o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL,
        o_clerk char(15) NOT NULL, o_shippriority integer NOT NULL, o_comment varchar(79) NOT NULL)""",
}


@dataclass
class Measured:
    """The runs of one command: seconds of wall and client processor time, and the largest peak memory in MB."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: float = 0.0


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        table: what is made anew for each run.
        arguments: harborctl's; `{lineitem.csv}` and the like stand for the data's paths, `{query}` for a report of the
            query, `{out}` for a file to write.
        goal: the ratio to reach.
        prepare: brings the table to where harborctl finds it; `\\copy` always finds it empty.
        query: what both write out, where it is not a load.
        base: harborctl's arguments that it is measured by, where that is not `\\copy`; it finds what is prepared.
        spoil: is run before harborctl's run, but not before the base's.
        scaled: whether memory is also measured at other scales.
    """

    name: str
    table: str
    arguments: tuple[str, ...]
    goal: float | None
    prepare: str | None = None
    query: str | None = None
    base: tuple[str, ...] | None = None
    spoil: str | None = None
    scaled: bool = False


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="1", help="TPC-H scale factor of the timed runs")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name holds one of these words")
    parser.add_argument("--memory-scale", default="", help="also measure peak memory at this larger scale")
    options = parser.parse_args()
    with server() as url:
        lines = [*measure(url, options.scale, options.runs, options.only)]
        memory = [*measure_memory(url, [s for s in ("0.1", options.scale, options.memory_scale) if s], options.only)]
        above = [*heading(url, options)]
    report = "\n".join([*above, *lines, "", *memory, ""])
    print(report)
    if not options.only:
        RESULT.write_text(report)


@contextmanager
def server() -> Iterator[str]:
    """A PostgreSQL 18 of its own, with a fixed configuration."""
    home = Path(tempfile.mkdtemp(prefix="harborctl-bench-"))
    embedded = Server(home)
    try:
        with embedded.leased():
            with psycopg.connect(embedded.url, autocommit=True) as connection:
                for name, value in SETTINGS.items():
                    connection.execute(
                        psycopg.sql.SQL("ALTER SYSTEM SET {} = {}").format(psycopg.sql.Identifier(name), value)
                    )
        with embedded.leased():
            subprocess.run([HARBORCTL, "migrate", "up", "ledger", "--url", embedded.url, "--quiet"], check=True)
            yield embedded.url
    finally:
        shutil.rmtree(home)


def data(scale: str, suffix: str, table: str) -> Path:
    """A TPC-H file, made on first use."""
    folder = DATA / scale
    path = folder / f"{table}.{suffix}"
    if not path.exists():
        generator = Path(sys.executable).with_name("tpchgen-cli")
        arguments = [suffix, "-s", scale, f"--tables={table}", f"--output-dir={folder}", "-q"]
        subprocess.run([generator, *arguments], check=True, stdout=subprocess.DEVNULL)
    return path


def spoiled(path: Path) -> Path:
    """The same file with a thousand rows, spread evenly, whose second field is no number; made on first use."""
    bad = path.with_name(f"spoiled_{path.name}")
    if not bad.exists():
        with path.open("rb") as lines:
            every = sum(1 for _ in lines) // 1000
        with path.open("rb") as lines, bad.open("wb") as out:
            for number, line in enumerate(lines):
                out.write(line if number % every or not number else re.sub(rb",\d+", b",oops", line, count=1))
    return bad


def psql(url: str, command: str) -> list[str]:
    """psql carrying out one command."""
    return [find_psql() or "psql", "-q", "-X", url, "-c", command]


def copy_into(table: str, path: Path) -> str:
    """The `\\copy` of a CSV file."""
    return f"\\copy {table} from '{path}' (format csv, header)"


def their_command(url: str, scale: str, case: Case, folder: Path) -> list[str]:
    """What a case is measured by."""
    if case.base:
        return our_command(url, scale, replace(case, arguments=case.base), folder)
    if case.query:
        return psql(url, f"\\copy ({case.query}) to '/dev/null' (format csv, header)")
    return psql(url, copy_into(case.table, data(scale, "csv", case.table)))


def our_command(url: str, scale: str, case: Case, folder: Path) -> list[str]:
    """The `harborctl` of a case, which may write into `folder`."""

    def filled(argument: str) -> str:
        if argument == "{query}":
            report = folder / "query.sql"
            report.write_text(case.query or "")
            return str(report)
        if argument == "{out}":
            return str(folder / "out")
        if argument == "{spoiled.csv}":
            return str(spoiled(data(scale, "csv", case.table)))
        return str(data(scale, *reversed(argument[1:-1].split(".")))) if argument.startswith("{") else argument

    return [str(HARBORCTL), *map(filled, case.arguments), "--url", url, "--quiet"]


# Rows that are all there, and such of which a tenth differs; neither leaves dead rows.
SAME_ROWS = "INSERT INTO orders SELECT * FROM orders_before"
CHANGED_ROWS = """INSERT INTO orders SELECT o_orderkey, o_custkey, o_orderstatus,
    o_totalprice + CASE WHEN o_orderkey % 10 = 7 THEN 1 ELSE 0 END, o_orderdate, o_orderpriority, o_clerk,
    o_shippriority, o_comment FROM orders_before"""

PARENTS = """DROP TABLE IF EXISTS parents CASCADE; CREATE TABLE parents (key bigint PRIMARY KEY);
    INSERT INTO parents SELECT o_orderkey FROM orders_before; ANALYZE parents;
    ALTER TABLE orders ADD FOREIGN KEY (o_orderkey) REFERENCES parents"""
ORPHANS = """DELETE FROM parents WHERE key IN (
    SELECT key FROM (SELECT key, row_number() OVER (ORDER BY key) AS n FROM parents) AS p WHERE n % 1500 = 0)"""

QUERY = """SELECT n, n % 1000 AS part, n * 0.01 AS price, 'item ' || n AS name, date '2020-01-01' + n % 2000 AS day
    FROM generate_series(1, 10000000) AS n""".replace("\n", "")

LINEITEM = ("load", "{lineitem.csv}", "-t", "lineitem")
SPOILED = ("load", "{spoiled.csv}", "-t", "lineitem")
REJECT = ("--on-error", "reject", "--reject-file", "{out}")
ORDERS = ("load", "{orders.csv}", "-t", "orders")
UPSERT = (*ORDERS, "--mode", "upsert")
REPORT = ("report", "{query}", "--timeout", "0", "-o", "{out}", "--format")
CASES = (
    Case("lineitem, CSV", "lineitem", LINEITEM, 0.80, scaled=True),
    Case("lineitem, Parquet", "lineitem", ("load", "{lineitem.parquet}", "-t", "lineitem"), 0.78, scaled=True),
    Case("lineitem, CSV, two processes", "lineitem", (*LINEITEM, "--jobs", "2"), 0.72),
    Case("orders with primary key, CSV", "orders", ORDERS, 1.0),
    Case("orders with primary key, Parquet", "orders", ("load", "{orders.parquet}", "-t", "orders"), None),
    Case("orders, upsert, nothing changed", "orders", UPSERT, 1.25, prepare=SAME_ROWS),
    Case("orders, upsert, 10 % changed", "orders", UPSERT, 1.6, prepare=CHANGED_ROWS),
    Case("orders, upsert into an empty table", "orders", UPSERT, 2.0),
    Case("lineitem, reject, none bad", "lineitem", (*LINEITEM, *REJECT), 1.15, base=LINEITEM),
    Case("lineitem, reject, 1 000 bad numbers", "lineitem", (*SPOILED, *REJECT), 1.5, base=LINEITEM),
    Case(
        "orders, reject, 1 000 without parent",
        "orders",
        (*ORDERS, *REJECT),
        3.0,
        prepare=PARENTS,
        base=ORDERS,
        spoil=ORPHANS,
    ),
    Case("report of 10 M rows to CSV", "orders", (*REPORT, "csv"), 2.0, query=QUERY),
    Case("report of 10 M rows to Parquet", "orders", (*REPORT, "parquet"), 2.0, query=QUERY),
)


def measure(url: str, scale: str, runs: int, only: list[str]) -> Iterator[str]:
    """The table of times, line by line."""
    yield "| what | base s | harborctl s | ratio | goal | rows/s | client CPU s | peak MB |"
    yield "|---|---|---|---|---|---|---|---|"
    for case in CASES:
        if only and not any(word in case.name for word in only):
            continue
        theirs, ours = Measured(), Measured()
        for _ in range(runs):
            with fresh(url, case.table) as connection, TemporaryDirectory() as folder:
                if case.prepare and case.base:
                    prepare(connection, url, scale, case.prepare)
                run(their_command(url, scale, case, Path(folder)), theirs)
            with fresh(url, case.table) as connection, TemporaryDirectory() as folder:
                if case.prepare:
                    prepare(connection, url, scale, case.prepare)
                if case.spoil:
                    connection.execute(case.spoil.encode())
                run(our_command(url, scale, case, Path(folder)), ours)
                rows = 10_000_000 if case.query else count_of(connection, case.table)
        base, wall = statistics.median(theirs.wall), statistics.median(ours.wall)
        ratio = statistics.median(o / t for o, t in zip(ours.wall, theirs.wall, strict=True))
        yield (
            f"| {case.name} | {base:.2f} | {wall:.2f} | **{ratio:.2f}** | {case.goal or '-'} | {rows / wall:,.0f} |"
            f" {statistics.median(ours.processor):.2f} | {ours.memory:.0f} |"
        )
        print(f"  {case.name}: {ratio:.2f}", file=sys.stderr)


def count_of(connection: psycopg.Connection, table: str) -> int:
    """How many rows the table has."""
    count = psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
    return int((connection.execute(count).fetchone() or (0,))[0])


def prepare(connection: psycopg.Connection, url: str, scale: str, statement: str) -> None:
    """Fill `orders` by `statement` from `orders_before`, the rows of the file; made at first use."""
    if connection.execute("SELECT to_regclass('orders_before')").fetchone() == (None,):
        connection.execute(TABLES["orders"].replace("TABLE orders", "UNLOGGED TABLE orders_before"))
        subprocess.run(psql(url, copy_into("orders_before", data(scale, "csv", "orders"))), check=True)
    connection.execute(statement.encode())
    connection.execute("VACUUM ANALYZE orders")
    connection.execute("CHECKPOINT")


def measure_memory(url: str, scales: list[str], only: list[str]) -> Iterator[str]:
    """How peak memory grows with the file."""
    yield "| peak MB at scale | " + " | ".join(scales) + " |"
    yield "|---|" + "---|" * len(scales)
    for case in CASES:
        if not case.scaled or (only and not any(word in case.name for word in only)):
            continue
        peaks = []
        for scale in scales:
            measured = Measured()
            with fresh(url, case.table):
                run(our_command(url, scale, case, Path()), measured)
            peaks.append(f"{measured.memory:.0f}")
        yield f"| {case.name} | " + " | ".join(peaks) + " |"


@contextmanager
def fresh(url: str, table: str) -> Iterator[psycopg.Connection]:
    """The table, made anew and empty, with nothing left to write out from before."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(TABLES[table])
        connection.execute("CHECKPOINT")
        yield connection
        connection.execute(f"DROP TABLE {table}")


def run(command: list[str], measured: Measured) -> None:
    """Run it to its end and add what it took."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    measured.wall.append(time.perf_counter() - start)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in {0, COMMITTED_WITH_REJECTS}:
        raise SystemExit(f"{command} ended with {process.returncode}")
    measured.processor.append(usage.ru_utime + usage.ru_stime)
    measured.memory = max(measured.memory, usage.ru_maxrss / 1024)


def heading(url: str, options: argparse.Namespace) -> Iterator[str]:
    """Where and how this was measured."""
    with psycopg.connect(url) as connection:
        version = connection.info.parameter_status("server_version")
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    yield f"TPC-H at scale {options.scale}; medians of {options.runs} runs in turn; whole processes, start-up included."
    yield f"PostgreSQL {version} ({settings}), Python {platform.python_version()}, {os.cpu_count()} cores,"
    yield "client and server on one machine. The base is `psql \\copy` of the same rows; with rejects it is harborctl's"
    yield "own load of sound rows with --on-error abort."
    yield ""


if __name__ == "__main__":
    main()
