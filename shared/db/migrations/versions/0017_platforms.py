"""Shops send by their own webhooks: the secrets that platforms make, and requests with a note.

A given secret is a row beside ours, so what guards, revokes and stamps ours does so with it too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

ACTIVE = "uq_webhook_secrets_active"
WHERE = sa.text("state = 'active'")


def upgrade() -> None:
    for name in ("platform", "shop"):
        op.add_column(
            "webhook_secrets", sa.Column(name, sa.Text(), server_default="", nullable=False)
        )
    op.drop_index(ACTIVE, table_name="webhook_secrets")
    op.create_index(
        ACTIVE,
        "webhook_secrets",
        ["account_id", "platform", "shop"],
        unique=True,
        postgresql_where=WHERE,
    )
    op.add_column("webhook_requests", sa.Column("note", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("webhook_requests", "note")
    # Nothing in the version before could use one, or would know what it is.
    op.execute(
        "UPDATE webhook_secrets SET state = 'revoked', revoked_at = now() "
        "WHERE platform <> '' AND state <> 'revoked'"
    )
    op.drop_index(ACTIVE, table_name="webhook_secrets")
    op.create_index(ACTIVE, "webhook_secrets", ["account_id"], unique=True, postgresql_where=WHERE)
    op.drop_column("webhook_secrets", "shop")
    op.drop_column("webhook_secrets", "platform")
