"""Archive: a product is no longer sold, and what orders hold of it has been dealt with.

A product is locked before its reservations, these before its variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, any_, bindparam, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from harborctl.db.tables import products, stock_reservations, variants
from harborctl.errors import StockRefused
from harborctl.stock.orders import State
from harborctl.stock.reserve import as_ids
from harborctl.stock.settle import give_back
from harborctl.stock.statements import lock_variants, record, reservation, reservations
from harborctl.stock.transaction import changing_stock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Connection, Engine, Row

    from harborctl.stock.orders import Reservation

_OF_PRODUCT = variants.c.product_id == bindparam("product")
_OF_VARIANTS = stock_reservations.c.variant_id == any_(cast(bindparam("ids"), ARRAY(BigInteger)))

# A SKU that looks like an id goes first. Locked against new variants, too.
_PRODUCT = (
    select(products.c.id, products.c.sku)
    .where((products.c.sku == bindparam("name")) | (products.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger)))))
    .order_by((products.c.sku == bindparam("name")).desc())
    .limit(1)
    .with_for_update()
)
_VARIANTS = select(variants.c.id).where(_OF_PRODUCT)
_LOCK_ACTIVE = (
    reservations()
    .where(_OF_PRODUCT, stock_reservations.c.state == State.ACTIVE)
    .order_by(stock_reservations.c.id)
    .with_for_update(key_share=True, of=stock_reservations)
)
_HELD = select(
    func.count().label("reservations"), func.coalesce(func.sum(stock_reservations.c.quantity), 0).label("pieces")
).where(_OF_VARIANTS, stock_reservations.c.state == State.ACTIVE)
_END_SALE = (
    update(products).where(products.c.id == bindparam("product"), products.c.active).values(active=False),
    update(variants).where(_OF_PRODUCT, variants.c.active).values(active=False),
)
_FORGET = delete(stock_reservations).where(_OF_VARIANTS)
# Variants go with it by their foreign key.
_DELETE = delete(products).where(products.c.id == bindparam("product"))


@dataclass(frozen=True, slots=True)
class Archived:
    """What was done. `forgotten` are ended reservations that were deleted with their variants."""

    product_id: int
    sku: str
    variants: int
    deleted: bool
    forgotten: int
    released: Sequence[Reservation]


def archive(engine: Engine, name: str, *, release: bool, delete: bool) -> Archived:
    """End a product, by its SKU or its id: it and its variants are no longer sold, or are gone.

    Args:
        engine: the database.
        name: the product.
        release: give back what orders hold of it. That takes a transaction before, which ends the sale: from then on
            nobody reserves any more.
        delete: delete the product, its variants and their ended reservations. Movements of stock stay.

    Raises:
        StockRefused: there is no such product, or orders hold some of it.
    """
    if release:
        with changing_stock(engine) as connection:
            product = _product(connection, name)
            _variants(connection, product)
            _end_sale(connection, product)
    with changing_stock(engine) as connection:
        product = _product(connection, name)
        held = connection.execute(_LOCK_ACTIVE, {"product": product.id}).all() if release else []
        released = give_back(connection, [reservation(row) for row in held])
        locked = _variants(connection, product)
        _require_free(connection, product, locked)
        forgotten = 0
        if delete:
            ids = [row.id for row in locked]
            forgotten = connection.execute(_FORGET, {"ids": ids}).rowcount
            connection.execute(_DELETE, {"product": product.id})
            record(connection, [(row.id, None, -row.stock_qty, "removed") for row in locked if row.stock_qty])
        else:
            _end_sale(connection, product)
        return Archived(product.id, product.sku, len(locked), delete, forgotten, released)


def _product(connection: Connection, name: str) -> Row[int, str]:
    """The product, locked."""
    product = connection.execute(_PRODUCT, {"name": name, "ids": as_ids(name)}).one_or_none()
    if product is None:
        raise StockRefused(
            f"there is no product {name}",
            code="unknown_product",
            hint="Name a product by its SKU or its id, as harbor.products has them.",
        )
    return product


def _variants(connection: Connection, product: Row[int, str]) -> Sequence[Row[Any]]:
    """The variants of a product, locked."""
    return lock_variants(connection, ids=connection.scalars(_VARIANTS, {"product": product.id}))


def _require_free(connection: Connection, product: Row[int, str], locked: Sequence[Row[Any]]) -> None:
    held = connection.execute(_HELD, {"ids": [row.id for row in locked]}).one()
    if held.reservations:
        one = held.reservations == 1
        raise StockRefused(
            f"{held.reservations:,} active reservation{' holds' if one else 's hold'} {held.pieces:,} of {product.sku}",
            code="reserved",
            hint="--release gives them back; `harborctl stock list --active` shows whose they are.",
        )


def _end_sale(connection: Connection, product: Row[int, str]) -> None:
    for statement in _END_SALE:
        connection.execute(statement, {"product": product.id})
