"""Our tables as they are once migrated: what they refuse, what goes with a row, and that the samples fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from harborctl.db import tables
from tests.conftest import execute

if TYPE_CHECKING:
    from sqlalchemy import Engine

SAMPLES = Path(__file__).parents[2] / "samples"

PRODUCT = "INSERT INTO harbor.products (id, sku, name, category, price_cents) VALUES (1, 'P', 'p', 'c', 1)"
VARIANT = "INSERT INTO harbor.variants (id, product_id, sku, color, size, price_cents) VALUES (1, 1, 'V', 'r', 's', 1)"
RESERVATION = (
    "INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, state, expires_at)"
    " VALUES (1, 'O', 1, 'active', now())"
)
LOAD = (
    "INSERT INTO harborctl.loads (id, target_table, mode, writer, status, application_version)"
    " VALUES ('00000000-0000-0000-0000-000000000001', 't', 'append', 'copy', 'running', '0')"
)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (PRODUCT.replace("1)", "-1)"), "ck_products_price_cents"),
        (PRODUCT.replace("(1,", "(2,"), "uq_products_sku"),
        (VARIANT.replace("1)", "-1)"), "ck_variants_price_cents"),
        ("UPDATE harbor.variants SET stock_qty = stock_qty - 1", "ck_variants_stock_qty"),
        (VARIANT.replace("(1,", "(2,").replace("'r'", "'g'"), "uq_variants_sku"),
        (VARIANT.replace("(1,", "(2,").replace("'V'", "'W'"), "uq_variants_product_id_color_size"),
        (VARIANT.replace("(1, 1, 'V'", "(2, 2, 'W'"), "fk_variants_product_id"),
        (RESERVATION, "uq_stock_reservations_active"),
        (RESERVATION.replace("'O', 1", "'P', 0"), "ck_stock_reservations_quantity"),
        (RESERVATION.replace("'active'", "'gone'"), "ck_stock_reservations_state"),
        (RESERVATION.replace("(1,", "(2,"), "fk_stock_reservations_variant_id"),
        ("DELETE FROM harbor.variants", "fk_stock_reservations_variant_id"),
        (LOAD.replace("'running'", "'lost'").replace("0001", "0002"), "ck_loads_status"),
        (LOAD, "pk_loads"),
    ],
)
def test_the_tables_refuse(engine: Engine, statement: str, constraint: str) -> None:
    execute(engine, PRODUCT, VARIANT, RESERVATION, LOAD)
    with pytest.raises(IntegrityError) as refused:
        execute(engine, statement)
    assert isinstance(refused.value.orig, psycopg.Error)
    assert refused.value.orig.diag.constraint_name == constraint


def test_an_order_may_reserve_again_what_it_gave_back(engine: Engine) -> None:
    release = "UPDATE harbor.stock_reservations SET state = 'released' WHERE state = 'active'"
    execute(engine, PRODUCT, VARIANT, RESERVATION, release, RESERVATION, release, RESERVATION)


def test_every_status_of_the_contract_is_accepted(engine: Engine) -> None:
    execute(engine, LOAD)
    contract = ("loaded", "loaded_with_rejects", "already_loaded", "dry_run", "locked", "interrupted", "failed")
    for status in ("running", *contract):
        execute(engine, f"UPDATE harborctl.loads SET status = '{status}'")


def test_what_belongs_to_a_row_goes_with_it(engine: Engine) -> None:
    execute(
        engine,
        PRODUCT,
        VARIANT,
        LOAD,
        "INSERT INTO harborctl.files (load_id, position, path) SELECT id, 1, 'f' FROM harborctl.loads",
        "INSERT INTO harborctl.chunks (load_id, number, first_row, last_row, rows)"
        " SELECT id, 1, 1, 9, 9 FROM harborctl.loads",
        "DELETE FROM harborctl.loads",
        "DELETE FROM harbor.products",
    )
    with engine.connect() as connection:
        for table in (tables.files, tables.chunks, tables.variants):
            assert connection.execute(table.select()).all() == []


# -- the samples


def _copy(engine: Engine, table: str, sample: str) -> None:
    path = SAMPLES / sample
    columns = path.read_text(encoding="utf-8").partition("\n")[0]
    with engine.begin() as connection:
        server = connection.connection.driver_connection
        assert isinstance(server, psycopg.Connection)
        statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT csv, HEADER match)"
        with server.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.write(path.read_bytes())


def test_the_samples_fit(engine: Engine) -> None:
    _copy(engine, "harbor.products", "products.csv")
    _copy(engine, "harbor.variants", "variants.csv")
    _copy(engine, "harbor.stock_reservations", "stock_reservations.csv")
    # Rows that bring no id get one that no sample has.
    execute(engine, "INSERT INTO harbor.products (sku, name, category, price_cents) VALUES ('P', 'p', 'c', 1)")
    with engine.connect() as connection:
        query = text(
            "SELECT id, sku, name, description, category, price_cents, active FROM harbor.products ORDER BY id"
        )
        *samples, own = (tuple(row) for row in connection.execute(query))
    assert own[:2] == (1001, "P")
    assert [tuple(row.values()) for row in pq.read_table(SAMPLES / "products.parquet").to_pylist()] == samples


def test_the_nightly_feed_has_something_of_each_kind(engine: Engine) -> None:
    _copy(engine, "harbor.products", "products.csv")
    _copy(engine, "harbor.variants", "variants.csv")
    execute(
        engine,
        "CREATE TABLE public.feed (LIKE harbor.variants INCLUDING DEFAULTS)",
        "ALTER TABLE public.feed ALTER id DROP NOT NULL",
    )
    _copy(engine, "public.feed", "nightly_variants.csv")
    query = text("""
        SELECT count(*) FILTER (WHERE v.sku IS NULL) AS new,
               count(*) FILTER (WHERE (v.price_cents, v.stock_qty, v.updated_at)
                                    = (f.price_cents, f.stock_qty, f.updated_at)) AS unchanged,
               count(*) FILTER (WHERE (v.price_cents, v.stock_qty) IS DISTINCT FROM (f.price_cents, f.stock_qty)
                                  AND v.updated_at < f.updated_at) AS changed
        FROM public.feed AS f LEFT JOIN harbor.variants AS v USING (product_id, sku, color, size)""")
    with engine.connect() as connection:
        assert connection.execute(query).one()._asdict() == {"new": 6, "unchanged": 38, "changed": 22}
