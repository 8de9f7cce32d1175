"""A shop with four variants, and what the tests of stock share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.conftest import Run, execute, ours
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

Stock = Callable[..., dict[str, Any]]
Refused = Callable[..., dict[str, Any]]

SHOP = (
    """INSERT INTO harbor.products (id, sku, name, category, price_cents) VALUES
       (1, 'MUG', 'Mug', 'mugs', 900), (2, 'TEE', 'Tee', 'clothes', 1900)""",
    """INSERT INTO harbor.variants (id, product_id, sku, color, price_cents, stock_qty) VALUES
       (1, 1, 'MUG-W', 'white', 900, 100), (2, 1, 'MUG-B', 'black', 900, 10),
       (3, 2, 'TEE-R', 'red', 1900, 5), (4, 2, 'TEE-G', 'green', 1900, 0)""",
)


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """The program's engine on a database with the shop."""
    execute(engine, *SHOP)
    return ours(engine)


@pytest.fixture
def stock(shop: Engine, invoke: Invoke) -> Stock:
    """`harborctl stock … --json`, which must succeed; its document."""

    def run(*arguments: str) -> dict[str, Any]:
        done = invoke("stock", *arguments, "--json")
        assert (done.code, done.stderr) == (0, ""), done
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    return run


@pytest.fixture
def refused(shop: Engine, invoke: Invoke) -> Refused:
    """`harborctl stock … --json`, which must be refused and change nothing; its error."""

    def run(*arguments: str, code: int = 1, env: dict[str, str | None] | None = None) -> dict[str, Any]:
        before = everything(shop)
        done = invoke("stock", *arguments, "--json", env=env)
        assert everything(shop) == before
        return failure(done, code)

    return run


def failure(done: Run, code: int) -> dict[str, Any]:
    """The `error` of a failed run with `--json`."""
    assert done.code == code, done
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == "failed"
    error: dict[str, Any] = document["error"]
    assert error["message"] in done.stderr
    return error


def everything(engine: Engine) -> list[list[tuple[Any, ...]]]:
    """All that stock is made of."""
    tables = ("variants", "stock_reservations", "stock_movements")
    with engine.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(text(f"SELECT * FROM harbor.{table} ORDER BY id"))]
            for table in tables
        ]


def free(engine: Engine) -> dict[str, int]:
    """The stock of each variant."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT sku, stock_qty FROM harbor.variants ORDER BY id"))
        return {row.sku: row.stock_qty for row in found}


def movements(engine: Engine, *, since: int = 0) -> list[tuple[Any, ...]]:
    """Variant, order, delta and reason of each movement but those by which the shop was made."""
    with engine.connect() as connection:
        query = text(
            "SELECT variant_id, order_ref, delta, reason FROM harbor.stock_movements"
            " WHERE reason <> 'opening' ORDER BY id"
        )
        return [tuple(row) for row in connection.execute(query)][since:]


def disagreeing(engine: Engine) -> list[Any]:
    """The variants whose movements do not add up to their stock."""
    with engine.connect() as connection:
        query = text("""
            SELECT v.sku, v.stock_qty, (SELECT sum(delta) FROM harbor.stock_movements AS m WHERE m.variant_id = v.id)
            FROM harbor.variants AS v
            WHERE v.stock_qty <> (
                SELECT coalesce(sum(delta), 0) FROM harbor.stock_movements AS m WHERE m.variant_id = v.id
            )""")
        return list(connection.execute(query))


def pass_time(engine: Engine, minutes: int = 60) -> None:
    """As if so much time had passed: all reservations are older."""
    execute(
        engine,
        "UPDATE harbor.stock_reservations SET expires_at = expires_at - interval '1 minute' * "
        f"{minutes}, created_at = created_at - interval '1 minute' * {minutes}",
    )
