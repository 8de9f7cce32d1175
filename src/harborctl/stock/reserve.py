"""Reserve: take pieces off the stock for orders, each all or nothing.

Many orders share a transaction. All rows that they need are locked at its begin, so that what is decided here, order by
order, holds until it commits. The same order again is answered with the same reservations: a caller who does not know
how a run ended runs it again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, any_, bindparam, cast, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY

from harborctl.db.tables import stock_reservations
from harborctl.errors import HarborctlError, StockRefused
from harborctl.stock.orders import Answer, OrderResult, Reservation, State
from harborctl.stock.statements import (
    OVERDUE,
    change_stock,
    end_reservations,
    lock_variants,
    record,
    reservation,
    reservations,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row

    from harborctl.stock.orders import Line, Order

LARGEST_ID = 2**63 - 1

_OF_ORDERS = stock_reservations.c.order_ref == any_(cast(bindparam("orders"), ARRAY(Text)))

_LOCK_OVERDUE = (
    select(stock_reservations.c.id)
    .where(_OF_ORDERS, OVERDUE)
    .order_by(stock_reservations.c.id)
    .with_for_update(key_share=True)
)
# Of an order's reservations of a variant the active one counts, else the last that was paid for.
_STANDING = (
    reservations()
    .where(_OF_ORDERS, stock_reservations.c.state.in_([State.ACTIVE, State.FULFILLED]))
    .order_by(stock_reservations.c.state == State.ACTIVE, stock_reservations.c.id)
)
_given = rows_of(variant_id=BigInteger, order_ref=Text, quantity=Integer)
_INSERT = (
    insert(stock_reservations)
    .from_select(
        ["variant_id", "order_ref", "quantity", "expires_at"],
        select(*_given.c, func.now() + func.make_interval(0, 0, 0, 0, 0, cast(bindparam("minutes"), Integer))).order_by(
            _given.c.variant_id, _given.c.order_ref
        ),
        include_defaults=False,
    )
    .returning(
        stock_reservations.c.id,
        stock_reservations.c.order_ref,
        stock_reservations.c.variant_id,
        stock_reservations.c.quantity,
        stock_reservations.c.expires_at,
        stock_reservations.c.created_at,
    )
)
_HELD_OVERDUE = (
    select(stock_reservations.c.variant_id, func.sum(stock_reservations.c.quantity).label("quantity"))
    .where(OVERDUE, stock_reservations.c.variant_id == any_(cast(bindparam("ids"), ARRAY(BigInteger))))
    .group_by(stock_reservations.c.variant_id)
)


def reserve(connection: Connection, orders: Sequence[Order], minutes: int) -> list[OrderResult]:
    """Reserve what these orders want, in their order; their names differ.

    Args:
        connection: in a transaction of `changing_stock`.
        orders: what is wanted.
        minutes: how long the reservations hold.
    """
    stock = _Stock(connection, [order for order in orders if order.error is None])
    results = [stock.answer(order) for order in orders]
    made = stock.write(minutes)
    return [replace(result, reservations=(*result.reservations, *made.get(result.order, ()))) for result in results]


class _Stock:
    """The rows that some orders need, locked, and what has been promised of them so far."""

    def __init__(self, connection: Connection, orders: Sequence[Order]) -> None:
        self._connection = connection
        names = {"orders": [order.ref for order in orders]}
        wanted = {line.variant for order in orders for line in order.lines}
        # What is overdue is locked before any variant. Nothing becomes overdue later: now() stands still.
        connection.execute(_LOCK_OVERDUE, names)
        self._variants = lock_variants(connection, skus=wanted, ids=[id_ for text in wanted for id_ in as_ids(text)])
        self._by_name = {str(row.id): row for row in self._variants} | {row.sku: row for row in self._variants}
        self._free = {row.id: row.stock_qty for row in self._variants}
        found = connection.execute(_STANDING, names)
        self._standing = {(row.order_ref, row.variant_id): reservation(row) for row in found}
        self._ended: list[Reservation] = []
        self._new: dict[tuple[str, int], int] = {}
        self._short: dict[int, list[StockRefused]] = {}

    def answer(self, order: Order) -> OrderResult:
        """What becomes of one order; what is refused has taken nothing."""
        rows = {line.variant: row for line in order.lines if (row := self._variant(line.variant))}
        kept, ended, new = list[Reservation](), list[Reservation](), dict[tuple[str, int], int]()
        try:
            if order.error is not None:
                raise order.error
            _check_lines(order, rows)
            for line in order.lines:
                row = rows[line.variant]
                standing = self._standing.get((order.ref, row.id))
                if standing and not standing.overdue:
                    kept.append(_same(order, line, standing))
                    continue
                if standing:
                    ended.append(standing)
                self._check_free(order, line, row, standing.quantity if standing else 0)
                new[order.ref, row.id] = line.quantity
        except HarborctlError as error:
            return OrderResult(order.ref, Answer.REFUSED, left=self._left(rows.values()), error=error)
        for each in ended:
            self._free[each.variant_id] += each.quantity
        for (_, variant), quantity in new.items():
            self._free[variant] -= quantity
        self._ended += ended
        self._new |= new
        answer = Answer.RESERVED if new else Answer.ALREADY_RESERVED
        return OrderResult(order.ref, answer, tuple(kept), self._left(rows.values()))

    def _variant(self, name: str) -> Row[Any] | None:
        """By SKU, or else by id, however many zeros it begins with."""
        return self._by_name.get(name) or next(
            (row for id_ in as_ids(name) if (row := self._by_name.get(str(id_))) and row.id == id_), None
        )

    def _left(self, rows: Iterable[Row[Any]]) -> dict[str, int]:
        return {row.sku: self._free[row.id] for row in rows}

    def _check_free(self, order: Order, line: Line, row: Row[Any], own: int) -> None:
        """`own` pieces are held by a reservation of this order whose time is over."""
        free = self._free[row.id] + own
        if line.quantity <= free:
            return
        left = f"{free:,} {'is' if free == 1 else 'are'} left" if free else "none is left"
        message = f"order {order.ref} wants {line.quantity:,} of {row.sku}, and {left}"
        error = _refused(line, message, "out_of_stock")
        self._short.setdefault(row.id, []).append(error)
        raise error

    def write(self, minutes: int) -> dict[str, list[Reservation]]:
        """Write what has been decided; the new reservations of each order."""
        connection = self._connection
        end_reservations(connection, [each.id for each in self._ended], State.EXPIRED)
        change_stock(connection, {row.id: self._free[row.id] - row.stock_qty for row in self._variants})
        made: dict[str, list[Reservation]] = {}
        if self._new:
            skus = {row.id: row.sku for row in self._variants}
            given = {
                "all_order_ref": [order for order, _ in self._new],
                "all_variant_id": [variant for _, variant in self._new],
                "all_quantity": list(self._new.values()),
                "minutes": minutes,
            }
            for row in connection.execute(_INSERT, given):
                made.setdefault(row.order_ref, []).append(
                    Reservation(
                        row.id,
                        row.order_ref,
                        row.variant_id,
                        skus[row.variant_id],
                        row.quantity,
                        State.ACTIVE,
                        False,
                        row.expires_at,
                        row.created_at,
                    )
                )
        record(
            connection,
            [
                *((each.variant_id, each.order, each.quantity, "expired") for each in self._ended),
                *((variant, order, -quantity, "reserved") for (order, variant), quantity in self._new.items()),
            ],
        )
        self._tell_of_overdue()
        return made

    def _tell_of_overdue(self) -> None:
        """What stands in the way may be over already."""
        if not self._short:
            return
        for row in self._connection.execute(_HELD_OVERDUE, {"ids": list(self._short)}):
            for error in self._short[row.variant_id]:
                error.hint = (
                    f"{row.quantity:,} more are held by reservations whose time is over: `harborctl stock expire`"
                    " gives them back."
                )


def as_ids(text: str) -> list[int]:
    """The id that `text` may be."""
    return [int(text)] if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= LARGEST_ID else []


def _check_lines(order: Order, rows: dict[str, Row[Any]]) -> None:
    if not order.ref:
        raise StockRefused("an order has no name", code="no_order", hint="Give each order a name of its own.")
    times = Counter(rows[line.variant].id for line in order.lines if line.variant in rows)
    for line in order.lines:
        row = rows.get(line.variant)
        if row is None:
            hint = "Name a variant by its SKU or its id, as harbor.variants has them."
            raise _refused(line, f"there is no variant {line.variant}", "unknown_variant", hint)
        if line.quantity <= 0:
            message = f"order {order.ref} wants {line.quantity:,} of {row.sku}: a quantity is 1 or more"
            raise _refused(line, message, "bad_quantity", "`harborctl stock release ORDER` gives pieces back.")
        if times[row.id] > 1:
            message = f"order {order.ref} names variant {row.sku} {times[row.id]} times"
            raise _refused(
                line, message, "variant_twice", "Give each variant one line, with the sum of its quantities."
            )
        if not row.active:
            message = f"variant {row.sku} is no longer sold"
            raise _refused(line, message, "not_sold", "It, or its product, has active = false.")


def _same(order: Order, line: Line, standing: Reservation) -> Reservation:
    """The reservation that there is, if it is the one that is asked for."""
    if standing.quantity == line.quantity:
        return standing
    bought = standing.state is State.FULFILLED
    message = (
        f"order {order.ref} {'has bought' if bought else 'holds'} {standing.quantity:,} of {standing.sku}, and"
        f" {line.quantity:,} are asked for"
    )
    hint = "Reserve more for another order." if bought else "Release the order first, then reserve it anew."
    raise _refused(line, message, "other_quantity", hint)


def _refused(line: Line, message: str, code: str, hint: str | None = None) -> StockRefused:
    value = line.variant if code in {"unknown_variant", "variant_twice", "not_sold"} else str(line.quantity)
    return StockRefused(message, code=code, hint=hint, location=line.location, value=value)
