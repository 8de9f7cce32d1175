"""Products, their variants, and reservations of stock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "harbor_0001"
down_revision = None
branch_labels = ("harbor",)
depends_on = None


def upgrade() -> None:
    """Ids below 1001 are left to files that bring their own."""
    # As in env.py: no right to create schemas is needed where this one is there.
    op.execute(
        """\
DO $$ BEGIN
    IF to_regnamespace('harbor') IS NULL THEN CREATE SCHEMA harbor; END IF;
END $$"""
    )
    op.create_table(
        "products",
        sa.Column("id", sa.BigInteger(), sa.Identity(start=1001), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        sa.UniqueConstraint("sku", name=op.f("uq_products_sku")),
        sa.CheckConstraint("price_cents >= 0", name=op.f("ck_products_price_cents")),
        schema="harbor",
    )

    op.create_table(
        "variants",
        sa.Column("id", sa.BigInteger(), sa.Identity(start=1001), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("color", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("size", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("stock_qty", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variants")),
        sa.UniqueConstraint("sku", name=op.f("uq_variants_sku")),
        sa.UniqueConstraint("product_id", "color", "size", name=op.f("uq_variants_product_id_color_size")),
        sa.CheckConstraint("price_cents >= 0", name=op.f("ck_variants_price_cents")),
        sa.CheckConstraint("stock_qty >= 0", name=op.f("ck_variants_stock_qty")),
        sa.ForeignKeyConstraint(
            ["product_id"], ["harbor.products.id"], name=op.f("fk_variants_product_id"), ondelete="CASCADE"
        ),
        schema="harbor",
    )

    op.create_table(
        "stock_reservations",
        sa.Column("id", sa.BigInteger(), sa.Identity(start=1001), nullable=False),
        sa.Column("variant_id", sa.BigInteger(), nullable=False),
        sa.Column("order_ref", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_reservations")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_stock_reservations_quantity")),
        sa.CheckConstraint(
            "state IN ('active', 'released', 'expired', 'fulfilled')", name=op.f("ck_stock_reservations_state")
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"],
            ["harbor.variants.id"],
            name=op.f("fk_stock_reservations_variant_id"),
            ondelete="RESTRICT",
        ),
        schema="harbor",
    )
    op.create_index(
        "uq_stock_reservations_active",
        "stock_reservations",
        ["variant_id", "order_ref"],
        unique=True,
        schema="harbor",
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_index(op.f("ix_stock_reservations_variant_id"), "stock_reservations", ["variant_id"], schema="harbor")
    op.create_index(
        "ix_stock_reservations_due",
        "stock_reservations",
        ["expires_at"],
        schema="harbor",
        postgresql_where=sa.text("state = 'active'"),
    )


def downgrade() -> None:
    """The schema stays: others may keep tables in it."""
    op.drop_table("stock_reservations", schema="harbor")
    op.drop_table("variants", schema="harbor")
    op.drop_table("products", schema="harbor")
