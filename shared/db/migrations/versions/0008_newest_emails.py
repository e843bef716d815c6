"""The newest emails can be found by time: a block range index, which costs an email nothing.

It is built from one pass over the table; the notifier waits meanwhile with what it has in hand.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("ix_email_deliveries_at", "email_deliveries", ["at"], postgresql_using="brin")


def downgrade() -> None:
    op.drop_index("ix_email_deliveries_at", "email_deliveries")
