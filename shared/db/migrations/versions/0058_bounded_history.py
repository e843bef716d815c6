"""A batch of the recorder reads a bounded part of an order's history, whatever its sender sent."""

from importlib import import_module

from alembic import op

revision = "0058"
down_revision = "0057"

INDEXES = {
    # By time, and of one time in the order of recording: an order's first rows are its creation.
    # Rows from before migration 0025 have no time of recording and are older than all others.
    "ix_order_status_history_order_id_at_recorded_at": (
        "order_status_history",
        "order_id, at, recorded_at NULLS FIRST",
        "",
    ),
    # At most 20 of an order; the others are counted by their ids alone.
    "ix_order_conflicts_kept_order_id": (
        "order_conflicts",
        "order_id",
        "WHERE event IS NOT NULL",
    ),
}
REPLACED = {"ix_order_status_history_order_id": ("order_status_history", "order_id", "")}


def upgrade() -> None:
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build(INDEXES, REPLACED)


def downgrade() -> None:
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build(REPLACED, INDEXES)
