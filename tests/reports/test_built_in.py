"""The built-in reports, each against rows whose answer is known."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta

import pytest
from sqlalchemy import Engine

from tests.conftest import Run
from tests.counts.test_counts import run
from tests.inprocess import Invoke, invoke
from tests.reports.test_report_cli import SHOP

__all__ = ["invoke"]


@pytest.fixture(autouse=True)
def shop(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(SHOP)


def rows(done: Run) -> list[dict[str, str]]:
    """The rows of a CSV on stdout."""
    assert (done.code, done.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(done.stdout)))


def report(invoke: Invoke, name: str, **values: object) -> list[dict[str, str]]:
    given = [word for key, value in values.items() for word in ("-p", f"{key}={value}")]
    return rows(invoke("report", name, "--format", "csv", *given))


def test_today_is_there_where_a_midnight_was_not(invoke: Invoke) -> None:
    """In a zone whose clocks went forward at midnight three days ago, as they do in Santiago."""
    start, end = (date.today() - timedelta(days=3)), (date.today() + timedelta(days=100))
    zone = f"<-04>4<-03>,J{min(start.timetuple().tm_yday, 365)}/0,J{min(end.timetuple().tm_yday, 365)}/0"
    done = invoke("report", "most_reserved", "--format", "csv", "-p", "days=5", env={"PGTZ": zone})
    lines = [row["day_by_day"] for row in rows(done)]
    assert lines
    assert all(line.startswith("····") and line[4:] not in ("", "·") for line in lines)


@pytest.mark.parametrize(
    ("name", "given", "must_be"),
    [
        ("most_reserved", "days=0", "between 1 and 366"),
        ("most_reserved", "top=-1", "between 1 and 10000"),
        ("oversold_risk", "days=0", "between 1 and 366"),
        ("oversold_risk", "percent=-1", "at least 0"),
    ],
)
def test_bounds(invoke: Invoke, name: str, given: str, must_be: str) -> None:
    done = invoke("report", name, "-p", given)
    assert (done.code, done.stdout) == (2, "")
    parameter, _, value = given.partition("=")
    assert done.stderr.startswith(f"error: parameter {parameter} must be {must_be}, and '{value}' is not\n")


def test_reservations_aging(engine: Engine, invoke: Invoke) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("""
            INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, expires_at) VALUES
                (3, 'B1', 4, now() - interval '2 days'), (3, 'B2', 4, now() - interval '3 weeks'),
                (4, 'B2', 20, now() + interval '1 month')
        """)
    found = report(invoke, "reservations_aging")
    assert [(row["age"], row["reservations"], row["pieces"]) for row in found] == [
        ("overdue for more than a week", "1", "4"),
        ("overdue for more than a day", "1", "4"),
        ("overdue for up to a day", "1", "6"),
        ("runs out within the hour", "1", "6"),
        ("runs out within a day", "1", "1"),
        ("runs out later", "1", "20"),
    ]
    assert sum(float(row["share_percent"]) for row in found) == pytest.approx(100, abs=0.3)
    assert [row["pieces"] for row in report(invoke, "reservations_aging", category="clothes")] == list("006610")


def test_oversold_risk(engine: Engine, invoke: Invoke) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("""
            INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, expires_at)
            VALUES (3, 'B1', 6, now() + interval '1 day');
            -- A count has found 4 pieces less than there were.
            UPDATE harbor.variants SET stock_qty = 0 WHERE id = 3;
            INSERT INTO harbor.stock_counts (sku, counted_qty, counted_at, oversold) VALUES ('MUG-W', 4, now(), 2)
        """)
    first, second = report(invoke, "oversold_risk", days=7)
    assert (first["sku"], first["in_stock"], first["held"], first["short"]) == ("MUG-W", "6", "6", "2")
    assert (first["promised_percent"], first["days_left"]) == ("150.0", "0.0")
    assert (second["sku"], second["held"], second["overdue"], second["promised_percent"]) == (
        "TEE-R-M",
        "0",
        "6",
        "100.0",
    )
    found = report(invoke, "oversold_risk", percent=70, days=7)
    assert [row["sku"] for row in found] == ["MUG-W", "TEE-R-M", "TEE-R-S"]
    assert found[2]["days_left"] == "3.0"  # 3 pieces are free, and 7 went in 7 days


def test_most_reserved(engine: Engine, invoke: Invoke) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("""
            INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, expires_at, created_at) VALUES
                (4, 'B1', 8, now(), CURRENT_DATE - 1), (4, 'B2', 4, now(), CURRENT_DATE - 2),
                (4, 'B3', 1, now(), CURRENT_DATE), (4, 'B4', 99, now(), CURRENT_DATE - 4)
        """)
    found = report(invoke, "most_reserved", days=4)
    assert [(row["sku"], row["reservations"], row["pieces"], row["day_by_day"]) for row in found] == [
        ("MUG-B", "3", "13", "·▄█▁"),
        ("TEE-R-M", "2", "12", "···█"),
        ("TEE-R-S", "2", "7", "···█"),
    ]
    assert len(report(invoke, "most_reserved", days=4, top=1)) == 1


def test_table_sizes(engine: Engine, invoke: Invoke) -> None:
    run(
        engine,
        "CREATE TABLE p (id int, t text) PARTITION BY LIST (id)",
        *(f"CREATE TABLE p{number} PARTITION OF p FOR VALUES IN ({number})" for number in (1, 2)),
        "INSERT INTO p SELECT mod(i, 2) + 1, 'x' FROM generate_series(1, 1000) AS i",
        "ANALYZE p",
        "DELETE FROM p1",
    )
    [found] = report(invoke, "table_sizes", schema="public")  # the partitions are in it
    assert (found["schema"], found["table"], found["live_rows"]) == ("public", "p", "500")
    assert (found["dead_rows"], found["dead_percent"]) == ("500", "50.0")
    assert int(found["bytes"]) >= 16384
    assert found["last_analyze"] != ""
    everything = report(invoke, "table_sizes")
    assert [int(row["bytes"]) for row in everything] == sorted((int(row["bytes"]) for row in everything), reverse=True)
    assert {"harbor", "harborctl", "public"} == {row["schema"] for row in everything}


ODD = '"My ""table"" %s :x"'


def test_duplicate_keys(engine: Engine, invoke: Invoke) -> None:
    found = report(invoke, "duplicate_keys", table="harbor.variants", columns="product_id,color")
    assert found == [{"product_id": "1", "color": "red", "times": "2", "surplus_of_all": "1"}]
    with engine.begin() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(f'CREATE TABLE {ODD} ("a b" int, times text, "100%" int)')
        driver.execute(
            f"INSERT INTO {ODD} VALUES (1, 'x', 1), (1, 'x', 1), (1, 'x', 2), (NULL, 'y', 3), (NULL, 'y', 3)"
        )
    found = report(invoke, "duplicate_keys", table=ODD, columns="a b,times")
    assert len(found) == 1
    table = rows(invoke("report", "duplicate_keys", "-p", f"table={ODD}", "-p", "columns=100%", "--format", "csv"))
    assert {row["100%"]: row["times"] for row in table} == {"1": "2", "3": "2"}
    plan = invoke("report", "duplicate_keys", "-p", f"table={ODD}", "-p", "columns=100%", "--explain")
    assert (plan.code, plan.stderr) == (0, "")


@pytest.mark.parametrize(
    ("table", "columns", "message", "hint"),
    [
        ("harbor.variant", "id", "there is no table harbor.variant", "Did you mean harbor.variants?"),
        ("harbor.variants", "colour", "harbor.variants has no column colour", "Did you mean color?"),
        (
            "harbor.variants",
            "id; DROP TABLE harbor.variants",
            "harbor.variants has no column id; DROP TABLE harbor.variants",
            "See `harborctl tables harbor.variants`.",
        ),
        ("harbor.variants", "", "parameter columns needs a name", None),
    ],
)
def test_names_are_looked_up(invoke: Invoke, table: str, columns: str, message: str, hint: str | None) -> None:
    done = invoke("report", "duplicate_keys", "-p", f"table={table}", "-p", f"columns={columns}")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
