"""How many rows: estimates against the truth, for every kind of table, and `harborctl count` as a process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, create_engine

from harborctl.counts import Basis, Method, TableCount, count_tables
from harborctl.errors import AccessDenied, StatementFailed, TargetError, UsageError
from tests.conftest import Harborctl, Run


def run(engine: Engine, *statements: str) -> None:
    """Each in a transaction of its own. The server books at once what it changed, not when it finds the time."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in (*statements, "SELECT 1"):
            connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")


def count(engine: Engine, name: str, *, exact: bool = False) -> TableCount:
    [counted] = count_tables(engine, [name], exact=exact)
    return counted


MADE = "CREATE TABLE t (id bigint, filler text) WITH (autovacuum_enabled = off)"
FILLED = "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series({}, {}) AS i"


def test_analyzed(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 20_000), "ANALYZE t")
    counted = count(engine, "t")
    assert counted.rows == pytest.approx(20_000, rel=0.02)
    assert (counted.table, counted.method, counted.basis) == ("public.t", Method.ESTIMATE, Basis.ANALYZE)
    assert (counted.low, counted.high, counted.changed_since) == (None, None, 0)
    assert counted.analyzed_at is not None
    assert abs((datetime.now(UTC) - counted.analyzed_at).total_seconds()) < 60


def test_grown_by_half_since(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 20_000), "ANALYZE t", FILLED.format(20_001, 30_000))
    counted = count(engine, "t")
    assert counted.rows == pytest.approx(30_000, rel=0.1)
    assert counted.changed_since == 10_000


def test_never_analyzed_but_counted_by_the_server(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 5_000), "DELETE FROM t WHERE id <= 1000")
    counted = count(engine, "t")
    assert (counted.rows, counted.basis, counted.analyzed_at) == (4_000, Basis.LIVE_ROWS, None)
    assert counted.changed_since == 6_000


@pytest.mark.parametrize(("rows", "tolerance"), [(20_000, 0.5), (60, 0.7)])
def test_never_analyzed_and_not_counted_either(engine: Engine, rows: int, tolerance: float) -> None:
    """As after a crash, which loses the statistics. The planner guesses from the widths of the columns."""
    run(engine, "CREATE TABLE t (a bigint, b bigint) WITH (autovacuum_enabled = off)")
    run(engine, f"INSERT INTO t SELECT i, i FROM generate_series(1, {rows}) AS i", "SELECT pg_stat_reset()")
    counted = count(engine, "t")
    assert counted.basis is Basis.PLANNER
    # A row of 60 has a page to itself: the guess is of a full one.
    assert counted.rows == pytest.approx(rows if rows > 1000 else 185, rel=tolerance)


def test_empty(engine: Engine) -> None:
    run(engine, MADE)
    counted = count(engine, "t")
    assert (counted.rows, counted.basis, counted.analyzed_at) == (0, Basis.FILE_SIZE, None)
    run(engine, FILLED.format(1, 500), "ANALYZE t", "TRUNCATE t")
    assert count(engine, "t").rows == 0


def test_analyzed_while_empty(engine: Engine) -> None:
    run(engine, MADE, "ANALYZE t", FILLED.format(1, 700))
    assert count(engine, "t").rows == 700


PARTITIONED = (
    "CREATE TABLE p (id int, filler text) PARTITION BY RANGE (id)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10001)",
    "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10001) TO (20001) PARTITION BY RANGE (id)",
    "CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (10001) TO (20001)",
    "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20001) TO (30001)",
    "INSERT INTO p SELECT i, 'x' FROM generate_series(1, 15000) AS i",
)


def test_partitions_are_summed(engine: Engine) -> None:
    run(engine, *PARTITIONED, "ANALYZE p1", "ANALYZE p2a")
    counted = count(engine, "p")
    assert counted.rows == pytest.approx(15_000, rel=0.02)
    assert counted.basis is Basis.ANALYZE
    assert counted.analyzed_at is None  # p3 never was
    run(engine, "ANALYZE p3", "INSERT INTO p SELECT 20001, 'x'")
    counted = count(engine, "p")
    assert counted.analyzed_at is not None
    assert counted.changed_since == 1
    assert count(engine, "p", exact=True).rows == 15_001


def test_a_partitioned_table_without_partitions(engine: Engine) -> None:
    run(engine, PARTITIONED[0])
    assert count(engine, "p") == TableCount("public.p", 0, Method.ESTIMATE, None, None, None, None, Basis.FILE_SIZE)


def test_what_inherits_belongs_to_it(engine: Engine) -> None:
    run(engine, MADE, "CREATE TABLE child () INHERITS (t)", FILLED.format(1, 100), "ANALYZE t")
    run(engine, "INSERT INTO child SELECT i, 'x' FROM generate_series(1, 300) AS i")
    assert count(engine, "t").rows == 400
    assert count(engine, "child").rows == 300
    assert count(engine, "t", exact=True).rows == 400
    run(engine, "SELECT pg_stat_reset()", "UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relname = 't'")
    # The planner is asked for the parent alone; its children are counted by themselves.
    assert count(engine, "t").rows < 500


def test_views(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 20_000), "ANALYZE t", "CREATE VIEW v AS SELECT * FROM t WHERE id <= 5000")
    counted = count(engine, "v")
    assert counted.rows == pytest.approx(5_000, rel=0.1)
    assert (counted.basis, counted.changed_since, counted.analyzed_at) == (Basis.PLANNER, None, None)
    assert count(engine, "v", exact=True).rows == 5_000


def test_materialized_views(engine: Engine) -> None:
    run(engine, "CREATE MATERIALIZED VIEW m AS SELECT generate_series(1, 3000) AS i", "ANALYZE m")
    assert (count(engine, "m").rows, count(engine, "m", exact=True).rows) == (3_000, 3_000)


def test_foreign_tables(engine: Engine) -> None:
    """A wrapper without a handler is enough for what the catalog knows, and is there on every server."""
    run(
        engine,
        "CREATE FOREIGN DATA WRAPPER wrapper",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER wrapper",
        "CREATE FOREIGN TABLE f (line text) SERVER elsewhere",
    )
    with pytest.raises(StatementFailed) as caught:  # the planner asks the wrapper
        count(engine, "f")
    assert caught.value.code == "55000"
    run(engine, "UPDATE pg_class SET reltuples = 500 WHERE relname = 'f'")
    counted = count(engine, "f")
    assert (counted.rows, counted.basis, counted.changed_since) == (500, Basis.ANALYZE, None)


def test_exact(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 1_234))
    counted = count(engine, "t", exact=True)
    assert (counted.rows, counted.low, counted.high, counted.basis) == (1_234, 1_234, 1_234, None)
    assert (counted.method, counted.changed_since) == (Method.EXACT, 1_234)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ('"Odd Name".t', '"Odd Name".t'),
        ('"Odd Name"."a.b"', '"Odd Name"."a.b"'),
        ('"Odd Name"."say ""hi"""', '"Odd Name"."say ""hi"""'),
        ('"Odd Name"."Orders"', '"Odd Name".Orders'),
        ('"Odd Name"."select"', "Odd Name.select"),
        ('"Odd Name"."x;--%(a)s:b"', '"Odd Name"."x;--%(a)s:b"'),
    ],
)
def test_names(engine: Engine, made: str, asked: str) -> None:
    with engine.begin() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute('CREATE SCHEMA "Odd Name"')
        driver.execute(f"CREATE TABLE {made} AS SELECT generate_series(1, 3)")
    run(engine)
    assert count(engine, asked, exact=True).rows == 3
    assert count(engine, asked).rows > 0  # also where the planner is asked
    run(engine, "SELECT pg_stat_reset()")
    assert count(engine, asked).basis is Basis.PLANNER


def test_a_name_that_is_none(engine: Engine) -> None:
    with pytest.raises(UsageError) as caught:
        count_tables(engine, ["a.b.c"])
    assert caught.value.code == "bad_name"


def test_a_missing_table_is_found_out_before_anything_is_counted(engine: Engine) -> None:
    with pytest.raises(TargetError) as caught:
        count_tables(engine, ["harbor.products", "harbor.variant"], exact=True)
    assert caught.value.message == "there is no table harbor.variant"
    assert caught.value.hint == "Did you mean harbor.variants?"


@pytest.fixture
def stranger(engine: Engine) -> Iterator[Engine]:
    """An engine whose sessions are those of a role without any right."""
    role = f"stranger_of_{engine.url.database}"
    run(engine, f"CREATE ROLE {role}")
    stranger = create_engine(engine.url.update_query_dict({"options": f"-c role={role}"}))
    yield stranger
    stranger.dispose()
    run(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("exact", [False, True])
def test_without_the_privilege(engine: Engine, stranger: Engine, exact: bool) -> None:
    role = f"stranger_of_{engine.url.database}"
    with pytest.raises(AccessDenied, match=r"^this database user may not read harbor\.products$"):
        count(stranger, "harbor.products", exact=exact)
    run(engine, f"GRANT SELECT (id) ON harbor.products TO {role}")
    with pytest.raises(AccessDenied):  # the schema is closed to it
        count(stranger, "harbor.products", exact=exact)
    run(engine, f"GRANT USAGE ON SCHEMA harbor TO {role}")
    assert count(stranger, "harbor.products", exact=exact).rows == 0


def test_it_takes_no_longer_for_a_large_table(engine: Engine) -> None:
    run(engine, MADE, "CREATE TABLE small (LIKE t)", "INSERT INTO small SELECT 1, 'x'")
    run(engine, FILLED.format(1, 200_000), "ANALYZE t", "ANALYZE small")

    def fastest(name: str) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            count(engine, name)
            times.append(time.perf_counter() - start)
        return min(times)

    fastest("small")
    assert fastest("t") < 2 * fastest("small")


# The command.


def test_json_is_what_the_contract_says(harborctl: Harborctl, engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 100), "ANALYZE t", FILLED.format(101, 101))
    done = harborctl("count", "t", "harbor.products", "--json")
    assert (done.code, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)
    assert list(first) == ["table", "rows", "method", "low", "high", "analyzed_at", "changed_since"]
    assert datetime.fromisoformat(first.pop("analyzed_at")).tzinfo is not None
    assert first == {
        "table": "public.t",
        "rows": 100,
        "method": "estimate",
        "low": None,
        "high": None,
        "changed_since": 1,
    }
    assert second == {
        "table": "harbor.products",
        "rows": 0,
        "method": "estimate",
        "low": None,
        "high": None,
        "analyzed_at": None,
        "changed_since": 0,
    }
    done = harborctl("count", "t", "--exact", "--json")
    [exact] = json.loads(done.stdout)
    assert (done.code, exact["rows"], exact["low"], exact["high"], exact["method"]) == (0, 101, 101, 101, "exact")


def test_the_table(harborctl: Harborctl, engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 1500), "ANALYZE t", FILLED.format(1, 1), "CREATE VIEW v AS SELECT 1 AS a")
    assert harborctl("count", "t", "v", "harbor.products") == Run(
        0,
        "table              rows   method                    statistics\n"
        "────────────────────────────────────────────────────────────────────────────────────────────────────────\n"
        "public.t          1,500   estimate from analyze     analyzed less than a minute ago; 1 row changed since\n"
        "public.v              1   estimate from planner     none kept\n"
        "harbor.products       0   estimate from file size   never analyzed; 0 rows changed\n",
        "",
    )
    done = harborctl("count", "v", "--exact")
    assert done == Run(
        0,
        "table      rows   method   statistics\n"
        "─────────────────────────────────────\n"
        "public.v      1   exact    none kept\n",
        "",
    )


def test_a_missing_table(harborctl: Harborctl) -> None:
    hint = "error: there is no table harbor.product\nhint: Did you mean harbor.products?\n"
    assert harborctl("count", "harbor.product") == Run(2, "", hint)
    done = harborctl("count", "harbor.product", "--json")
    assert (done.code, json.loads(done.stdout)["error"]["code"], done.stderr) == (2, "42P01", hint)


def test_no_table_at_all(harborctl: Harborctl) -> None:
    done = harborctl("count")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Missing argument")
