"""A job knows the job that it is a clone of, and the step that it branched from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parent", sa.Text))
    op.add_column("jobs", sa.Column("parent_step", sa.Integer))


def downgrade() -> None:
    op.drop_column("jobs", "parent_step")
    op.drop_column("jobs", "parent")
