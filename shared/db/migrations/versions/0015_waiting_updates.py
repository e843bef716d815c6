"""A sender sees which updates wait for an order that is not known, and which were given up."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "waiting_updates",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_waiting_updates")),
    )
    op.create_index(op.f("ix_waiting_updates_since"), "waiting_updates", ["since"])


def downgrade() -> None:
    op.drop_table("waiting_updates")
