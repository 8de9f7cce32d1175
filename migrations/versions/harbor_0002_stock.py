"""Expand: what stock commands need, beside what older programs use.

From here on every change of `variants.stock_qty` leaves a row in `stock_movements`: the stock commands write theirs,
and say so by the setting `harbor.stock_movements`; triggers write those of everybody else.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "harbor_0002"
down_revision = "harbor_0001"
branch_labels = None
depends_on = None

# SECURITY DEFINER: whoever may load variants need not be given rights on the history. A row whose id was changed is one
# removed, and one made.
RECORD = """\
CREATE FUNCTION harbor.record_stock_movements() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO harbor.stock_movements (variant_id, delta, reason)
        SELECT id, stock_qty, 'opening' FROM made WHERE stock_qty <> 0 ORDER BY id;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO harbor.stock_movements (variant_id, delta, reason)
        SELECT id, coalesce(made.stock_qty, 0) - coalesce(gone.stock_qty, 0), 'changed'
        FROM gone FULL JOIN made USING (id)
        WHERE coalesce(made.stock_qty, 0) <> coalesce(gone.stock_qty, 0) ORDER BY id;
    ELSE
        INSERT INTO harbor.stock_movements (variant_id, delta, reason)
        SELECT id, -stock_qty, 'removed' FROM gone WHERE stock_qty <> 0 ORDER BY id;
    END IF;
    RETURN NULL;
END $$"""

_UNLESS_WRITTEN = "WHEN (current_setting('harbor.stock_movements', true) IS DISTINCT FROM 'written')"
TRIGGERS = {
    "stock_opening": f"""\
CREATE TRIGGER stock_opening AFTER INSERT ON harbor.variants REFERENCING NEW TABLE AS made
FOR EACH STATEMENT {_UNLESS_WRITTEN} EXECUTE FUNCTION harbor.record_stock_movements()""",
    "stock_changed": f"""\
CREATE TRIGGER stock_changed AFTER UPDATE ON harbor.variants REFERENCING OLD TABLE AS gone NEW TABLE AS made
FOR EACH STATEMENT {_UNLESS_WRITTEN} EXECUTE FUNCTION harbor.record_stock_movements()""",
    "stock_removed": f"""\
CREATE TRIGGER stock_removed AFTER DELETE ON harbor.variants REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT {_UNLESS_WRITTEN} EXECUTE FUNCTION harbor.record_stock_movements()""",
}

# What is free to be sold: the count, less what reservations have taken since, plus what they have given back. Rows are
# locked in the order of their keys, as the stock commands do; each later statement sees what others have committed.
APPLY = """\
CREATE FUNCTION harbor.apply_stock_counts() RETURNS bigint
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    before text := current_setting('harbor.stock_movements', true);
    early record;
    applied bigint;
BEGIN
    SELECT sku, counted_at INTO early FROM harbor.stock_counts WHERE counted_at > clock_timestamp() LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', HINT = 'Put counted_at right, and load it again.',
            MESSAGE = concat('the count of ', early.sku, ' was made at ', early.counted_at,
                             ', which is still to come by the clock of this server');
    END IF;
    PERFORM set_config('harbor.stock_movements', 'written', true);
    PERFORM FROM harbor.stock_counts AS count
    WHERE (count.counted_qty, count.counted_at) IS DISTINCT FROM (count.applied_qty, count.applied_counted_at)
    ORDER BY count.sku FOR UPDATE;
    PERFORM FROM harbor.variants AS variant
    WHERE EXISTS (
        SELECT FROM harbor.stock_counts AS count WHERE count.sku = variant.sku
        AND (count.counted_qty, count.counted_at) IS DISTINCT FROM (count.applied_qty, count.applied_counted_at)
    )
    ORDER BY variant.id FOR NO KEY UPDATE;
    WITH counted AS (
        SELECT variant.id, variant.sku, variant.stock_qty AS stood, count.counted_qty, count.counted_at, coalesce((
            SELECT sum(movement.delta) FROM harbor.stock_movements AS movement
            WHERE movement.variant_id = variant.id AND movement.at > count.counted_at
            AND movement.reason IN ('reserved', 'released', 'expired')
        ), 0) AS moved
        FROM harbor.stock_counts AS count JOIN harbor.variants AS variant USING (sku)
        WHERE (count.counted_qty, count.counted_at) IS DISTINCT FROM (count.applied_qty, count.applied_counted_at)
    ), changed AS (
        UPDATE harbor.variants AS variant SET stock_qty = greatest(counted.counted_qty + counted.moved, 0)
        FROM counted WHERE variant.id = counted.id RETURNING variant.id, variant.stock_qty
    ), moved AS (
        INSERT INTO harbor.stock_movements (variant_id, delta, reason)
        SELECT id, changed.stock_qty - counted.stood, 'counted' FROM changed JOIN counted USING (id)
        WHERE changed.stock_qty <> counted.stood ORDER BY id
    ), noted AS (
        UPDATE harbor.stock_counts AS count
        SET applied_at = now(), applied_qty = counted.counted_qty, applied_counted_at = counted.counted_at,
            moved = counted.moved, stock_qty = changed.stock_qty,
            oversold = greatest(-(counted.counted_qty + counted.moved), 0)
        FROM counted JOIN changed USING (id) WHERE count.sku = counted.sku RETURNING 1
    )
    SELECT count(*) INTO applied FROM noted;
    PERFORM set_config('harbor.stock_movements', coalesce(before, ''), true);
    RETURN applied;
END $$"""


def upgrade() -> None:
    """`variants.active` may be NULL until the data has been migrated; new rows have it."""
    op.add_column("variants", sa.Column("active", sa.Boolean()), schema="harbor")
    op.alter_column("variants", "active", server_default=sa.true(), schema="harbor")
    op.create_index(op.f("ix_stock_reservations_order_ref"), "stock_reservations", ["order_ref"], schema="harbor")

    op.create_table(
        "stock_movements",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("variant_id", sa.BigInteger(), nullable=False),
        sa.Column("order_ref", sa.Text()),
        sa.Column("delta", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_movements")),
        sa.CheckConstraint("delta <> 0", name=op.f("ck_stock_movements_delta")),
        sa.CheckConstraint(
            "reason IN ('opening', 'reserved', 'released', 'expired', 'counted', 'changed', 'removed')",
            name=op.f("ck_stock_movements_reason"),
        ),
        schema="harbor",
    )
    op.create_index(op.f("ix_stock_movements_variant_id_at"), "stock_movements", ["variant_id", "at"], schema="harbor")
    op.create_table(
        "stock_counts",
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("counted_qty", sa.Integer(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True)),
        sa.Column("applied_qty", sa.Integer()),
        sa.Column("applied_counted_at", sa.DateTime(timezone=True)),
        sa.Column("moved", sa.BigInteger()),
        sa.Column("stock_qty", sa.Integer()),
        sa.Column("oversold", sa.BigInteger()),
        sa.PrimaryKeyConstraint("sku", name=op.f("pk_stock_counts")),
        sa.CheckConstraint("counted_qty >= 0", name=op.f("ck_stock_counts_counted_qty")),
        schema="harbor",
    )

    op.execute(RECORD)
    for trigger in TRIGGERS.values():
        op.execute(trigger)
    op.execute(APPLY)


def downgrade() -> None:
    """The history of stock is dropped."""
    op.execute("DROP FUNCTION harbor.apply_stock_counts()")
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON harbor.variants")
    op.execute("DROP FUNCTION harbor.record_stock_movements()")
    op.drop_table("stock_counts", schema="harbor")
    op.drop_table("stock_movements", schema="harbor")
    op.drop_index(op.f("ix_stock_reservations_order_ref"), "stock_reservations", schema="harbor")
    op.drop_column("variants", "active", schema="harbor")
