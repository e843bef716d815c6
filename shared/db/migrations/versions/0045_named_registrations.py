"""A code that was asked for without saying for which registration does not prove one by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    op.add_column(
        "pending_proofs",
        sa.Column("is_named", sa.Boolean(), nullable=False, server_default=sa.true()),
    )


def downgrade() -> None:
    op.drop_column("pending_proofs", "is_named")
