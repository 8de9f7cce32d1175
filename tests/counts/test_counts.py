"""How many rows: estimates against the truth, for every kind of table, and `harborctl count` as a process."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from harborctl.counts.count import count_tables
from harborctl.counts.interval import interval
from harborctl.counts.result import Basis, Counting, CountOptions, Method, TableCount
from harborctl.counts.sample import END_PAGES, FEWEST_PAGES, Draws, PageSample
from harborctl.errors import AccessDenied, StatementFailed, TargetError, UsageError
from tests.conftest import Run
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]


def run(engine: Engine, *statements: str) -> None:
    """Each in a transaction of its own. The server books at once what it changed, not when it finds the time."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in (*statements, "SELECT 1"):
            connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")


def count(
    engine: Engine,
    name: str,
    *,
    exact: bool = False,
    sample: float | None = None,
    where: str | None = None,
    seed: int | None = 1,
) -> TableCount:
    [counted] = count_tables(engine, [name], CountOptions(exact, sample, where, seed)).tables
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


def test_before_an_exact_count_it_says_what_to_expect(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 20_000), "ANALYZE t", "CREATE VIEW v AS SELECT * FROM t")
    workers = []

    @event.listens_for(engine, "before_cursor_execute")
    def look(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("SELECT count("):
            workers.append(cursor.connection.execute("SHOW max_parallel_workers_per_gather").fetchone()[0])

    told: list[Counting] = []
    count_tables(engine, ["t", "v"], CountOptions(exact=True), told.append)
    event.remove(engine, "before_cursor_execute", look)
    assert [(one.table, one.done, one.tables) for one in told] == [("public.t", 0, 2), ("public.v", 1, 2)]
    assert [one.expected for one in told] == [pytest.approx(20_000, rel=0.02)] * 2
    # Asking the planner about the view takes no workers from the count.
    assert workers == ["2", "2"]
    count_tables(engine, ["t"], CountOptions(exact=True, where="id <= 1000"), told.append)
    assert told[-1].expected == pytest.approx(1_000, rel=0.1)
    count_tables(engine, ["t"], CountOptions(), told.append)
    assert told[-1].expected is None


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
        count_tables(engine, ["harbor.products", "harbor.variant"], CountOptions(exact=True))
    assert caught.value.message == "there is no table harbor.variant"
    assert caught.value.hint == "Did you mean harbor.variants?"


@pytest.fixture
def stranger(engine: Engine) -> Iterator[Engine]:
    """An engine whose sessions are those of a role without any right."""
    role = f"stranger_of_{engine.url.database}"
    run(engine, f"CREATE ROLE {role}")
    stranger = create_engine(engine.url.update_query_dict({"options": f"-crole={role}"}))
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


# Partitions that a user may read through their table only.


def test_partitions_readable_through_their_table_only(engine: Engine, stranger: Engine) -> None:
    role = f"stranger_of_{engine.url.database}"
    run(engine, *PARTITIONED, "ANALYZE p1", "SELECT pg_stat_reset()", f"GRANT SELECT ON p TO {role}")
    counted = count(stranger, "p")
    assert counted.basis is Basis.PLANNER  # p2a: neither analyzed nor counted
    assert counted.rows == pytest.approx(15_000, rel=0.5)
    assert count(stranger, "p", where="id < 100").basis is Basis.PLANNER
    assert count(stranger, "p", exact=True).rows == 15_000
    with pytest.raises(AccessDenied, match=r"^this database user may not read public\.p1$"):
        count(stranger, "p1")


def test_one_plan_answers_for_every_part(engine: Engine) -> None:
    run(engine, *PARTITIONED, "SELECT pg_stat_reset()")
    plans: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def watch(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("EXPLAIN"):
            plans.append(statement)

    assert count(engine, "p").rows > 0
    assert len(plans) == 1


# Citus is not there to be tested with. This stand-in has its table and its function, as its manual describes them.
CITUS = (
    "SET allow_system_table_mods = on",
    'CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char", partkey text)',
    "CREATE FUNCTION pg_catalog.column_to_column_name(regclass, text) RETURNS text LANGUAGE sql AS $$ SELECT 'id' $$",
    """CREATE FUNCTION run_command_on_shards(name regclass, command text)
       RETURNS TABLE (shardid bigint, success boolean, result text) LANGUAGE plpgsql AS $$
       DECLARE shard text;
       BEGIN
         FOREACH shard IN ARRAY ARRAY['shard_1', 'shard_2'] LOOP
           EXECUTE format(command, shard) INTO result;
           shardid := 1; success := true; RETURN NEXT;
         END LOOP;
       END $$""",
    "CREATE TABLE shard_1 AS SELECT generate_series(1, 3000) AS id",
    "CREATE TABLE shard_2 AS SELECT generate_series(1, 1000) AS id",
    "CREATE TABLE d (id int)",
    "INSERT INTO pg_dist_partition VALUES ('d', 'h', 'the first')",
)


def test_citus(engine: Engine) -> None:
    run(engine, *CITUS, "ANALYZE shard_1")
    assert count(engine, "d").basis is Basis.PLANNER  # shard 2 knows nothing
    run(engine, "ANALYZE shard_2", "INSERT INTO shard_2 SELECT generate_series(1, 1000)")
    counted = count(engine, "d")
    assert counted.rows == pytest.approx(5_000, rel=0.1)
    assert (counted.basis, counted.analyzed_at, counted.changed_since) == (Basis.SHARDS, None, None)
    assert count(engine, "harbor.products").basis is Basis.FILE_SIZE  # another table of the same database
    run(engine, "DROP FUNCTION run_command_on_shards")
    assert count(engine, "d").basis is Basis.PLANNER


# Conditions.


def test_a_condition_asks_the_planner(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 20_000), "ANALYZE t")
    counted = count(engine, "t", where="t.id <= 5000 AND filler LIKE 'x%'")
    assert counted.rows == pytest.approx(5_000, rel=0.1)
    assert (counted.method, counted.basis, counted.low) == (Method.ESTIMATE, Basis.PLANNER, None)
    assert count(engine, "t", where="id <= 5000 -- a comment", exact=True).rows == 5_000
    assert count(engine, "t", where="id = 7 OR id % 2 = 0", exact=True).rows == 10_001
    assert count(engine, "t", where="filler <> ':id'", exact=True).rows == 20_000


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("nope = 1", "42703"),
        ("true); DELETE FROM t; SELECT (1", "42601"),
        ("true); COMMIT; DROP TABLE t; SELECT 1 WHERE (true", "42601"),
        ("nextval('s') > 0", "25006"),
    ],
)
def test_a_condition_reads_and_no_more(engine: Engine, where: str, code: str) -> None:
    run(engine, MADE, FILLED.format(1, 10), "CREATE SEQUENCE s")
    for options in ({"exact": True}, {"sample": 100.0}):
        with pytest.raises(StatementFailed) as caught:
            count(engine, "t", where=where, **options)
        assert caught.value.code == code
    assert count(engine, "t", exact=True).rows == 10


def test_an_empty_condition(engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"^--where is empty$"):
        count(engine, "harbor.products", where=" ")


# Patterns.


def test_patterns(engine: Engine) -> None:
    run(engine, *PARTITIONED, "CREATE VIEW pv AS SELECT 1", 'CREATE TABLE "P*q" (a int)', 'CREATE TABLE "PQ" (a int)')

    def tables(*names: str) -> list[str]:
        return [counted.table for counted in count_tables(engine, names).tables]

    stock = ["harbor.stock_counts", "harbor.stock_movements", "harbor.stock_reservations"]
    assert tables("harbor.*") == ["harbor.products", *stock, "harbor.variants"]
    assert tables("harbor.variants", "harbor.*s") == ["harbor.variants", "harbor.products", *stock]
    assert tables("h?rbor.[pv]*") == ["harbor.products", "harbor.variants"]
    assert tables("HARBOR.Prod*") == ["harbor.products"]
    assert tables("*") == ["public.P*q", "public.PQ", "public.p"]
    assert tables("P*") == ["public.P*q", "public.PQ"]
    assert tables("p2*") == ["public.p2", "public.p2a"]  # only partitions match
    assert tables('"P*q"') == ["public.P*q"]
    assert tables('public."P*"*') == ["public.P*q"]
    with pytest.raises(TargetError) as caught:
        tables("harbor.x*")
    assert (caught.value.message, caught.value.code) == ("no table matches harbor.x*", "42P01")


def test_a_pattern_leaves_out_what_may_not_be_read(engine: Engine, stranger: Engine) -> None:
    role = f"stranger_of_{engine.url.database}"
    run(engine, f"GRANT USAGE ON SCHEMA harbor TO {role}", f"GRANT SELECT ON harbor.products TO {role}")
    counts = count_tables(stranger, ["harbor.*"])
    assert [counted.table for counted in counts.tables] == ["harbor.products"]
    assert counts.unreadable == [
        "harbor.stock_counts",
        "harbor.stock_movements",
        "harbor.stock_reservations",
        "harbor.variants",
    ]
    with pytest.raises(AccessDenied):
        count_tables(stranger, ["harbor.v*"])


# Samples.

# Nine of ten pages hold one row, the others about 200; the last tenth of the table, as after a change of habits.
SKEWED = (
    "CREATE TABLE t (id int, filler text) WITH (autovacuum_enabled = off)",
    "ALTER TABLE t ALTER filler SET STORAGE PLAIN",
    "INSERT INTO t SELECT i, repeat('x', 5000) FROM generate_series(1, 9000) AS i",
    "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 200000) AS i",
)


# As clustered as a condition on a day is.
DAYS = (
    "CREATE TABLE t (id int, day int) WITH (autovacuum_enabled = off)",
    "INSERT INTO t SELECT i, i / 3000 FROM generate_series(1, 300000) AS i",
)
# Rows in wide pages, then none on the last pages, as a load in bulk leaves them.
IN_BULK = (
    MADE,
    "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) AS i",
    "DELETE FROM t WHERE (ctid::text::point)[0] > pg_relation_size('t') / 8192 - 60",
)


@pytest.mark.parametrize(
    ("made", "where"), [(SKEWED, None), (DAYS, "day = 40"), (IN_BULK, None)], ids=["skewed", "days", "in bulk"]
)
def test_the_interval_covers_the_truth(engine: Engine, made: tuple[str, ...], where: str | None) -> None:
    """On real tables; tests/counts/test_interval.py has many more, simulated."""
    run(engine, *made)
    truth = count(engine, "t", exact=True, where=where).rows
    runs = [count(engine, "t", sample=1, seed=seed, where=where) for seed in range(20)]
    covered = sum(1 for run in runs if run.low is not None and run.high is not None and run.low <= truth <= run.high)
    assert covered >= 18
    # And it is no trick: an interval says something, and the rows are right on average.
    assert sum(run.rows for run in runs) / len(runs) == pytest.approx(truth, rel=0.25)
    assert len({run.rows for run in runs}) > 1 or made == IN_BULK


def test_a_sample_of_even_pages_is_nearly_exact(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 100_000), "DELETE FROM t WHERE id > 60000", "ANALYZE t")
    counted = count(engine, "t", sample=20, seed=None)
    assert (counted.method, counted.basis, counted.changed_since) == (Method.SAMPLE, None, 0)
    assert counted.rows == pytest.approx(60_000, rel=0.2)  # pages without a row count, too
    assert counted.low is not None
    assert counted.high is not None
    assert counted.low <= counted.rows <= counted.high
    assert counted.pages is not None
    assert counted.pages == FEWEST_PAGES + END_PAGES


def test_a_small_table_is_sampled_whole(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 3_000))
    counted = count(engine, "t", sample=1)
    assert (counted.rows, counted.low, counted.high) == (3_000, 3_000, 3_000)
    assert count(engine, "t", sample=1, where="id <= 10").rows == 10
    assert count(engine, "harbor.products", sample=1).high == 0


def test_a_sample_of_partitions_and_of_a_condition(engine: Engine) -> None:
    run(engine, *PARTITIONED)
    assert count(engine, "p", sample=100).rows == 15_000
    run(engine, MADE, FILLED.format(1, 50_000))
    counted = count(engine, "t", sample=30, where="t.id % 2 = 0")
    assert counted.rows == pytest.approx(25_000, rel=0.03)
    none = count(engine, "t", sample=30, where="id < 0")
    assert (none.rows, none.low) == (0, 0)
    assert none.high is not None
    assert none.high > 0


def test_what_has_no_pages(engine: Engine) -> None:
    run(engine, "CREATE VIEW v AS SELECT 1 AS a")
    with pytest.raises(UsageError, match=r"^public\.v is a view, which has no pages to sample$"):
        count(engine, "v", sample=1)


@pytest.mark.parametrize("percent", [0, -1, 100.1, float("nan")])
def test_a_percentage_that_is_none(engine: Engine, percent: float) -> None:
    with pytest.raises(UsageError, match=r"^--sample takes a percentage"):
        count(engine, "harbor.products", sample=percent)


def test_intervals() -> None:
    def of(pages: list[int], of_pages: int, most: int = 0) -> tuple[int, int, int]:
        return interval(PageSample(of_pages, Counter(pages), most or max(pages, default=0)))

    assert of([], 0) == (0, 0, 0)
    assert of([5, 5], 2) == (10, 10, 10)
    # Alike, but one in a hundred or so may be empty that was not met; and so may one be full, where none has a row.
    assert of([5] * 400, 10_000) == (50_000, 49_460, 50_000)
    assert of([0] * 400, 10_000, most=5) == (0, 0, 540)
    rows, low, high = of([0] * 360 + [10] * 40, 1000)
    assert rows == 1000
    assert 720 < low < 780
    assert 1300 < high < 1400
    assert interval(PageSample(0, {}, 0, certain=7, certain_pages=3)) == (7, 7, 7)
    assert interval(Draws(1000, [(0, 10)] * 30)) == (0, 0, 4270)


def test_a_sample_needs_no_more_rights_than_a_count(engine: Engine, stranger: Engine) -> None:
    """Rights on one column, and partitions that are open through their table only."""
    role = f"stranger_of_{engine.url.database}"
    run(engine, MADE, FILLED.format(1, 50_000), *PARTITIONED)
    run(engine, "INSERT INTO p SELECT i, repeat('x', 900) FROM generate_series(1, 5000) AS i")
    run(engine, f"GRANT SELECT (id) ON t TO {role}", f"GRANT SELECT ON p TO {role}")
    for name, where, truth in (("t", None, 50_000), ("t", "id % 2 = 0", 25_000), ("p", "p.id > 0", 20_000)):
        assert count(stranger, name, exact=True, where=where).rows == truth
        counted = count(stranger, name, sample=1, where=where)
        assert counted.rows == pytest.approx(truth, rel=0.25)
        assert counted.low is not None
        assert counted.high is not None
        assert counted.low <= truth <= counted.high
        assert count(stranger, name, sample=100, where=where).rows == truth


# What the server knows better.


def test_rows_that_are_not_there(engine: Engine) -> None:
    """Deleted and not vacuumed, of an open transaction, and of one that was rolled back: pages hold them all."""
    run(engine, MADE, FILLED.format(1, 10_000), "ANALYZE t", "DELETE FROM t WHERE id > 4000")
    assert (count(engine, "t").rows, count(engine, "t").basis) == (4_000, Basis.LIVE_ROWS)
    with engine.connect() as connection:
        connection.exec_driver_sql(FILLED.format(1, 10_000))
        assert count(engine, "t").rows == 4_000
        connection.rollback()
    run(engine)
    assert count(engine, "t").rows == 4_000
    run(engine, "VACUUM t")
    assert count(engine, "t").rows == pytest.approx(4_000, rel=0.02)


def test_no_estimate_is_more_than_pages_hold(engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 100), "ANALYZE t", "UPDATE pg_class SET reltuples = 1e9 WHERE relname = 't'")
    assert count(engine, "t").rows <= 2 * 291


@pytest.mark.parametrize(
    ("view", "rows"),
    [
        ("SELECT * FROM t WHERE id > 7", 0),
        ("SELECT t.* FROM t JOIN harbor.products AS p ON p.id = t.id ORDER BY 1 LIMIT 10", 0),
        ("SELECT id, count(*) FROM t GROUP BY id", 0),
        ("SELECT * FROM t UNION ALL SELECT * FROM t", 0),
        ("SELECT count(*) FROM t", 1),
        ("SELECT 1 FROM t LEFT JOIN one ON t.id = one.id", 0),
    ],
)
def test_a_view_over_an_empty_table(engine: Engine, view: str, rows: int) -> None:
    run(engine, MADE, "CREATE TABLE one AS SELECT 1 AS id", "ANALYZE one", f"CREATE VIEW v AS {view}")
    assert count(engine, "v").rows == count(engine, "v", exact=True).rows == rows
    assert count(engine, "t", where="id > 7").rows == 0


# What cannot be counted, and what is counted in part.


def test_a_table_that_cannot_be_counted_does_not_fail_a_pattern(engine: Engine, invoke: Invoke) -> None:
    run(
        engine,
        "CREATE FOREIGN DATA WRAPPER wrapper",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER wrapper",
        "CREATE SCHEMA s",
        "CREATE FOREIGN TABLE s.f (line text) SERVER elsewhere",
        "CREATE MATERIALIZED VIEW s.m AS SELECT 1 AS a WITH NO DATA",
        "CREATE TABLE s.t AS SELECT generate_series(1, 3) AS a",
    )
    for options, left_out in (({}, ["s.f"]), ({"exact": True}, ["s.f", "s.m"]), ({"sample": 1}, ["s.f"])):
        counts = count_tables(engine, ["s.*"], CountOptions(**options))
        assert [counted.rows for counted in counts.tables if counted.table == "s.t"] == [3]
        assert set(left_out) <= set(counts.failed)
    with pytest.raises(StatementFailed):
        count_tables(engine, ["s.*", "s.m"], CountOptions(exact=True))
    with pytest.raises(StatementFailed):
        count_tables(engine, ["s.f*"])
    done = invoke("count", "s.*", "--exact", "--json")
    assert (done.code, [counted["rows"] for counted in json.loads(done.stdout)]) == (0, [3])
    assert done.stderr.startswith("warning: left out s.f: ")
    assert "warning: left out s.m: materialized view" in done.stderr


def test_system_catalogs(engine: Engine) -> None:
    assert count(engine, "pg_class", exact=True).rows > 300
    assert count(engine, "pg_catalog.pg_class").rows > 300
    assert count(engine, "information_schema.tables", exact=True).rows > 100
    tables = [counted.table for counted in count_tables(engine, ["pg_catalog.pg_cl*"]).tables]
    assert tables == ["pg_catalog.pg_class"]
    assert "pg_catalog.pg_class" not in [counted.table for counted in count_tables(engine, ["*.*"]).tables]


def test_row_level_security_is_said(engine: Engine, stranger: Engine) -> None:
    role = f"stranger_of_{engine.url.database}"
    run(
        engine, MADE, FILLED.format(1, 5_000), "ALTER TABLE t ENABLE ROW LEVEL SECURITY", f"GRANT SELECT ON t TO {role}"
    )
    run(engine, f"CREATE POLICY few ON t TO {role} USING (id <= 1000)", "ANALYZE t")
    for options, rows, words in (
        (CountOptions(), 5_000, "the estimate is of all rows"),
        (CountOptions(exact=True), 1_000, "only rows that its policies show"),
        (CountOptions(sample=100), 1_000, "only rows that its policies show"),
        (CountOptions(where="id > 0"), 1_000, "the planner expects"),
    ):
        counts = count_tables(stranger, ["t"], options)
        assert counts.tables[0].rows == pytest.approx(rows, rel=0.05)
        assert len(counts.notes) == 1
        assert words in counts.notes[0]
    assert count_tables(engine, ["t"]).notes == []


@pytest.mark.parametrize("where", ["true) OR (true", "true], ARRAY[true", "id, id", ""])
def test_a_condition_is_one_expression(engine: Engine, where: str) -> None:
    run(engine, MADE)
    for options in ({}, {"exact": True}, {"sample": 1.0}):
        with pytest.raises((StatementFailed, UsageError)):
            count(engine, "t", where=where, **options)


# The command.


def test_json_is_what_the_contract_says(invoke: Invoke, engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 100), "ANALYZE t", FILLED.format(101, 101))
    done = invoke("count", "t", "harbor.products", "--json")
    assert (done.code, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)
    assert list(first) == ["table", "rows", "method", "low", "high", "analyzed_at", "changed_since", "basis"]
    assert datetime.fromisoformat(first.pop("analyzed_at")).tzinfo is not None
    assert first == {
        "table": "public.t",
        "rows": 101,
        "method": "estimate",
        "low": None,
        "high": None,
        "changed_since": 1,
        "basis": "live rows",
    }
    assert second == {
        "table": "harbor.products",
        "rows": 0,
        "method": "estimate",
        "low": None,
        "high": None,
        "analyzed_at": None,
        "changed_since": 0,
        "basis": "file size",
    }
    done = invoke("count", "t", "--exact", "--json")
    [exact] = json.loads(done.stdout)
    assert (done.code, exact["rows"], exact["low"], exact["high"], exact["method"]) == (0, 101, 101, 101, "exact")


def test_the_table(invoke: Invoke, engine: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 1500), "ANALYZE t", FILLED.format(1, 1), "CREATE VIEW v AS SELECT 1 AS a")
    assert invoke("count", "t", "v", "harbor.products") == Run(
        0,
        "table              rows   method                    statistics\n"
        "────────────────────────────────────────────────────────────────────────────────────────────────────────\n"
        "public.t          1,501   estimate from live rows   analyzed less than a minute ago; 1 row changed since\n"
        "public.v              1   estimate from planner     none kept\n"
        "harbor.products       0   estimate from file size   never analyzed; 0 rows changed\n",
        "",
    )
    done = invoke("count", "v", "--exact")
    assert done == Run(
        0,
        "table      rows   method   statistics\n"
        "─────────────────────────────────────\n"
        "public.v      1   exact    none kept\n",
        "",
    )


def test_a_missing_table(invoke: Invoke) -> None:
    hint = "error: there is no table harbor.product\nhint: Did you mean harbor.products?\n"
    assert invoke("count", "harbor.product") == Run(2, "", hint)
    done = invoke("count", "harbor.product", "--json")
    assert (done.code, json.loads(done.stdout)["error"]["code"], done.stderr) == (2, "42P01", hint)


def test_no_table_at_all(invoke: Invoke) -> None:
    done = invoke("count")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Missing argument")


def test_patterns_and_samples_on_the_command_line(invoke: Invoke, engine: Engine, stranger: Engine) -> None:
    run(engine, MADE, FILLED.format(1, 1500), f"GRANT USAGE ON SCHEMA harbor TO stranger_of_{engine.url.database}")
    run(engine, f"GRANT SELECT ON harbor.products TO stranger_of_{engine.url.database}")
    assert invoke("count", "t", "--sample", "1", "--where", "id <= 1000") == Run(
        0,
        "table       rows   method                                       statistics\n"
        "──────────────────────────────────────────────────────────────────────────────────────────────────\n"
        "public.t   1,000   sample of 26 pages; 95 % in 1,000 to 1,000   never analyzed; 1,500 rows changed\n",
        "",
    )
    url = stranger.url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = invoke("count", "harbor.*", "--url", url, "--json")
    assert (done.code, [counted["table"] for counted in json.loads(done.stdout)]) == (0, ["harbor.products"])
    assert done.stderr == (
        "warning: left out, for want of the right to read:"
        " harbor.stock_counts, harbor.stock_movements, harbor.stock_reservations, harbor.variants\n"
    )
    done = invoke("count", "t", "--sample", "1", "--exact")
    assert done == Run(2, "", "error: --exact and --sample contradict each other\nhint: Give one of them.\n")
