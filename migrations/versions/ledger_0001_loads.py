"""Loads, their files and their chunks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "ledger_0001"
down_revision = None
branch_labels = ("ledger",)
depends_on = None


def upgrade() -> None:
    """The schema is there already: the version table lives in it."""
    op.create_table(
        "loads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("target_schema", sa.Text()),
        sa.Column("target_table", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("rows_read", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("inserted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("skipped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("stale", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("deleted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reject_file", sa.Text()),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("seconds", sa.Double()),
        sa.Column("database_user", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column("host", sa.Text()),
        sa.Column("backend_pid", sa.Integer()),
        sa.Column("backend_start", sa.DateTime(timezone=True)),
        sa.Column("application_version", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text()),
        sa.Column("options", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("error", JSONB()),
        sa.Column("metadata", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_loads")),
        sa.CheckConstraint(
            "status IN ('running', 'loaded', 'loaded_with_rejects', 'already_loaded', 'dry_run', 'locked',"
            " 'interrupted', 'failed')",
            name=op.f("ck_loads_status"),
        ),
        schema="harborctl",
    )
    op.create_index(
        op.f("ix_loads_target_schema_target_table_started_at"),
        "loads",
        ["target_schema", "target_table", "started_at"],
        schema="harborctl",
    )
    op.create_index(op.f("ix_loads_started_at"), "loads", ["started_at"], schema="harborctl")

    op.create_table(
        "files",
        sa.Column("load_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("rows", sa.BigInteger()),
        sa.Column("sha256", sa.Text()),
        sa.PrimaryKeyConstraint("load_id", "position", name=op.f("pk_files")),
        sa.ForeignKeyConstraint(["load_id"], ["harborctl.loads.id"], name=op.f("fk_files_load_id"), ondelete="CASCADE"),
        schema="harborctl",
    )
    op.create_index(op.f("ix_files_sha256"), "files", ["sha256"], schema="harborctl")
    op.create_index(op.f("ix_files_bytes"), "files", ["bytes"], schema="harborctl")

    op.create_table(
        "chunks",
        sa.Column("load_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("last_row", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("counters", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "committed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("load_id", "number", name=op.f("pk_chunks")),
        sa.ForeignKeyConstraint(
            ["load_id"], ["harborctl.loads.id"], name=op.f("fk_chunks_load_id"), ondelete="CASCADE"
        ),
        schema="harborctl",
    )


def downgrade() -> None:
    """The schema stays: the version table lives in it."""
    op.drop_table("chunks", schema="harborctl")
    op.drop_table("files", schema="harborctl")
    op.drop_table("loads", schema="harborctl")
