"""Of an order's many conflicts the last ones are kept by their event id alone."""

from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.alter_column("order_conflicts", "event", nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM order_conflicts WHERE event IS NULL")
    op.alter_column("order_conflicts", "event", nullable=False)
