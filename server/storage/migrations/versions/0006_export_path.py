"""A job knows where its finished model lies."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("export_path", sa.Text))
records = sa.table(
    "records",
    sa.column("job_id", sa.String),
    sa.column("seq", sa.Integer),
    sa.column("kind", sa.String),
    sa.column("data", sa.JSON),
)


def upgrade() -> None:
    op.add_column("jobs", sa.Column("export_path", sa.Text))
    told = records.c.data["export_path"].as_string()
    newest = (
        sa.select(told)
        .where(records.c.job_id == jobs.c.id, records.c.kind == "status", told.is_not(None))
        .order_by(records.c.seq.desc())
        .limit(1)
    )
    op.execute(sa.update(jobs).values(export_path=newest.scalar_subquery()))


def downgrade() -> None:
    op.drop_column("jobs", "export_path")
