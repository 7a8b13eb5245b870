"""A job knows its newest evaluation on held-out text."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("evaluation", sa.JSON))


def downgrade() -> None:
    op.drop_column("jobs", "evaluation")
