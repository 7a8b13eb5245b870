"""A job knows how long its newest checkpoint took, and so how long it may take to stop."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("checkpoint_s", sa.Float))


def downgrade() -> None:
    op.drop_column("jobs", "checkpoint_s")
