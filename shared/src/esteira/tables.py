"""The tables that services share, as migrations create them.

`features_<pipeline>` is not here: etl makes one for each pipeline from the columns that its `features.sql` yields.
Times are `timestamptz` in UTC. A test holds `shared/migrations` against this file.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _lease() -> list[Column[object]]:
    """Columns by which one worker at a time owns a row: see `esteira.leases`."""
    return [
        Column("lease_until", DateTime(timezone=True)),
        Column("fence", Integer, nullable=False, server_default="0"),
        Column("attempts", Integer, nullable=False, server_default="0"),
    ]


ingestions = Table(
    "ingestions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("bucket", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    # pending → done | failed
    Column("status", Text, nullable=False, server_default="pending"),
    Column("reason", Text),
    Column("rows", BigInteger),
    Column("accepted", BigInteger),
    Column("quarantined", BigInteger),
    Column("reasons", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("quarantine", Text),
    Column("part", Text),
    Column("dataset_version", Text),
    *_lease(),
    _now("created_at"),
    Column("finished_at", DateTime(timezone=True)),
    UniqueConstraint("bucket", "object", "generation"),
    Index(None, "pipeline", "created_at"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("version", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("labelled", BigInteger, nullable=False),
    Column("ingestion_id", Uuid, nullable=False),
    _now("created_at"),
    UniqueConstraint("pipeline", "version"),
)

training_runs = Table(
    "training_runs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("number", Integer, nullable=False),
    # What makes two requests the same work: `dataset:<version>` when machines ask, `event:<id>` when people do.
    Column("request_key", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("dataset_number", Integer, nullable=False),
    # requested → running → promoted | approved | rejected | failed
    Column("status", Text, nullable=False, server_default="requested"),
    Column("verdict", Text),
    Column("release_version", Text),
    Column("mlflow_run_id", Text),
    Column("metrics", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("gates", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("traceparent", Text),
    *_lease(),
    _now("created_at"),
    Column("finished_at", DateTime(timezone=True)),
    UniqueConstraint("pipeline", "request_key"),
    UniqueConstraint("pipeline", "number"),
    ForeignKeyConstraint(["pipeline", "dataset_number"], ["datasets.pipeline", "datasets.number"]),
)

releases = Table(
    "releases",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("training_run_id", Uuid, nullable=False),
    Column("dataset_number", Integer, nullable=False),
    Column("mlflow_run_id", Text),
    Column("mlflow_version", Text),
    Column("metrics", JSONB, nullable=False),
    Column("gates", JSONB, nullable=False),
    Column("approved", Boolean, nullable=False),
    _now("created_at"),
    # When GitHub was told of it, for installations that deliver by GitHub Actions; attempts that failed, and the next.
    Column("dispatched_at", DateTime(timezone=True)),
    Column("dispatch_attempts", Integer, nullable=False, server_default="0"),
    Column("dispatch_due_at", DateTime(timezone=True)),
)

promotions = Table(
    "promotions",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("release_version", Text, nullable=False),
    # The champion that a rollback brings back; under a canary, the champion.
    Column("previous_version", Text),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    _now("created_at"),
    # 1: the release is the champion. Below: a canary, which answers for this share of entities, or a shadow.
    Column("share", Double, nullable=False, server_default="1"),
    # The release scores its share beside the champion, who answers.
    Column("shadow", Boolean, nullable=False, server_default=text("false")),
    ForeignKeyConstraint(["pipeline", "release_version"], ["releases.pipeline", "releases.version"]),
    CheckConstraint("share > 0 AND share <= 1", name="share"),
    CheckConstraint("NOT shadow OR share < 1", name="shadow"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("served_on", Date, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("entity", Text),
    Column("event_time", DateTime(timezone=True), nullable=False),
    Column("served_at", DateTime(timezone=True), nullable=False),
    Column("score", Double, nullable=False),
    Column("features", JSONB, nullable=False),
    # the raw row as the client sent it, of a sampled share
    Column("row", JSONB),
    Index(None, "pipeline", "event_time"),
    Index(None, "pipeline", "entity"),
    Index(
        "ix_predictions_sampled",
        "pipeline",
        "model_version",
        "served_at",
        postgresql_where=text('"row" IS NOT NULL'),
    ),
    postgresql_partition_by="RANGE (served_on)",
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("label", Double, nullable=False),
    Column("event_time", DateTime(timezone=True)),
    Column("source", Text, nullable=False),
    _now("observed_at"),
    Index(None, "pipeline", "event_time"),
)

profiles = Table(
    "profiles",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("model_version", Text, primary_key=True),
    Column("hour", DateTime(timezone=True), primary_key=True),
    # A feature's position in the release; -1 is the score.
    Column("feature", SmallInteger, primary_key=True),
    Column("bin", SmallInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

servings = Table(
    "servings",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("model_version", Text, primary_key=True),
    # When monitor heard of it.
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    # Rows that a challenger failed to answer, and the champion answered instead.
    Column("failures", BigInteger, nullable=False),
    # Spent on answering.
    Column("microseconds", BigInteger, nullable=False),
)

# What shadows scored lies apart, so that nothing which reads what was served can count it.
shadow_predictions = Table(
    "shadow_predictions",
    metadata,
    # Of the answer in whose shadow it was made: the same id in `predictions`.
    Column("id", Uuid, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("entity", Text),
    Column("event_time", DateTime(timezone=True), nullable=False),
    Column("served_at", DateTime(timezone=True), nullable=False),
    Column("score", Double, nullable=False),
    Column("features", JSONB, nullable=False),
    Index(None, "pipeline", "model_version", "served_at"),
    Index(None, "served_at"),
)

shadow_servings = Table(
    "shadow_servings",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("model_version", Text, primary_key=True),
    # As in `servings`.
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("microseconds", BigInteger, nullable=False),
)

checks = Table(
    "checks",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("window_start", DateTime(timezone=True), nullable=False),
    Column("window_end", DateTime(timezone=True), nullable=False),
    Column("model_version", Text, nullable=False),
    # What is measured: `auc`, `log_loss`, `psi`, `retraining` …; `subject` is the feature it is measured on, or empty.
    Column("name", Text, nullable=False),
    Column("subject", Text, nullable=False, server_default=""),
    Column("value", Double),
    Column("threshold", Double),
    # ok | warning | alarm | insufficient
    Column("verdict", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("tracked", Boolean, nullable=False, server_default=text("false")),
    _now("measured_at"),
    UniqueConstraint("pipeline", "window_start", "model_version", "name", "subject"),
)

inbox = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    _now("received_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("attributes", JSONB, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _now("created_at"),
    _now("due_at"),
    Column("published_at", DateTime(timezone=True)),
    Index("ix_outbox_waiting", "due_at", postgresql_where=text("published_at IS NULL")),
)
