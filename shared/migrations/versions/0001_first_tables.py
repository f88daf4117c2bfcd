"""The first tables: see `esteira.tables` for what they mean."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates every table, parents before the tables that refer to them."""
    create_data_tables()
    create_training_runs()
    create_release_tables()
    create_predictions()
    create_monitoring_tables()
    create_message_tables()


def downgrade() -> None:
    """Drops every table, with its rows."""
    for table in ("outbox", "inbox", "checks", "profiles", "outcomes", "predictions"):
        op.drop_table(table)
    for table in ("promotions", "releases", "training_runs", "datasets", "ingestions"):
        op.drop_table(table)


def create_data_tables() -> None:
    op.create_table(
        "ingestions",
        sa.Column("id", sa.Uuid, nullable=False),
        text("pipeline"),
        text("bucket"),
        text("object"),
        sa.Column("generation", sa.BigInteger, nullable=False),
        text("status", default="pending"),
        text("reason", nullable=True),
        sa.Column("rows", sa.BigInteger),
        sa.Column("accepted", sa.BigInteger),
        sa.Column("quarantined", sa.BigInteger),
        json("reasons", default="{}"),
        text("quarantine", nullable=True),
        text("part", nullable=True),
        text("dataset_version", nullable=True),
        *lease(),
        now("created_at"),
        time("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ingestions"),
        sa.UniqueConstraint("bucket", "object", "generation", name="uq_ingestions_bucket_object_generation"),
    )
    op.create_index("ix_ingestions_pipeline_created_at", "ingestions", ["pipeline", "created_at"])
    op.create_table(
        "datasets",
        text("pipeline"),
        sa.Column("number", sa.Integer, nullable=False),
        text("version"),
        text("manifest"),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("labelled", sa.BigInteger, nullable=False),
        sa.Column("ingestion_id", sa.Uuid, nullable=False),
        now("created_at"),
        sa.PrimaryKeyConstraint("pipeline", "number", name="pk_datasets"),
        sa.UniqueConstraint("pipeline", "version", name="uq_datasets_pipeline_version"),
    )


def create_training_runs() -> None:
    op.create_table(
        "training_runs",
        sa.Column("id", sa.Uuid, nullable=False),
        text("pipeline"),
        sa.Column("number", sa.Integer, nullable=False),
        text("request_key"),
        text("reason"),
        text("requested_by"),
        sa.Column("dataset_number", sa.Integer, nullable=False),
        text("status", default="requested"),
        text("verdict", nullable=True),
        text("release_version", nullable=True),
        text("mlflow_run_id", nullable=True),
        json("metrics", default="{}"),
        json("gates", default="[]"),
        text("traceparent", nullable=True),
        *lease(),
        now("created_at"),
        time("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_training_runs"),
        sa.UniqueConstraint("pipeline", "request_key", name="uq_training_runs_pipeline_request_key"),
        sa.UniqueConstraint("pipeline", "number", name="uq_training_runs_pipeline_number"),
        sa.ForeignKeyConstraint(
            ["pipeline", "dataset_number"], ["datasets.pipeline", "datasets.number"], name="fk_training_runs_datasets"
        ),
    )


def create_release_tables() -> None:
    op.create_table(
        "releases",
        text("pipeline"),
        text("version"),
        text("path"),
        text("sha256"),
        sa.Column("training_run_id", sa.Uuid, nullable=False),
        sa.Column("dataset_number", sa.Integer, nullable=False),
        text("mlflow_run_id", nullable=True),
        text("mlflow_version", nullable=True),
        json("metrics"),
        json("gates"),
        sa.Column("approved", sa.Boolean, nullable=False),
        now("created_at"),
        sa.PrimaryKeyConstraint("pipeline", "version", name="pk_releases"),
    )
    op.create_table(
        "promotions",
        text("pipeline"),
        sa.Column("generation", sa.Integer, nullable=False),
        text("release_version"),
        text("previous_version", nullable=True),
        text("reason"),
        text("by"),
        now("created_at"),
        sa.PrimaryKeyConstraint("pipeline", "generation", name="pk_promotions"),
        sa.ForeignKeyConstraint(
            ["pipeline", "release_version"], ["releases.pipeline", "releases.version"], name="fk_promotions_releases"
        ),
    )


def create_predictions() -> None:
    """The default partition takes what no day's own partition takes, so that no prediction is ever refused."""
    op.create_table(
        "predictions",
        sa.Column("served_on", sa.Date, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        text("pipeline"),
        text("model_version"),
        text("entity", nullable=True),
        time("event_time"),
        time("served_at"),
        sa.Column("score", sa.Double, nullable=False),
        json("features"),
        sa.PrimaryKeyConstraint("served_on", "id", name="pk_predictions"),
        postgresql_partition_by="RANGE (served_on)",
    )
    op.create_index("ix_predictions_pipeline_event_time", "predictions", ["pipeline", "event_time"])
    op.create_index("ix_predictions_pipeline_entity", "predictions", ["pipeline", "entity"])
    op.execute("CREATE TABLE predictions_default PARTITION OF predictions DEFAULT")


def create_monitoring_tables() -> None:
    op.create_table(
        "outcomes",
        text("pipeline"),
        text("entity"),
        sa.Column("label", sa.Double, nullable=False),
        time("event_time", nullable=True),
        text("source"),
        now("observed_at"),
        sa.PrimaryKeyConstraint("pipeline", "entity", name="pk_outcomes"),
    )
    op.create_index("ix_outcomes_pipeline_event_time", "outcomes", ["pipeline", "event_time"])
    op.create_table(
        "profiles",
        text("pipeline"),
        text("model_version"),
        time("hour"),
        sa.Column("feature", sa.SmallInteger, nullable=False),
        sa.Column("bin", sa.SmallInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "model_version", "hour", "feature", "bin", name="pk_profiles"),
    )
    create_checks()


def create_checks() -> None:
    measured = ["pipeline", "window_start", "model_version", "name", "subject"]
    op.create_table(
        "checks",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        text("pipeline"),
        time("window_start"),
        time("window_end"),
        text("model_version"),
        text("name"),
        text("subject", default=""),
        sa.Column("value", sa.Double),
        sa.Column("threshold", sa.Double),
        text("verdict"),
        json("details", default="{}"),
        sa.Column("tracked", sa.Boolean, server_default=sa.text("false"), nullable=False),
        now("measured_at"),
        sa.PrimaryKeyConstraint("id", name="pk_checks"),
        sa.UniqueConstraint(*measured, name=f"uq_checks_{'_'.join(measured)}"),
    )


def create_message_tables() -> None:
    op.create_table(
        "inbox",
        text("consumer"),
        text("event_id"),
        now("received_at"),
        sa.PrimaryKeyConstraint("consumer", "event_id", name="pk_inbox"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        text("topic"),
        text("data"),
        json("attributes"),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
        now("created_at"),
        now("due_at"),
        time("published_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_waiting", "outbox", ["due_at"], postgresql_where=sa.text("published_at IS NULL"))


def text(name: str, nullable: bool = False, default: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable, server_default=default)


def json(name: str, default: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, JSONB, nullable=False, server_default=default and sa.text(f"'{default}'::jsonb"))


def time(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def now(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def lease() -> list[sa.Column[Any]]:
    return [
        time("lease_until", nullable=True),
        sa.Column("fence", sa.Integer, server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
    ]
