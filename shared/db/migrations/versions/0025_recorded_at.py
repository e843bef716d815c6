"""Since when we have a status and a conflict; its sender's stamp may lie years back.

What is there already keeps its stamp alone, so that nothing is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

TABLES = ("order_status_history", "order_conflicts")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("recorded_at", sa.DateTime(timezone=True)))
        op.alter_column(table, "recorded_at", server_default=sa.func.now())


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "recorded_at")
