"""Shadows in the ledger, and tables of their own for what they score: see `esteira.tables`."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004_shadow"
down_revision = "0003_sampled_rows"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No row of the ledger so far is a shadow."""
    op.add_column("promotions", sa.Column("shadow", sa.Boolean, server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(op.f("ck_promotions_shadow"), "promotions", "NOT shadow OR share < 1")
    op.create_table(
        "shadow_predictions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("entity", sa.Text),
        sa.Column("event_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("features", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shadow_predictions"),
    )
    for columns in (["pipeline", "model_version", "served_at"], ["served_at"]):
        op.create_index(f"ix_shadow_predictions_{'_'.join(columns)}", "shadow_predictions", columns)
    op.create_table(
        "shadow_servings",
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("microseconds", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "model_version", "minute", name="pk_shadow_servings"),
    )


def downgrade() -> None:
    """Drops what shadows scored; one under way would become a canary, so it is taken out of the ledger first."""
    op.execute("DELETE FROM promotions WHERE shadow")
    op.drop_table("shadow_servings")
    op.drop_table("shadow_predictions")
    op.drop_constraint(op.f("ck_promotions_shadow"), "promotions", type_="check")
    op.drop_column("promotions", "shadow")
