"""A job knows the sweep that it is part of."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("sweep", sa.String(12)))
    op.create_index("ix_jobs_sweep", "jobs", ["sweep"])


def downgrade() -> None:
    op.drop_index("ix_jobs_sweep", "jobs")
    op.drop_column("jobs", "sweep")
