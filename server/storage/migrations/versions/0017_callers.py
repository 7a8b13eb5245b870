"""Idempotency keys are those of one owner, and the audit log knows from which address a request came."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    db = op.get_bind()
    for job_id, owner, key in db.execute(
        sa.text("SELECT id, owner, idempotency_key FROM jobs WHERE idempotency_key IS NOT NULL")
    ).all():
        of_owner = hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()
        db.execute(sa.text("UPDATE jobs SET idempotency_key = :key WHERE id = :id"), {"key": of_owner, "id": job_id})
    op.drop_column("jobs", "request_sha256")
    op.add_column("audit", sa.Column("address", sa.String(64)))


def downgrade() -> None:
    op.drop_column("audit", "address")
    op.add_column("jobs", sa.Column("request_sha256", sa.String(64), nullable=False, server_default=""))
