"""Release and confirm: how the reservations of an order end before their time is over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select

from harborctl.db.tables import stock_reservations
from harborctl.errors import StockRefused
from harborctl.stock.orders import State
from harborctl.stock.statements import (
    change_stock,
    end_reservations,
    lock_variants,
    record,
    reservation,
    reservations,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.stock.orders import Reservation

_LOCK_ACTIVE = (
    reservations()
    .where(stock_reservations.c.order_ref == bindparam("order"), stock_reservations.c.state == State.ACTIVE)
    .order_by(stock_reservations.c.id)
    .with_for_update(key_share=True, of=stock_reservations)
)
_LAST = (
    select(stock_reservations.c.state, stock_reservations.c.updated_at)
    .where(stock_reservations.c.order_ref == bindparam("order"))
    .order_by(stock_reservations.c.updated_at.desc(), stock_reservations.c.id.desc())
    .limit(1)
)


def release(connection: Connection, order: str) -> list[Reservation]:
    """Give back all that an order holds, also what has run out.

    Raises:
        StockRefused: there is no such order, or it holds nothing any more.
    """
    held = _held(connection, order, "released")
    return give_back(connection, held)


def give_back(connection: Connection, held: Sequence[Reservation]) -> list[Reservation]:
    """End these reservations, which are locked, and give their pieces back."""
    locked = lock_variants(connection, ids=[each.variant_id for each in held])
    deltas = dict.fromkeys((row.id for row in locked), 0)
    for each in held:
        deltas[each.variant_id] += each.quantity
    change_stock(connection, deltas)
    end_reservations(connection, [each.id for each in held], State.RELEASED)
    record(connection, [(each.variant_id, each.order, each.quantity, "released") for each in held])
    return [replace(each, state=State.RELEASED, overdue=False) for each in held]


def confirm(connection: Connection, order: str) -> list[Reservation]:
    """An order is paid for: its reservations end, and the stock stays down.

    Raises:
        StockRefused: there is no such order, it holds nothing any more, or its time is over.
    """
    held = _held(connection, order, "confirmed")
    if late := [each for each in held if each.overdue]:
        over = max(each.expires_at for each in late)
        raise StockRefused(
            f"the time of order {order} was over at {over.astimezone():%Y-%m-%d %H:%M:%S%z}: nothing was confirmed",
            code="overdue",
            hint="Reserve it again, which succeeds while there is enough, and confirm it then.",
        )
    end_reservations(connection, [each.id for each in held], State.FULFILLED)
    return [replace(each, state=State.FULFILLED) for each in held]


def _held(connection: Connection, order: str, asked: str) -> list[Reservation]:
    """What an order holds, locked."""
    held = [reservation(row) for row in connection.execute(_LOCK_ACTIVE, {"order": order})]
    if held:
        return held
    last = connection.execute(_LAST, {"order": order}).one_or_none()
    if last is None:
        raise StockRefused(
            f"there is no order {order}",
            code="unknown_order",
            hint="`harborctl stock list` shows the orders that hold stock.",
        )
    became = {State.FULFILLED: "confirmed"}.get(last.state, last.state)
    raise StockRefused(
        f"order {order} cannot be {asked}: it was {became} at {last.updated_at.astimezone():%Y-%m-%d %H:%M:%S%z}",
        code=f"already_{became}",
        hint=None if became == asked else f"`harborctl stock show {order}` tells what became of it.",
    )
