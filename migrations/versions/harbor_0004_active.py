"""Contract: every variant says whether it is sold.

The condition is checked first without keeping writers waiting; SET NOT NULL then need not read the table again.
"""

from __future__ import annotations

from alembic import op

revision = "harbor_0004"
down_revision = "harbor_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE harbor.variants ADD CONSTRAINT active_is_known CHECK (active IS NOT NULL) NOT VALID")
    op.execute("ALTER TABLE harbor.variants VALIDATE CONSTRAINT active_is_known")
    op.alter_column("variants", "active", nullable=False, schema="harbor")
    op.execute("ALTER TABLE harbor.variants DROP CONSTRAINT active_is_known")


def downgrade() -> None:
    op.alter_column("variants", "active", nullable=True, schema="harbor")
