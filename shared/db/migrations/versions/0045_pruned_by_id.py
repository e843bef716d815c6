"""What the inbox forgets by its id has an index without the ids that are derived.

Of a month of those (UUIDv5), one in 150 stood in front of what is old, and each run walked them.
"""

from importlib import import_module

from alembic import op

revision = "0045"
down_revision = "0043"

INDEXES = {
    "ix_inbox_by_id": (
        "inbox",
        "consumer, message_id",
        "WHERE substr(message_id::text, 15, 1) <> '5'",
    )
}


def upgrade() -> None:
    # All of it may be done twice: see migration 0043.
    with op.get_context().autocommit_block():
        import_module("shared.db.migrations.versions.0043_erased_meanwhile").build(INDEXES)


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
