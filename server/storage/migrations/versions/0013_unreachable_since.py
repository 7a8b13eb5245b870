"""A job knows since when nobody has answered for its attempt."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("unreachable_since", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("jobs", "unreachable_since")
