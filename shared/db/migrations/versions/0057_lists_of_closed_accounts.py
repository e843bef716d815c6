"""A closed account has no allowlist: one that was closed before that was so had kept its."""

from alembic import op

revision = "0057"
down_revision = "0056"


def upgrade() -> None:
    op.execute("""
        UPDATE webhook_policies SET allowed_networks = '{}' FROM accounts
        WHERE accounts.id = account_id AND closed_at IS NOT NULL AND allowed_networks <> '{}'
    """)


def downgrade() -> None:
    pass
