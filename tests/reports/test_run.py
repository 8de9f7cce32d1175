"""Reports on the server: read-only, bounded in time and memory, refused with a place in the file."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import Engine

from harborctl.errors import AccessDenied, HarborctlError, StatementFailed
from harborctl.reports.parse import parse_report
from harborctl.reports.run import BATCH_ROWS, RunOptions, run_report
from harborctl.reports.values import Value


def rows(engine: Engine, sql: str, options: RunOptions | None = None, **values: Value) -> list[list[str | None]]:
    with run_report(engine, parse_report("r", "r.sql", sql), values, options) as result:
        return [list(row) for batch in result.batches for row in batch]


def failure(engine: Engine, sql: str, options: RunOptions | None = None, **values: Value) -> HarborctlError:
    with pytest.raises(HarborctlError) as caught:
        rows(engine, sql, options, **values)
    return caught.value


def test_rows_come_in_batches_of_a_cursor(engine: Engine) -> None:
    report = parse_report("r", "r.sql", "SELECT generate_series(1, 5000)")
    with run_report(engine, report, {}) as result:
        assert [len(batch) for batch in result.batches] == [BATCH_ROWS, BATCH_ROWS, 5000 - 2 * BATCH_ROWS]


def test_columns_say_what_they_are(engine: Engine) -> None:
    sql = "SELECT 1 AS a, 1.5 AS b, '{}'::text[] AS c, now() AS d, 1::money AS e"
    with run_report(engine, parse_report("r", "r.sql", sql), {}) as result:
        assert [(c.name, c.type, c.kind.value, c.delimiter) for c in result.columns] == [
            ("a", "integer", "number", None),
            ("b", "numeric", "number", None),
            ("c", "text[]", "text", ","),
            ("d", "timestamp with time zone", "timestamp", None),
            ("e", "money", "text", None),
        ]


def test_the_limit_stops(engine: Engine) -> None:
    forever = "SELECT generate_series(1, 9000000000)"
    for limit in (0, 1, BATCH_ROWS, BATCH_ROWS + 1):
        assert len(rows(engine, forever, RunOptions(limit=limit))) == limit


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT nextval('harbor.products_id_seq')", "25006"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "25001"),
        ("SELECT 1 FROM harbor.products FOR UPDATE", "25006"),
        ("WITH gone AS (DELETE FROM harbor.products RETURNING 1) SELECT * FROM gone", "0A000"),
        ("SELECT 1 AS a INTO harbor.copied", "42601"),
    ],
)
def test_writing_is_refused(engine: Engine, sql: str, code: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO harbor.products (sku, name, category, price_cents) VALUES ('a', 'A', 'c', 1)"
        )
    refused = failure(engine, sql)
    assert isinstance(refused, StatementFailed)
    assert refused.code == code
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM harbor.products").scalar_one() == 1


def test_what_a_read_only_transaction_lets_through_is_rolled_back(engine: Engine) -> None:
    with suppress(StatementFailed):  # refused from PostgreSQL 16 on
        rows(engine, "SELECT lo_create(0)")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_largeobject_metadata").scalar_one() == 0


def test_the_timeout_ends_it(engine: Engine) -> None:
    ended = failure(engine, "SELECT pg_sleep(20)", RunOptions(timeout=0.1))
    assert (type(ended), ended.code) == (StatementFailed, "57014")


def test_no_timeout(engine: Engine) -> None:
    assert rows(engine, "SELECT current_setting('statement_timeout')", RunOptions(timeout=0)) == [["0"]]
    assert rows(engine, "SELECT current_setting('statement_timeout')") == [["1min"]]


def test_nothing_of_it_outlives_the_report(engine: Engine) -> None:
    show = "SELECT current_setting('{}')"
    settings = ("statement_timeout", "datestyle", "cursor_tuple_fraction", "transaction_read_only")
    with engine.connect() as connection:
        before = [connection.exec_driver_sql(show.format(name)).scalar_one() for name in settings]
    rows(engine, "SELECT 1", RunOptions(timeout=7))
    with engine.connect() as connection:  # the same one, from the pool
        assert [connection.exec_driver_sql(show.format(name)).scalar_one() for name in settings] == before
        assert connection.exec_driver_sql("SELECT 1, now()").one()[0] == 1


def test_the_session_writes_dates_as_it_likes_and_reports_do_not(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("SET datestyle = 'SQL, DMY'")
        connection.exec_driver_sql("SET bytea_output = 'escape'")
        connection.commit()
    assert rows(engine, "SELECT DATE '2026-11-30', '\\x00'::bytea") == [["2026-11-30", "\\x00"]]


HEADER = "-- title: T\n-- param: n integer = 1\n-- param: ids bigint[] = 1\n"


@pytest.mark.parametrize(
    ("sql", "line", "pointed"),
    [
        ("SELECT nope", 4, "SELECT nope\n           ^"),
        ("SELECT :n,\n  nope", 5, "  nope\n      ^"),
        ("SELECT :n + :n, :ids, '%', nope", 4, "SELECT :n + :n, :ids, '%', nope\n                               ^"),
        ("SELECT '東京',\n\t:n, nope,\n 1", 5, " :n, nope,\n         ^"),
        ("SELECT 1 +", 4, "SELECT 1 +\n              ^"),
        ("SELECT lower(:ids)", 4, "SELECT lower(:ids)\n           ^"),
        ("SELECT 1\r\nFROM nope", 5, "FROM nope\n         ^"),
    ],
)
def test_the_server_points_at_a_place_in_the_file(engine: Engine, sql: str, line: int, pointed: str) -> None:
    refused = failure(engine, HEADER + sql, n=1, ids=[1])
    assert refused.location is not None
    assert (refused.location.file, refused.location.line) == ("r.sql", line)
    assert refused.hint is not None
    assert refused.hint.endswith("\n    " + pointed)


def test_a_failure_without_a_place(engine: Engine) -> None:
    refused = failure(engine, "SELECT 1 / (3000 - i) FROM generate_series(1, 5000) AS i")
    assert (type(refused), refused.code, refused.location) == (StatementFailed, "22012", None)


def test_without_the_privilege(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL client_min_messages = error")
        connection.exec_driver_sql("DROP ROLE IF EXISTS harborctl_reports_nobody")
        connection.exec_driver_sql("CREATE ROLE harborctl_reports_nobody")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET ROLE harborctl_reports_nobody")
            connection.commit()
        assert isinstance(failure(engine, "SELECT * FROM harbor.products"), AccessDenied)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("RESET ROLE")
            connection.exec_driver_sql("DROP ROLE harborctl_reports_nobody")
