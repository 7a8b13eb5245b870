"""A job knows how long its steps take, and how long it still needs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("pace_s", sa.Float))
    op.add_column("jobs", sa.Column("seconds_left", sa.Float))


def downgrade() -> None:
    op.drop_column("jobs", "seconds_left")
    op.drop_column("jobs", "pace_s")
