"""A network that an account was used from ends when it is not used any more, and with the account.

So do sessions that have ended: until now each waited for somebody to sign in after its last day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"

_USED, _OVER = "ix_known_networks_last_used_at", "ix_account_sessions_over"
_EXPIRES = "ix_account_sessions_expires_at"


def upgrade() -> None:
    # The strongest lock first: who has read a session and writes it next waits for nobody here.
    op.execute("LOCK TABLE account_sessions, known_networks IN ACCESS EXCLUSIVE MODE")
    # When it was used last nobody knows: as of now, so that nobody is a stranger by the upgrade.
    now = sa.Column(
        "last_used_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    )
    op.add_column("known_networks", now)
    op.create_index(_USED, "known_networks", ["last_used_at"])
    op.execute("""
        DELETE FROM known_networks USING accounts
        WHERE accounts.id = account_id AND closed_at IS NOT NULL
    """)
    op.create_index(_OVER, "account_sessions", [sa.text("coalesce(ended_at, expires_at)")])
    op.drop_index(_EXPIRES, "account_sessions")


def downgrade() -> None:
    op.create_index(_EXPIRES, "account_sessions", ["expires_at"])
    op.drop_index(_OVER, "account_sessions")
    op.drop_index(_USED, "known_networks")
    op.drop_column("known_networks", "last_used_at")
