"""Bad rows of loads that commit in parts, until their reject file is written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0002"
down_revision = "ledger_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rejects",
        sa.Column("load_id", sa.Uuid(), nullable=False),
        sa.Column("file", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("original", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("load_id", "file", "start", "position", name=op.f("pk_rejects")),
        sa.ForeignKeyConstraint(
            ["load_id"], ["harborctl.loads.id"], name=op.f("fk_rejects_load_id"), ondelete="CASCADE"
        ),
        schema="harborctl",
    )


def downgrade() -> None:
    """Of a load that is not done the rejects so far are lost."""
    op.drop_table("rejects", schema="harborctl")
