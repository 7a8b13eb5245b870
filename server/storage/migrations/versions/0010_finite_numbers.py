"""Numbers that are not finite are null in stored records: SQLite reads no field of a text that has others."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    db = op.get_bind()
    broken = sa.text("SELECT job_id, seq, CAST(data AS TEXT) FROM records WHERE NOT json_valid(data)")
    mend = sa.text("UPDATE records SET data = :data WHERE job_id = :job_id AND seq = :seq")
    for job_id, seq, data in db.execute(broken).all():
        text = json.dumps(json.loads(data, parse_constant=_null))
        db.execute(mend, {"job_id": job_id, "seq": seq, "data": text})


def _null(_: str) -> Any:
    return None


def downgrade() -> None:
    pass  # null is what every version makes of such a number
