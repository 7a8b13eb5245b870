"""A job counts the attempts that were lost since its last new checkpoint, and knows why the last one ended."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("attempt_at", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("restarts", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("interruption", sa.Text))


def downgrade() -> None:
    for name in ("attempt_at", "restarts", "interruption"):
        op.drop_column("jobs", name)
