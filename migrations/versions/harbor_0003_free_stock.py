"""Data: stock is what is free to be sold, and its history begins.

Until here `stock_qty` was what stands on the shelf, pieces that active reservations hold included.
"""

from __future__ import annotations

from alembic import op

revision = "harbor_0003"
down_revision = "harbor_0002"
branch_labels = None
depends_on = None

# Others may read meanwhile. The history of this change is written here, not by the triggers.
LOCK = "LOCK TABLE harbor.stock_reservations, harbor.variants IN SHARE ROW EXCLUSIVE MODE"
WRITTEN = "SELECT set_config('harbor.stock_movements', 'written', true)"
NOT_WRITTEN = "SELECT set_config('harbor.stock_movements', '', true)"

ACTIVE = """\
UPDATE harbor.variants AS variant SET active = product.active
FROM harbor.products AS product WHERE product.id = variant.product_id AND variant.active IS NULL"""

# `updated_at` stays: by it feeds tell what is newer.
TAKE_OFF = """\
UPDATE harbor.variants AS variant SET stock_qty = greatest(variant.stock_qty - held.quantity, 0)
FROM (
    SELECT variant_id, sum(quantity) AS quantity FROM harbor.stock_reservations
    WHERE state = 'active' GROUP BY variant_id
) AS held
WHERE variant.id = held.variant_id"""
PUT_BACK = """\
UPDATE harbor.variants AS variant SET stock_qty = variant.stock_qty + held.quantity
FROM (
    SELECT variant_id, sum(quantity) AS quantity FROM harbor.stock_reservations
    WHERE state = 'active' GROUP BY variant_id
) AS held
WHERE variant.id = held.variant_id"""

# What programs have changed since `harbor_0002` is in the history already.
OPENING = """\
INSERT INTO harbor.stock_movements (variant_id, delta, reason)
SELECT variant.id, variant.stock_qty - coalesce(known.delta, 0), 'opening'
FROM harbor.variants AS variant
LEFT JOIN (
    SELECT variant_id, sum(delta) AS delta FROM harbor.stock_movements GROUP BY variant_id
) AS known ON known.variant_id = variant.id
WHERE variant.stock_qty <> coalesce(known.delta, 0) ORDER BY variant.id"""


def upgrade() -> None:
    """Of a variant of which more was promised than there was, nothing is free."""
    for statement in (LOCK, WRITTEN, ACTIVE, TAKE_OFF, OPENING, NOT_WRITTEN):
        op.execute(statement)


def downgrade() -> None:
    """Pieces that reservations hold stand on the shelf again. The history stays until `harbor_0002` is undone."""
    for statement in (LOCK, WRITTEN, PUT_BACK, NOT_WRITTEN):
        op.execute(statement)
