"""What is parked in the outbox is found and counted without reading what waits."""

from importlib import import_module

from alembic import op

revision = "0049"
down_revision = "0048"

# By name: the table, what of it, of which rows. Built beside those who write: orders never stop.
INDEXES = {
    "ix_outbox_parked": ("outbox", "sequence, parked_at", "WHERE parked_at IS NOT NULL"),
    "ix_audit_log_type": ("audit_log", "type text_pattern_ops, sequence", ""),
}


def upgrade() -> None:
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build(INDEXES)


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
