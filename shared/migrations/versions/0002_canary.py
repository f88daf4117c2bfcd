"""Canaries in the ledger, how releases served, which approved ones GitHub was told of: see `esteira.tables`."""

import sqlalchemy as sa
from alembic import op

revision = "0002_canary"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every promotion so far was of all requests."""
    op.add_column("promotions", sa.Column("share", sa.Double, server_default="1", nullable=False))
    op.create_check_constraint(op.f("ck_promotions_share"), "promotions", "share > 0 AND share <= 1")
    op.add_column("releases", sa.Column("dispatched_at", sa.DateTime(timezone=True)))
    op.add_column("releases", sa.Column("dispatch_attempts", sa.Integer, server_default="0", nullable=False))
    op.add_column("releases", sa.Column("dispatch_due_at", sa.DateTime(timezone=True)))
    op.create_table(
        "servings",
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("microseconds", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "model_version", "minute", name="pk_servings"),
    )


def downgrade() -> None:
    """Drops the columns; a canary under way would become a promotion, so it is taken out of the ledger first."""
    op.execute("DELETE FROM promotions WHERE share < 1")
    op.drop_table("servings")
    for column in ("dispatch_due_at", "dispatch_attempts", "dispatched_at"):
        op.drop_column("releases", column)
    op.drop_constraint(op.f("ck_promotions_share"), "promotions", type_="check")
    op.drop_column("promotions", "share")
