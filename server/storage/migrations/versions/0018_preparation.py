"""A job knows what has become of its text; the workers of those that are there prepare it, as they did before."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("text_state", sa.String(16), nullable=False, server_default="ready"))
    op.add_column("jobs", sa.Column("text_key", sa.String(64)))
    op.add_column("jobs", sa.Column("text_done", sa.Float))
    op.add_column("jobs", sa.Column("preparations", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_jobs_text_state", "jobs", ["text_state"])
    op.create_index("ix_jobs_text_key", "jobs", ["text_key"])


def downgrade() -> None:
    op.drop_index("ix_jobs_text_key", "jobs")
    op.drop_index("ix_jobs_text_state", "jobs")
    for name in ("preparations", "text_done", "text_key", "text_state"):
        op.drop_column("jobs", name)
