"""From a shop of the first revision, with rows, step by step to the newest, and back."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, text

from harborctl.db import migrations
from tests.conftest import execute
from tests.stock.conftest import SHOP, disagreeing, free

HARBOR = migrations.revisions()["harbor"]
RESERVATIONS = """
    INSERT INTO harbor.stock_reservations (variant_id, order_ref, quantity, state, expires_at) VALUES
        (1, 'A', 30, 'active', now() + interval '1 day'), (1, 'B', 10, 'active', now() - interval '1 day'),
        (2, 'C', 4, 'fulfilled', now()), (2, 'D', 12, 'active', now()), (3, 'D', 5, 'active', now())
"""


@pytest.fixture
def older(engine: Engine) -> Engine:
    """A database of the first revision with rows, of which some are promised."""
    migrations.downgrade(engine, HARBOR[0])
    execute(engine, *SHOP, RESERVATIONS, "UPDATE harbor.products SET active = false WHERE id = 2")
    return engine


def step(engine: Engine, revision: str) -> None:
    """By the script, as an administrator does it."""
    start = HARBOR[HARBOR.index(revision) - 1]
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(migrations.offline_sql(start=start, to=revision).encode())


def test_step_by_step(older: Engine) -> None:
    shelf = {"MUG-W": 100, "MUG-B": 10, "TEE-R": 5, "TEE-G": 0}
    step(older, HARBOR[1])
    assert free(older) == shelf
    # The older program goes on meanwhile: what it does is in the history.
    execute(
        older,
        "UPDATE harbor.variants SET stock_qty = 90 WHERE id = 1",
        "INSERT INTO harbor.variants (id, product_id, sku, price_cents, stock_qty) VALUES (5, 1, 'MUG-X', 1, 7)",
    )
    step(older, HARBOR[2])
    now_free = {"MUG-W": 50, "MUG-B": 0, "TEE-R": 0, "TEE-G": 0, "MUG-X": 7}
    assert free(older) == now_free
    assert disagreeing(older) == []
    step(older, HARBOR[3])
    with older.connect() as connection:
        active = connection.execute(text("SELECT id FROM harbor.variants WHERE active ORDER BY id"))
        assert list(active.scalars()) == [1, 2, 5]
    assert migrations.pending(older) == []

    # Back: what is promised stands on the shelf again. Of MUG-B more had been promised than there was.
    migrations.downgrade(older, HARBOR[0])
    assert free(older) == {**shelf, "MUG-W": 90, "MUG-B": 12, "MUG-X": 7}
    migrations.upgrade(older)
    assert free(older) == now_free
    assert disagreeing(older) == []


def test_what_is_loaded_is_in_the_history(engine: Engine) -> None:
    """By INSERT, UPDATE and DELETE, of rows and of their ids, by a role without rights on the history."""
    role = f"feed_of_{engine.url.database}"
    execute(
        engine,
        *SHOP,
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA harbor TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON harbor.variants, harbor.products TO {role}",
        f"SET LOCAL ROLE {role}",
        "UPDATE harbor.variants SET stock_qty = stock_qty + 1 WHERE id < 3",
        "UPDATE harbor.variants SET price_cents = 1, stock_qty = stock_qty",
        "UPDATE harbor.variants SET id = 9 WHERE id = 3",
        "DELETE FROM harbor.products WHERE id = 1",
    )
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT variant_id, delta, reason FROM harbor.stock_movements ORDER BY id")
        ).all()
    assert [tuple(row) for row in found] == [
        (1, 100, "opening"),
        (2, 10, "opening"),
        (3, 5, "opening"),
        (1, 1, "changed"),
        (2, 1, "changed"),
        (3, -5, "changed"),
        (9, 5, "changed"),
        (1, -101, "removed"),
        (2, -11, "removed"),
    ]
    execute(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
