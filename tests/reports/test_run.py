"""Reports on the server: read-only, bounded in time and memory, refused with a place in the file."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from rich.cells import cell_len
from sqlalchemy import Engine

from harborctl.db.engine import open_database
from harborctl.errors import AccessDenied, HarborctlError, StatementFailed, TargetError
from harborctl.model import ConnectionOptions
from harborctl.reports.parse import parse_report
from harborctl.reports.report import bind
from harborctl.reports.run import BATCH_ROWS, RunOptions, run_report
from harborctl.reports.values import Value
from tests.conftest import execute


def rows(engine: Engine, sql: str, options: RunOptions | None = None, **values: Value) -> list[list[str | None]]:
    with run_report(engine, parse_report("r", "r.sql", sql), values, options) as result:
        return [list(row) for batch in result.batches for row in batch]


def lines_failure(engine: Engine, sql: str, **values: Value) -> HarborctlError:
    """As `failure`, where lines are asked for."""
    with pytest.raises(HarborctlError) as caught:
        with run_report(engine, parse_report("r", "r.sql", sql), values, RunOptions(lines=True)) as result:
            assert result.lines is not None
            list(result.lines())
    return caught.value


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


def test_the_shortest_timeout_is_one(engine: Engine) -> None:
    ended = failure(engine, "SELECT pg_sleep(20)", RunOptions(timeout=0.0004))
    assert (type(ended), ended.code) == (StatementFailed, "57014")


def test_backslashes_are_read_as_written(database_url: str, engine: Engine) -> None:
    """Also where the database has it otherwise."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{engine.url.database}" SET standard_conforming_strings = off')
    engine.dispose()
    with open_database(ConnectionOptions(url=database_url)) as database:
        for options in (RunOptions(), RunOptions(lines=True)):
            report = parse_report("r", "r.sql", "-- param: v text\nSELECT 'a\\' || :v || 'b\\' AS v")
            with run_report(database.engine, report, {"v": "\\'"}, options) as result:
                if result.lines is None:
                    assert [list(row) for batch in result.batches for row in batch] == [["a\\\\'b\\"]]
                else:
                    assert b"".join(result.lines()) == b"a\\\\'b\\\n"


def test_a_report_runs_once(engine: Engine) -> None:
    """Lines came after a cursor that had run as far as the first row, and that can be all the work there is."""
    sql = "SELECT pg_sleep(0.4)"
    for options in (RunOptions(), RunOptions(lines=True)):
        started = time.monotonic()
        with run_report(engine, parse_report("r", "r.sql", sql), {}, options) as result:
            list(result.batches if result.lines is None else result.lines())
        assert 0.4 <= time.monotonic() - started < 0.8


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
    for refused in (failure(engine, HEADER + sql, n=1, ids=[1]), lines_failure(engine, HEADER + sql, n=1, ids=[1])):
        assert refused.location is not None
        assert (refused.location.file, refused.location.line) == ("r.sql", line)
        assert refused.hint is not None
        assert refused.hint.endswith("\n    " + pointed)


def test_a_long_line_is_shown_around_the_place(engine: Engine) -> None:
    sql = "SELECT " + "'東京\u202e', " * 5000 + "nope, " + "1, " * 5000 + "2"
    refused = failure(engine, sql)
    assert refused.hint is not None
    _, shown, caret = refused.hint.split("\n")
    assert len(shown) < 300
    assert shown.startswith("    …")
    assert shown.endswith("…")
    assert cell_len(shown[: shown.index("nope")]) == caret.index("^")


def test_columns_are_found_as_sql_reads_them(engine: Engine) -> None:
    execute(engine, 'CREATE TABLE harbor.odd ("Order Date" text, "order date" text, plain text, "a,""b" text)')
    execute(engine, "INSERT INTO harbor.odd VALUES ('upper', 'lower', 'plain', 'odd')")
    sql = "-- param: t table\n-- param: c column\n-- param: l column[]\nSELECT :c, :l FROM :t"
    report = parse_report("r", "r.sql", sql)
    for column, expected in (
        ('"Order Date"', "upper"),
        ("order date", "lower"),
        ("PLAIN", "plain"),
        ('"a,""b"', "odd"),
    ):
        given = ["t=harbor.odd", f"c={column}", 'l="a,""b","Order Date", Plain']
        with run_report(engine, report, bind(report, given, datetime.now(UTC))) as result:
            assert [list(row) for batch in result.batches for row in batch] == [[expected, "odd", "upper", "plain"]]
    with pytest.raises(TargetError, match="has no column"):
        with run_report(engine, report, bind(report, ["t=harbor.odd", 'c="PLAIN"', "l=plain"], datetime.now(UTC))):
            pass


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
