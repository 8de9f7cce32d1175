"""Show and list: what is free, and who holds what. One query each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, literal, null, or_, select, union_all

from harborctl.db.tables import products, stock_reservations, variants
from harborctl.errors import StockRefused
from harborctl.stock.orders import State
from harborctl.stock.reserve import as_ids
from harborctl.stock.statements import OVERDUE, reservation, reservations

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

    from harborctl.stock.orders import Reservation


class Which(StrEnum):
    """Which reservations are listed: those that hold stock, those whose time is over, or all."""

    ACTIVE = "active"
    EXPIRED = "expired"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class VariantStock:
    """A variant's stock: pieces that are `free`, `held` by active reservations, and of these `overdue`."""

    variant_id: int
    sku: str
    product: str
    active: bool
    free: int
    held: int
    overdue: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The stock of all variants."""

    variants: int
    free: int
    reservations: int
    held: int
    overdue: int


def list_reservations(connection: Connection, which: Which, limit: int) -> list[Reservation]:
    """Reservations, those first that run out, or ran out, first; of all kinds the newest first."""
    table = stock_reservations.c
    statement = reservations()
    if which is Which.ACTIVE:
        statement = statement.where(table.state == State.ACTIVE).order_by(table.expires_at, table.id)
    elif which is Which.EXPIRED:
        statement = statement.where(or_(OVERDUE, table.state == State.EXPIRED)).order_by(table.expires_at, table.id)
    else:
        statement = statement.order_by(table.id.desc())
    return [reservation(row) for row in connection.execute(statement.limit(limit))]


def totals(connection: Connection) -> Totals:
    """What there is of everything."""
    active = stock_reservations.c.state == State.ACTIVE
    quantity = stock_reservations.c.quantity
    held = (
        select(
            func.count().label("reservations"),
            func.coalesce(func.sum(quantity), 0).label("held"),
            func.coalesce(func.sum(quantity).filter(OVERDUE), 0).label("overdue"),
        )
        .where(active)
        .subquery("held")
    )
    stock = select(func.count().label("variants"), func.coalesce(func.sum(variants.c.stock_qty), 0).label("free"))
    found = stock.subquery("stock")
    row = connection.execute(select(found, held).select_from(found.join(held, literal(True)))).one()
    return Totals(row.variants, int(row.free), row.reservations, int(row.held), int(row.overdue))


def show(connection: Connection, name: str) -> tuple[VariantStock | None, list[Reservation]]:
    """A variant, by its SKU or its id, with the reservations that hold it; else an order, with all of its.

    Raises:
        StockRefused: there is neither.
    """
    rows = connection.execute(_variant_or_order(name)).all()
    if not rows:
        raise StockRefused(
            f"there is no variant and no order {name}",
            code="unknown",
            hint="`harborctl stock list` shows the orders that hold stock; variants go by their SKU or their id.",
        )
    held = [reservation(row) for row in rows if row.id is not None and not row.is_variant]
    variant = next((row for row in rows if row.is_variant), None)
    if variant is None:
        return None, held
    # A SKU that looks like an id goes first, and a variant goes before an order of its name.
    chosen = next((row for row in rows if row.is_variant and row.sku == name), variant)
    held = [reservation(row) for row in rows if row.is_variant and row.id is not None and row.sku == chosen.sku]
    return _variant_stock(chosen, held), held


def _variant_or_order(name: str) -> Select[Any]:
    table = stock_reservations.c
    is_named = variants.c.sku == name
    if ids := as_ids(name):
        is_named |= variants.c.id == ids[0]
    of_variant = select(
        literal(True).label("is_variant"),
        table.id,
        table.order_ref,
        variants.c.id.label("variant_id"),
        variants.c.sku,
        table.quantity,
        table.state,
        OVERDUE.label("overdue"),
        table.expires_at,
        table.created_at,
        variants.c.stock_qty,
        (variants.c.active & products.c.active).label("active"),
        products.c.name.label("product"),
    ).select_from(
        variants.join(products).outerjoin(
            stock_reservations, (table.variant_id == variants.c.id) & (table.state == State.ACTIVE)
        )
    )
    of_order = reservations().where(table.order_ref == name).subquery("of_order")
    both = union_all(
        of_variant.where(is_named),
        select(literal(False), *of_order.c, null(), null(), null()),
    ).subquery("both")
    return select(both).order_by(both.c.id)


def _variant_stock(row: Row[Any], held: list[Reservation]) -> VariantStock:
    return VariantStock(
        row.variant_id,
        row.sku,
        row.product,
        row.active,
        row.stock_qty,
        sum(each.quantity for each in held),
        sum(each.quantity for each in held if each.overdue),
    )
