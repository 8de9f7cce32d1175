"""`harborctl tables`: the list, and all about one table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine

from harborctl.cli.tables import human
from tests.conftest import Run
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


ORDERS = (
    "CREATE TABLE customers (id int PRIMARY KEY)",
    "COMMENT ON TABLE customers IS 'Who buys'",
    """CREATE TABLE orders (
        id int GENERATED ALWAYS AS IDENTITY, day date NOT NULL DEFAULT CURRENT_DATE, customer int REFERENCES customers,
        net numeric(12,2) NOT NULL CHECK (net >= 0), gross numeric(14,4) GENERATED ALWAYS AS (net * 1.19) STORED,
        note varchar(20), PRIMARY KEY (id, day)) PARTITION BY RANGE (day)""",
    "CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "CREATE TABLE lines (order_id int, order_day date, FOREIGN KEY (order_id, order_day) REFERENCES orders)",
    "COMMENT ON COLUMN orders.note IS 'What the customer said'",
    "CREATE INDEX ON orders (customer) WHERE net > 10",
    "CREATE VIEW big_orders AS SELECT * FROM orders WHERE net > 100",
    "INSERT INTO orders (day, net) SELECT '2026-05-05', i FROM generate_series(1, 1000) AS i",
    "ANALYZE orders",
)


def document(done: Run) -> Any:
    assert (done.code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_list(engine: Engine, invoke: Invoke) -> None:
    run(engine, *ORDERS, "ANALYZE customers")
    done = invoke("tables", "public.*")
    assert (done.code, done.stderr) == (0, "")
    header, _, *lines = done.stdout.splitlines()
    assert header.split() == ["table", "kind", "rows", "≈", "size", "comment"]
    assert [line.replace("136 kB", "128 kB").split() for line in lines] == [
        ["public.big_orders", "view", "?"],
        ["public.customers", "0", "8", "kB", "Who", "buys"],
        ["public.lines", "0", "0", "B"],
        ["public.orders", "partitioned", "table", "1,000", "128", "kB"],
    ]


def test_the_list_as_json(engine: Engine, invoke: Invoke) -> None:
    run(engine, *ORDERS)
    listed = document(invoke("tables", "--json"))
    assert [table["table"] for table in listed if not table["table"].startswith("harborctl.")] == [
        "harbor.products",
        "harbor.stock_counts",
        "harbor.stock_movements",
        "harbor.stock_reservations",
        "harbor.variants",
        "public.big_orders",
        "public.customers",
        "public.lines",
        "public.orders",
    ]
    assert {"table": "public.customers", "kind": "table", "rows": 0, "bytes": 8192, "comment": "Who buys"} in listed
    assert {"table": "public.big_orders", "kind": "view", "rows": None, "bytes": None, "comment": None} in listed


def test_no_tables(engine: Engine, invoke: Invoke) -> None:
    run(engine, "DROP SCHEMA harbor CASCADE", "DROP SCHEMA harborctl CASCADE")
    done = invoke("tables", "--json")
    assert (done.code, json.loads(done.stdout)) == (0, [])
    assert done.stderr == "There are no tables yet; `harborctl load --help` says how to fill one.\n"


def test_one_as_json(engine: Engine, invoke: Invoke) -> None:
    run(engine, *ORDERS)
    table = document(invoke("tables", "ORDERS", "--json"))
    assert (table["table"], table["kind"], table["partitioned_by"]) == (
        "public.orders",
        "partitioned table",
        "RANGE (day)",
    )
    assert table["partitions"] == ["public.orders_2026"]
    assert (table["rows"], table["rows_from"]) == (1000, "analyze")
    assert [(c["name"], c["type"], c["nullable"], c["default"]) for c in table["columns"]] == [
        ("id", "integer", False, "generated always as identity"),
        ("day", "date", False, "CURRENT_DATE"),
        ("customer", "integer", True, None),
        ("net", "numeric(12,2)", False, None),
        ("gross", "numeric(14,4)", True, "generated always as ((net * 1.19))"),
        ("note", "character varying(20)", True, None),
    ]
    assert table["columns"][5]["comment"] == "What the customer said"
    assert [(c["kind"], c["definition"]) for c in table["constraints"]] == [
        ("primary key", "PRIMARY KEY (id, day)"),
        ("check", "CHECK (net >= 0::numeric)"),
    ]
    [out] = table["foreign_keys"]
    assert (out["columns"], out["other_table"], out["other_columns"]) == (["customer"], "public.customers", ["id"])
    [into] = table["referenced_by"]
    assert (into["table"], into["columns"], into["other_columns"]) == (
        "public.lines",
        ["order_id", "order_day"],
        ["id", "day"],
    )
    assert [index["unique"] for index in table["indexes"]] == [True, False]
    sizes = table["sizes"]
    assert sizes["table"] > 0
    assert sizes["total"] == sizes["table"] + sizes["toast"] + sizes["indexes"]
    part = document(invoke("tables", "orders_2026", "--json"))
    assert part["partition_of"] == "public.orders"
    assert [key["other_table"] for key in part["foreign_keys"]] == ["public.customers"]


def test_one_for_people(engine: Engine, invoke: Invoke) -> None:
    run(engine, *ORDERS[:6])
    assert invoke("tables", "orders") == Run(
        0,
        """\
public.orders, partitioned table of postgres
  partitioned by RANGE (day)
  ≈ 0 rows (from file size)
  8 kB (indexes 8 kB)

column     type                    null       default                              comment
─────────────────────────────────────────────────────────────────────────────────────────────────────────
id         integer                 not null   generated always as identity
day        date                    not null   CURRENT_DATE
customer   integer
net        numeric(12,2)           not null
gross      numeric(14,4)                      generated always as ((net * 1.19))
note       character varying(20)                                                   What the customer said

constraint                  name
────────────────────────────────────────────
PRIMARY KEY (id, day)       orders_pkey
CHECK (net >= 0::numeric)   orders_net_check

refers to                            name
─────────────────────────────────────────────────────────
(customer) → public.customers (id)   orders_customer_fkey

referred to by                       name
──────────────────────────────────────────────────────────────────
public.lines (order_id, order_day)   lines_order_id_order_day_fkey

index         on                size   is
─────────────────────────────────────────────
orders_pkey   btree (id, day)    0 B   unique

partition
──────────────────
public.orders_2026
""",
        "",
    )


def test_a_view(engine: Engine, invoke: Invoke) -> None:
    run(engine, *ORDERS)
    table = document(invoke("tables", "big_orders", "--json"))
    assert (table["kind"], table["sizes"], table["rows_from"]) == ("view", None, "planner")
    assert table["query"].startswith(("SELECT id,", "SELECT orders.id,"))  # as of PostgreSQL 16, and before
    done = invoke("tables", "big_orders")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.endswith(("WHERE net > 100::numeric;\n", "WHERE orders.net > 100::numeric;\n"))


def test_an_odd_name(engine: Engine, invoke: Invoke) -> None:
    run(engine, 'CREATE SCHEMA "a.b"', 'CREATE TABLE "a.b"."c""d" ("x y" int)')
    table = document(invoke("tables", '"a.b"."c""d"', "--json"))
    assert (table["table"], table["schema"], table["name"], table["rows"]) == ('a.b.c"d', "a.b", 'c"d', 0)


def test_unknown_names(invoke: Invoke) -> None:
    assert invoke("tables", "harbor.product") == Run(
        2, "", "error: there is no table harbor.product\nhint: Did you mean harbor.products?\n"
    )
    assert invoke("tables", "x*") == Run(
        2, "", "error: no table matches x*\nhint: `harborctl tables` lists what there is.\n"
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (24576, "24 kB"), (1500 * 1024, "1.5 MB"), (5 * 1024**4, "5.0 TB")],
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert human(size) == shown
