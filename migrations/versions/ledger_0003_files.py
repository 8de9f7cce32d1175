"""What tells of each file whether its rows are still in the table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "ledger_0003"
down_revision = "ledger_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Columns without defaults: nothing is rewritten, and loads of before keep NULL."""
    op.add_column("loads", sa.Column("target_oid", sa.BigInteger()), schema="harborctl")
    op.add_column("loads", sa.Column("ledger_oid", sa.BigInteger()), schema="harborctl")
    op.add_column("loads", sa.Column("storage", ARRAY(sa.BigInteger())), schema="harborctl")
    op.add_column("loads", sa.Column("snapshot", sa.Text()), schema="harborctl")
    op.add_column("loads", sa.Column("began_empty", sa.Boolean()), schema="harborctl")
    op.add_column("loads", sa.Column("xid", sa.BigInteger()), schema="harborctl")
    op.create_index(op.f("ix_loads_target_oid"), "loads", ["target_oid"], schema="harborctl")
    op.add_column("files", sa.Column("content_bytes", sa.BigInteger()), schema="harborctl")
    op.add_column("files", sa.Column("status", sa.Text()), schema="harborctl")
    op.add_column("files", sa.Column("loaded_by", sa.Uuid()), schema="harborctl")
    op.add_column("files", sa.Column("meaning", JSONB()), schema="harborctl")
    op.create_check_constraint(
        op.f("ck_files_status"), "files", "status IN ('loaded', 'already_loaded')", schema="harborctl"
    )


def downgrade() -> None:
    """What is in is known by whole loads only, as before."""
    op.drop_constraint(op.f("ck_files_status"), "files", schema="harborctl")
    for name in ("meaning", "loaded_by", "status", "content_bytes"):
        op.drop_column("files", name, schema="harborctl")
    op.drop_index(op.f("ix_loads_target_oid"), "loads", schema="harborctl")
    for name in ("xid", "began_empty", "snapshot", "storage", "ledger_oid", "target_oid"):
        op.drop_column("loads", name, schema="harborctl")
