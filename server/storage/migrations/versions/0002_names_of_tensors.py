"""Every step names its tensors and holds their norms; a skipped step has no ratios."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from server.storage.ratios import quantiles
from workers.contract.fields import FLOAT32_BYTES
from workers.contract.records import tensor_set

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

records = sa.table(
    "records",
    sa.column("job_id", sa.String),
    sa.column("seq", sa.Integer),
    sa.column("kind", sa.String),
    sa.column("data", sa.JSON),
    sa.column("tensor_set", sa.String),
    sa.column("trust_ratio", sa.LargeBinary),
)


def upgrade() -> None:
    op.execute("ALTER TABLE records RENAME COLUMN trust_ratios TO trust_ratio")
    op.add_column("records", sa.Column("tensor_set", sa.String(64)))
    op.add_column("records", sa.Column("weight_norm", sa.LargeBinary))
    op.add_column("records", sa.Column("update_norm", sa.LargeBinary))
    skipped = records.c.data["skipped"].as_boolean()
    op.execute(sa.update(records).where(records.c.kind == "step", skipped).values(trust_ratio=None))
    for job_id in op.get_bind().execute(sa.select(records.c.job_id).distinct()).scalars().all():
        _name_tensors(job_id)
    op.create_index(
        "steps_with_ratios",
        "records",
        ["job_id", "step"],
        sqlite_where=sa.text("trust_ratio IS NOT NULL"),
        postgresql_where=sa.text("trust_ratio IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("steps_with_ratios", "records")
    for column in ("tensor_set", "weight_norm", "update_norm"):
        op.drop_column("records", column)
    op.execute("ALTER TABLE records RENAME COLUMN trust_ratio TO trust_ratios")


def _name_tensors(job_id: str) -> None:
    """Give each tensors record its set, and the set to the steps after it that have as many ratios as it has names."""
    db = op.get_bind()
    mine = records.c.job_id == job_id
    named: Sequence[Any] = db.execute(
        sa.select(records.c.seq, records.c.data).where(mine, records.c.kind == "tensors").order_by(records.c.seq)
    ).all()
    ends = [row.seq for row in named[1:]] + [None]
    for (seq, data), end in zip(named, ends, strict=True):
        name = tensor_set(data["names"], data["adapted"])
        row = sa.update(records).where(mine, records.c.seq == seq)
        db.execute(row.values(tensor_set=name, data=data | {"set": name}))
        steps = sa.update(records).where(
            mine,
            records.c.kind == "step",
            records.c.seq > seq,
            sa.func.length(records.c.trust_ratio) == FLOAT32_BYTES * len(data["names"]),
        )
        db.execute((steps if end is None else steps.where(records.c.seq < end)).values(tensor_set=name))
        _add_quantiles(job_id, name, data["adapted"])


def _add_quantiles(job_id: str, name: str, adapted: list[bool]) -> None:
    db = op.get_bind()
    mine = (records.c.job_id == job_id, records.c.kind == "step", records.c.tensor_set == name)
    for seq in db.execute(sa.select(records.c.seq).where(*mine)).scalars().all():
        row = records.c.job_id == job_id, records.c.seq == seq
        data, ratios = db.execute(sa.select(records.c.data, records.c.trust_ratio).where(*row)).one()
        db.execute(sa.update(records).where(*row).values(data=data | quantiles(ratios, adapted)))
