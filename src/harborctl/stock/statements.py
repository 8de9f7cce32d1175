"""The statements that several stock commands share. Each takes many rows, and is compiled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, any_, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from harborctl.db.tables import products, stock_movements, stock_reservations, variants
from harborctl.stock.orders import Reservation, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, FromClause, Row, Select
    from sqlalchemy.types import TypeEngine

# Its time is over, though nobody has ended it yet.
OVERDUE = (stock_reservations.c.state == State.ACTIVE) & (stock_reservations.c.expires_at <= func.now())


def rows_of(**types: type[TypeEngine[Any]]) -> FromClause:
    """A table of rows that are bound as one array for each column: `all_` and the column's name."""
    # Not unnest() of several arrays: that is grammar, which only the bare name has.
    columns = (
        func.unnest(cast(bindparam(f"all_{name}"), ARRAY(kind)), type_=kind()).label(name)
        for name, kind in types.items()
    )
    return select(*columns).subquery("given")


def reservations() -> Select[Any]:
    """What a `Reservation` is made of."""
    table = stock_reservations.c
    return select(
        table.id,
        table.order_ref,
        table.variant_id,
        variants.c.sku,
        table.quantity,
        table.state,
        OVERDUE.label("overdue"),
        table.expires_at,
        table.created_at,
    ).join_from(stock_reservations, variants)


def reservation(row: Row[Any]) -> Reservation:
    """One row of `reservations()`."""
    return Reservation(
        row.id,
        row.order_ref,
        row.variant_id,
        row.sku,
        row.quantity,
        State(row.state),
        row.overdue,
        row.expires_at,
        row.created_at,
    )


_LOCK = (
    select(variants.c.id, variants.c.sku, variants.c.stock_qty, (variants.c.active & products.c.active).label("active"))
    .join_from(variants, products)
    .where(
        (variants.c.sku == any_(cast(bindparam("skus"), ARRAY(Text))))
        | (variants.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))))
    )
    .order_by(variants.c.id)
    .with_for_update(key_share=True, of=variants)
)


def lock_variants(connection: Connection, *, skus: Iterable[str] = (), ids: Iterable[int] = ()) -> Sequence[Row[Any]]:
    """These variants (id, sku, stock_qty, active), locked in the order of their ids against all who change stock."""
    return connection.execute(_LOCK, {"skus": sorted(set(skus)), "ids": sorted(set(ids))}).all()


_deltas = rows_of(id=BigInteger, delta=Integer)
_CHANGE = (
    update(variants)
    .where(variants.c.id == _deltas.c.id)
    # The catalog's `updated_at` stays: by it feeds tell what is newer.
    .values(stock_qty=variants.c.stock_qty + _deltas.c.delta, updated_at=variants.c.updated_at)
)


def change_stock(connection: Connection, deltas: dict[int, int]) -> None:
    """Add to the stock of variants, which are locked, by their ids."""
    changes = {variant: delta for variant, delta in deltas.items() if delta}
    if changes:
        connection.execute(_CHANGE, {"all_id": list(changes), "all_delta": list(changes.values())})


_moves = rows_of(variant_id=BigInteger, order_ref=Text, delta=Integer, reason=Text)
_MOVE = insert(stock_movements).from_select(
    ["variant_id", "order_ref", "delta", "reason"], select(*_moves.c), include_defaults=False
)


def record(connection: Connection, moves: Sequence[tuple[int, str | None, int, str]]) -> None:
    """Write movements: variant, order, delta, reason."""
    if moves:
        columns = zip(*moves, strict=True)
        names = ("all_variant_id", "all_order_ref", "all_delta", "all_reason")
        connection.execute(_MOVE, dict(zip(names, map(list, columns), strict=True)))


_END = (
    update(stock_reservations)
    .where(stock_reservations.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))))
    .values(state=bindparam("became"), updated_at=func.now())
)


def end_reservations(connection: Connection, ids: Iterable[int], state: State) -> None:
    """Let reservations, which are locked, become `state`."""
    wanted = list(ids)
    if wanted:
        connection.execute(_END, {"ids": wanted, "became": state})
