"""Expire: end reservations whose time is over, and give their pieces back.

Any number of hosts may do it at once: each batch takes rows that nobody else has locked. Whoever has locked one ends
it, or leaves it to the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from harborctl.stock.transaction import changing_stock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

# `:after` is where the batch before this one ended: what it has ended stands in the index until a vacuum, and would be
# looked at again by each batch. Movements are joined to the variants, and so are numbered while these are locked.
_EXPIRE = text("""
    WITH taken AS MATERIALIZED (
        SELECT id FROM harbor.stock_reservations
        WHERE state = 'active' AND expires_at <= pg_catalog.now() AND expires_at >= pg_catalog.to_timestamp(:after)
        ORDER BY expires_at LIMIT :batch FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE harbor.stock_reservations AS reservation SET state = 'expired', updated_at = pg_catalog.now()
        FROM taken WHERE reservation.id = taken.id
        RETURNING reservation.variant_id, reservation.order_ref, reservation.quantity, reservation.expires_at
    ), returned AS MATERIALIZED (
        SELECT variant_id, pg_catalog.sum(quantity) AS quantity FROM ended GROUP BY variant_id
    ), locked AS MATERIALIZED (
        SELECT variant.id, returned.quantity
        FROM harbor.variants AS variant JOIN returned ON variant.id = returned.variant_id
        ORDER BY variant.id FOR NO KEY UPDATE OF variant
    ), given AS (
        UPDATE harbor.variants AS variant SET stock_qty = variant.stock_qty + locked.quantity
        FROM locked WHERE variant.id = locked.id RETURNING variant.id
    ), moved AS (
        INSERT INTO harbor.stock_movements (variant_id, order_ref, delta, reason)
        SELECT ended.variant_id, ended.order_ref, ended.quantity, 'expired'
        FROM ended JOIN given ON given.id = ended.variant_id
    )
    SELECT pg_catalog.count(*) AS reservations, coalesce(pg_catalog.sum(quantity), 0) AS pieces,
           pg_catalog.date_part('epoch', pg_catalog.max(expires_at)) AS last
    FROM ended
""")


@dataclass(frozen=True, slots=True)
class Expired:
    """So many reservations were ended, and so many pieces are free again."""

    reservations: int = 0
    pieces: int = 0

    def __add__(self, other: Expired) -> Expired:
        return Expired(self.reservations + other.reservations, self.pieces + other.pieces)

    def __sub__(self, other: Expired) -> Expired:
        return Expired(self.reservations - other.reservations, self.pieces - other.pieces)


def expire(engine: Engine, batch: int) -> Iterator[Expired]:
    """End what is overdue; what each transaction has ended, as it is committed. Nothing at all if nothing is overdue.

    Args:
        engine: the database.
        batch: reservations in one transaction. Whoever needs one of their variants waits as long as it takes.
    """
    after = float("-inf")
    while True:
        with changing_stock(engine) as connection:
            row = connection.execute(_EXPIRE, {"after": after, "batch": batch}).one()
        if row.reservations:
            after = row.last
            yield Expired(row.reservations, int(row.pieces))
        if row.reservations < batch:
            return
