"""Jobs and their records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("total_steps", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("started_at", time),
        sa.Column("finished_at", time),
        sa.Column("error", sa.Text),
        sa.Column("command", sa.String(16), nullable=False),
        sa.Column("stop_deadline", time),
        sa.Column("world_size", sa.Integer),
        sa.Column("unigram_entropy_nats", sa.Float),
        sa.Column("phase", sa.Integer),
        sa.Column("loss", sa.Float),
        sa.Column("lr", sa.Float),
        sa.Column("tokens_per_s", sa.Float),
        sa.Column("checkpoint_step", sa.Integer),
        sa.Column("checkpoint_path", sa.Text),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("acknowledged", sa.Integer, nullable=False, server_default="0"),
        sa.Column("token_sha256", sa.String(64)),
        sa.Column("idempotency_key", sa.String(200), unique=True),
        sa.Column("request_sha256", sa.String(64), nullable=False),
    )
    op.create_table(
        "records",
        sa.Column("job_id", sa.String(12), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer),
        sa.Column("time", time, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("trust_ratios", sa.LargeBinary),
    )
    op.create_index(
        "one_row_a_step", "records", ["job_id", "step"], unique=True, sqlite_where=sa.text("step IS NOT NULL")
    )
    op.create_index("records_by_kind", "records", ["job_id", "kind", "seq"])


def downgrade() -> None:
    op.drop_table("records")
    op.drop_table("jobs")
