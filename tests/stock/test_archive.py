"""Archive: a product ends when nobody holds any of it, and its variants stay or go as the option says."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import Engine, text

from harborctl.errors import StockRefused
from harborctl.stock.archive import archive
from harborctl.stock.feed import reserve_all
from harborctl.stock.orders import Line, Order
from harborctl.stock.settle import release
from harborctl.stock.transaction import changing_stock
from tests.conftest import Run, execute
from tests.inprocess import Invoke
from tests.stock.conftest import Refused, Stock, disagreeing, free, movements, pass_time


def sold(engine: Engine) -> list[str]:
    """Products and variants that are sold."""
    with engine.connect() as connection:
        query = "SELECT sku FROM harbor.products WHERE active UNION ALL SELECT sku FROM harbor.variants WHERE active"
        return sorted(connection.scalars(text(query)))


@pytest.mark.parametrize("name", ["MUG", "1"])
def test_variants_stay(shop: Engine, stock: Stock, refused: Refused, name: str) -> None:
    stock("reserve", "MUG-W", "--order", "A")
    stock("confirm", "A")
    document = stock("archive", name)
    assert (document["status"], document["sku"], document["variants"], document["released"]) == (
        "archived",
        "MUG",
        2,
        [],
    )
    assert sold(shop) == ["TEE", "TEE-G", "TEE-R"]
    assert free(shop)["MUG-W"] == 99
    assert refused("reserve", "MUG-W", "--order", "B")["code"] == "not_sold"
    assert stock("archive", name)["status"] == "archived"
    assert disagreeing(shop) == []


def test_variants_go(shop: Engine, stock: Stock, invoke: Invoke) -> None:
    stock("reserve", "MUG-W", "--order", "A")
    stock("confirm", "A")
    stock("reserve", "TEE-R", "--order", "A")
    assert invoke("stock", "archive", "MUG", "--delete") == Run(
        0, "deleted MUG with 2 variants and 1 ended reservations\n", ""
    )
    assert sold(shop) == ["TEE", "TEE-G", "TEE-R"]
    assert free(shop) == {"TEE-R": 4, "TEE-G": 0}
    assert movements(shop)[-2:] == [(1, None, -99, "removed"), (2, None, -10, "removed")]
    assert [each["sku"] for each in stock("show", "A")["reservations"]] == ["TEE-R"]
    assert ledger(invoke) == []


@pytest.mark.parametrize("options", [(), ("--delete",)])
def test_refused_while_orders_hold_some(shop: Engine, stock: Stock, refused: Refused, options: tuple[str, ...]) -> None:
    stock("reserve", "MUG-W", "--qty", "2", "--order", "A")
    pass_time(shop)  # what is overdue is held, too
    stock("reserve", "MUG-B", "--qty", "3", "--order", "B")
    error = refused("archive", "MUG", *options)
    assert (error["code"], error["message"]) == ("reserved", "2 active reservations hold 5 of MUG")
    document = stock("archive", "MUG", "--release", *options)
    assert sorted((each["order"], each["quantity"], each["state"]) for each in document["released"]) == [
        ("A", 2, "released"),
        ("B", 3, "released"),
    ]
    assert sold(shop) == ["TEE", "TEE-G", "TEE-R"]
    assert disagreeing(shop) == []


def test_while_others_reserve_and_release(shop: Engine) -> None:
    """However fast they are: when it is archived nobody holds any of it, and nobody gets any more."""
    over = threading.Event()

    def reserve_and_release(place: int) -> str | None:
        number = 0
        while not over.is_set():
            number += 1
            order = Order(f"{place}-{number}", (Line("MUG-W", 1), Line("MUG-B", 1)))
            [[result]] = reserve_all(shop, [order], 15, batch=1, jobs=1, warn=pytest.fail)
            if result.error and result.error.code != "out_of_stock":
                return result.error.code
            with suppress(StockRefused), changing_stock(shop) as connection:
                release(connection, f"{place}-{number - 2}")
        return None

    with ThreadPoolExecutor(3) as pool:
        ended = [pool.submit(reserve_and_release, place) for place in range(3)]
        try:
            while not movements(shop):
                time.sleep(0.02)
            archive(shop, "MUG", release=True, delete=False)
            assert [each.result(timeout=30) for each in ended] == ["not_sold"] * 3
        finally:
            over.set()
    with shop.connect() as connection:
        held = connection.scalar(text("SELECT count(*) FROM harbor.stock_reservations WHERE state = 'active'"))
    assert held == 0
    assert (free(shop)["MUG-W"], free(shop)["MUG-B"]) == (100, 10)
    assert disagreeing(shop) == []


@pytest.mark.parametrize("options", [(), ("--release",), ("--delete", "--release")])
def test_no_such_product(refused: Refused, options: tuple[str, ...]) -> None:
    error = refused("archive", "CUP", *options)
    assert (error["code"], error["message"]) == ("unknown_product", "there is no product CUP")


def ledger(invoke: Invoke) -> list[dict[str, object]]:
    done = invoke("report", "stock_ledger", "--format", "json")
    assert (done.code, done.stderr) == (0, "")
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_the_ledger_names_what_does_not_add_up(shop: Engine, stock: Stock, invoke: Invoke) -> None:
    stock("reserve", "MUG-W", "--qty", "2", "--order", "A")
    assert ledger(invoke) == []
    execute(
        shop,
        "SET LOCAL harbor.stock_movements = 'written'",
        "UPDATE harbor.variants SET stock_qty = 90 WHERE sku = 'MUG-W'",
        "UPDATE harbor.variants SET stock_qty = 1 WHERE sku = 'TEE-G'",
        "DELETE FROM harbor.variants WHERE sku = 'MUG-B'",
    )
    found = [
        (row["variant_id"], row["sku"], row["stock_qty"], row["movements_sum"], row["difference"], row["last_reason"])
        for row in ledger(invoke)
    ]
    assert found == [
        (2, None, 0, 10, -10, "opening"),
        (1, "MUG-W", 90, 98, -8, "reserved"),
        (4, "TEE-G", 1, 0, 1, None),
    ]
