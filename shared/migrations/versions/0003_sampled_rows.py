"""The raw rows of a sampled share of predictions, which `esteira validate` replays: see `esteira.samples`."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003_sampled_rows"
down_revision = "0002_canary"
branch_labels = None
depends_on = None

COLUMNS = ["pipeline", "model_version", "served_at"]


def upgrade() -> None:
    """Predictions stored so far have no raw row."""
    op.add_column("predictions", sa.Column("row", JSONB))
    op.create_index("ix_predictions_sampled", "predictions", COLUMNS, postgresql_where=sa.text('"row" IS NOT NULL'))


def downgrade() -> None:
    """Drops the rows; samples in the bucket stay."""
    op.drop_index("ix_predictions_sampled", "predictions")
    op.drop_column("predictions", "row")
