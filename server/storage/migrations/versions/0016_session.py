"""A job knows which cluster was to take its attempt; of those that are there, nobody does."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("session", sa.Text))


def downgrade() -> None:
    op.drop_column("jobs", "session")
