"""Many orders, in transactions of some orders each, by one connection or several."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harborctl.stock.reserve import reserve
from harborctl.stock.transaction import changing_stock, tried_again

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from harborctl.stock.orders import Order, OrderResult
    from harborctl.stock.transaction import Warn


def reserve_all(
    engine: Engine, orders: Sequence[Order], minutes: int, *, batch: int, jobs: int, warn: Warn
) -> Iterator[list[OrderResult]]:
    """Reserve what these orders want; the results as they are committed, in the order of the orders.

    Args:
        engine: the database; with several jobs its pool is what they share.
        orders: whose names differ.
        minutes: how long the reservations hold.
        batch: orders in one transaction. More of them save time, and hold the rows of what sells most for longer.
        jobs: transactions at once. With more than one, which of two orders gets the last piece is not settled by the
            order of the file.
        warn: is told of each failure that is tried again.
    """

    def work(some: Sequence[Order]) -> list[OrderResult]:
        def once() -> list[OrderResult]:
            with changing_stock(engine) as connection:
                return reserve(connection, some, minutes)

        return tried_again(once, warn)

    batches = [orders[start : start + batch] for start in range(0, len(orders), batch)]
    if jobs == 1:
        yield from map(work, batches)
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(work, batches)
        except BaseException:  # Ctrl-C, too
            pool.shutdown(wait=False, cancel_futures=True)
            raise
