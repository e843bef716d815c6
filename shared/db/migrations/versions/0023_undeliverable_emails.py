"""Emails that were refused for good are few among many, and are looked through."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

INDEX = "ix_email_deliveries_undeliverable_at_id"


def upgrade() -> None:
    op.create_index(
        INDEX,
        "email_deliveries",
        ["at", "id"],
        postgresql_where=sa.text("state = 'undeliverable'"),
    )


def downgrade() -> None:
    op.drop_index(INDEX, "email_deliveries")
