"""A job that waits says why."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("queue_reason", sa.Text))


def downgrade() -> None:
    op.drop_column("jobs", "queue_reason")
