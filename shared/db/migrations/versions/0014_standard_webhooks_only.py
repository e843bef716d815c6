"""An account may refuse the scheme that says nothing of time: a copy of its request is an order."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column(
        "webhook_policies",
        sa.Column(
            "standard_webhooks_only", sa.Boolean(), server_default=sa.false(), nullable=False
        ),
    )


def downgrade() -> None:
    op.drop_column("webhook_policies", "standard_webhooks_only")
