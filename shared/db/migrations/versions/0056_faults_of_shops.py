"""Why a shop's delivery was refused: who signed it reads no answer."""

import sqlalchemy as sa
from alembic import op

revision = "0056"
down_revision = "0055"


def upgrade() -> None:
    op.add_column("webhook_requests", sa.Column("fault", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("webhook_requests", "fault")
