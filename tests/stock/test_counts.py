"""Counted stock beside live reservations: what was taken since the count is taken off, and nothing falls below 0."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.conftest import execute
from tests.inprocess import Invoke
from tests.stock.conftest import Stock, disagreeing, free, pass_time


def count(engine: Engine, sku: str, quantity: int, at: str = "clock_timestamp()") -> None:
    execute(
        engine,
        f"""INSERT INTO harbor.stock_counts (sku, counted_qty, counted_at) VALUES ('{sku}', {quantity}, {at})
            ON CONFLICT (sku) DO UPDATE SET counted_qty = excluded.counted_qty, counted_at = excluded.counted_at""",
    )


def apply(engine: Engine) -> int:
    with engine.begin() as connection:
        return int(connection.scalar(text("SELECT harbor.apply_stock_counts()")))


def noted(engine: Engine, sku: str) -> tuple[Any, ...]:
    with engine.connect() as connection:
        query = text("SELECT moved, stock_qty, oversold FROM harbor.stock_counts WHERE sku = :sku")
        return tuple(connection.execute(query, {"sku": sku}).one())


def test_what_was_taken_since_is_taken_off(shop: Engine, stock: Stock) -> None:
    for order in "ABCD":
        stock("reserve", "MUG-W", "--qty", "10", "--order", order)
    count(shop, "MUG-W", 50)
    stock("release", "A")  # of before the count: its pieces stand on the shelf again
    stock("confirm", "B")
    stock("reserve", "MUG-W", "--qty", "3", "--order", "E")
    stock("reserve", "MUG-W", "--qty", "4", "--order", "F")
    stock("confirm", "F")
    assert apply(shop) == 1
    assert free(shop) == {"MUG-W": 53, "MUG-B": 10, "TEE-R": 5, "TEE-G": 0}
    assert noted(shop, "MUG-W") == (3, 53, 0)
    assert disagreeing(shop) == []


def test_a_count_is_applied_once(shop: Engine, stock: Stock) -> None:
    count(shop, "MUG-W", 50, "now() - interval '1 hour'")
    assert (apply(shop), apply(shop)) == (1, 0)
    stock("reserve", "MUG-W", "--order", "A")
    assert (apply(shop), free(shop)["MUG-W"]) == (0, 49)
    count(shop, "MUG-W", 60, "now() - interval '1 hour'")  # corrected
    assert (apply(shop), free(shop)["MUG-W"]) == (1, 59)
    count(shop, "MUG-W", 20)  # a later one, of after the reservation
    assert (apply(shop), free(shop)["MUG-W"]) == (1, 20)
    assert disagreeing(shop) == []


def test_never_below_nothing(shop: Engine, stock: Stock, invoke: Invoke) -> None:
    stock("reserve", "MUG-W", "--qty", "30", "--order", "A")
    count(shop, "MUG-W", 20, "now() - interval '1 hour'")
    count(shop, "TEE-R", 9, "now() - interval '1 hour'")
    assert apply(shop) == 2
    assert (free(shop)["MUG-W"], free(shop)["TEE-R"]) == (0, 9)
    assert noted(shop, "MUG-W") == (-30, 0, 10)
    done = invoke("report", "oversold", "--format", "csv")
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == ["sku", "MUG-W"]
    assert disagreeing(shop) == []


def test_a_count_that_is_still_to_come(shop: Engine) -> None:
    count(shop, "MUG-W", 20, "now() + interval '1 hour'")
    with pytest.raises(DBAPIError, match=r"the count of MUG-W was made at .* still to come"):
        apply(shop)
    assert free(shop)["MUG-W"] == 100


def test_what_runs_out_later_comes_back(shop: Engine, stock: Stock, invoke: Invoke) -> None:
    stock("reserve", "MUG-W", "--qty", "30", "--order", "A")
    count(shop, "MUG-W", 50)
    apply(shop)
    pass_time(shop)
    assert invoke("stock", "expire").code == 0
    assert free(shop)["MUG-W"] == 80
    assert disagreeing(shop) == []
