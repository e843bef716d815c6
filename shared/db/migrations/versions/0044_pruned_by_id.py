"""What the inbox forgets by its id has an index without the ids that are derived.

Of a month of those (UUIDv5), one in 150 stood in front of what is old, and each run walked them.

A message of the outbox is under way as long as its relay holds it, and not until another takes it.
And a shop's cancellation of an order that is waited for stands beside it.
"""

from importlib import import_module

from alembic import op

revision = "0044"
down_revision = "0043"

INDEXES = {
    "ix_inbox_by_id": (
        "inbox",
        "consumer, message_id",
        "WHERE substr(message_id::text, 15, 1) <> '5'",
    )
}


COLUMNS = {
    "cancelled_at": "timestamptz",
    "cancelled_by": "uuid",
    "cancel_reason": "text",
}


_UNDER_WAY = "OLD.reason = ''"


def upgrade() -> None:
    _guard(f"{_UNDER_WAY} AND OLD.next_try_at > clock_timestamp()")
    for name, type_ in COLUMNS.items():
        op.execute(f"ALTER TABLE awaited_orders ADD COLUMN IF NOT EXISTS {name} {type_}")
    # All of it may be done twice: see migration 0043.
    with op.get_context().autocommit_block():
        import_module("shared.db.migrations.versions.0043_erased_meanwhile").build(INDEXES)


def downgrade() -> None:
    _guard(_UNDER_WAY)
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    for name in COLUMNS:
        op.drop_column("awaited_orders", name)


def _guard(under_way: str) -> None:
    before = import_module("shared.db.migrations.versions.0041_ended_for_good")
    op.execute(before._guard(f"OLD.parked_at IS NULL OR ({under_way})"))
