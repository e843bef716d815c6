"""Of the emails that were not sent those of who has left are looked through, too."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"

BEFORE, NOW = "ix_email_deliveries_undeliverable_at_id", "ix_email_deliveries_unsent_at_id"


def upgrade() -> None:
    _replace(BEFORE, NOW, "state <> 'sent'")


def downgrade() -> None:
    _replace(NOW, BEFORE, "state = 'undeliverable'")


def _replace(old: str, new: str, condition: str) -> None:
    # The stronger lock first: whoever has read the table and then writes to it would wait for the
    # index, and dropping the other for whoever has read: a deadlock.
    op.execute("LOCK TABLE email_deliveries IN ACCESS EXCLUSIVE MODE")
    op.create_index(new, "email_deliveries", ["at", "id"], postgresql_where=sa.text(condition))
    op.drop_index(old, "email_deliveries")
