"""What happened to an account is read by pages, newest first, by itself in the log's order."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

BEFORE, NOW = "ix_audit_log_correlation_id", "ix_audit_log_correlation_id_sequence"


def upgrade() -> None:
    op.create_index(NOW, "audit_log", ["correlation_id", "sequence"])
    op.drop_index(BEFORE, "audit_log")


def downgrade() -> None:
    op.create_index(BEFORE, "audit_log", ["correlation_id"])
    op.drop_index(NOW, "audit_log")
