"""The tables. Migrations build them; a test holds the two together."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC, also on SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store in UTC; a naive time raises."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give back an aware time."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()
EVALUATION = "evaluation"
"""The kind of the records that say how good the model is on held-out text."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("step", Integer, nullable=False),
    Column("total_steps", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempt_at", UtcDateTime),
    Column("restarts", Integer, nullable=False, server_default="0"),
    Column("interruption", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("unreachable_since", UtcDateTime),
    Column("error", Text),
    Column("command", String(16), nullable=False),
    Column("checkpoint_requests", Integer, nullable=False, server_default="0"),
    Column("stop_deadline", UtcDateTime),
    Column("world_size", Integer),
    Column("unigram_entropy_nats", Float),
    Column("phase", Integer),
    Column("loss", Float),
    Column("lr", Float),
    Column("tokens_per_s", Float),
    Column("pace_s", Float),
    Column("seconds_left", Float),
    Column("evaluation", JSON(none_as_null=True)),
    Column("checkpoint_step", Integer),
    Column("checkpoint_path", Text),
    Column("checkpoint_s", Float),
    Column("export_path", Text),
    Column("labels", JSON, nullable=False),
    Column("owner", String(100), nullable=False, server_default="admin"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("queued_at", UtcDateTime),
    Column("queue_reason", Text),
    Column("session", Text),
    Column("text_state", String(16), nullable=False, server_default="ready", index=True),
    Column("text_key", String(64), index=True),
    Column("text_done", Float),
    Column("preparations", Integer, nullable=False, server_default="0"),
    Column("parent", Text),
    Column("parent_step", Integer),
    Column("sweep", String(12), index=True),
    Column("spec", JSON, nullable=False),
    # not part of a Job: what the store itself must remember of it
    Column("acknowledged", Integer, nullable=False, server_default="0"),
    Column("token_sha256", String(64)),
    Column("idempotency_key", String(200), unique=True),  # SHA-256 of the owner and the owner's key
)

records = Table(
    "records",
    metadata,
    Column("job_id", String(12), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("step", Integer),  # of a step record alone
    Column("time", UtcDateTime, nullable=False),
    Column("data", JSON, nullable=False),  # the record without what follows
    Column("tensor_set", String(64)),  # of tensors and step records: which names belong to which numbers
    # float32, little-endian, one per tensor; of a step record that was not skipped
    Column("trust_ratio", LargeBinary),
    Column("weight_norm", LargeBinary),
    Column("update_norm", LargeBinary),
)
# A step that was computed again takes the place of the first one.
Index("one_row_a_step", records.c.job_id, records.c.step, unique=True, sqlite_where=text("step IS NOT NULL"))
Index(
    "steps_with_ratios",
    records.c.job_id,
    records.c.step,
    sqlite_where=text("trust_ratio IS NOT NULL"),
    postgresql_where=text("trust_ratio IS NOT NULL"),
)
Index("records_by_kind", records.c.job_id, records.c.kind, records.c.seq)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("owner", String(100), nullable=False),
    Column("role", String(16), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("token_sha256", String(64), nullable=False),  # of the token that opened it, and without which it is void
    Column("expires_at", UtcDateTime, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("time", UtcDateTime, nullable=False),
    Column("caller", String(100), nullable=False),
    Column("role", String(16), nullable=False),
    Column("action", Text, nullable=False),
    Column("job_id", Text),
    Column("status", Integer, nullable=False),
    Column("address", String(64)),
)
