"""A job has an owner and a priority, and knows since when it waits."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("owner", sa.String(100), nullable=False, server_default="admin"))
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("queued_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    for name in ("owner", "priority", "queued_at"):
        op.drop_column("jobs", name)
