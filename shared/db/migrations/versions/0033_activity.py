"""What happened to an account is read by pages."""

from alembic import op

revision = "0033"
down_revision = "0032"

BEFORE, NOW = "ix_audit_log_correlation_id", "ix_audit_log_correlation_id_sequence"


def upgrade() -> None:
    _replace(BEFORE, NOW, "correlation_id", "sequence")


def downgrade() -> None:
    _replace(NOW, BEFORE, "correlation_id")


def _replace(old: str, new: str, *columns: str) -> None:
    # The stronger lock first: whoever has read the table and then writes to it would wait for the
    # index, and dropping the other for whoever has read: a deadlock.
    op.execute("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
    op.create_index(new, "audit_log", columns)
    op.drop_index(old, "audit_log")
