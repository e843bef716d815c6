"""The words of cancellations, which end by their age, are found without reading all that waits."""

from importlib import import_module

from alembic import op

revision = "0055"
down_revision = "0054"

INDEXES = {
    "ix_awaited_orders_words_since": (
        "awaited_orders",
        "since",
        "WHERE (cancel_reason <> '' OR cancelled_before @? '$[*][2] ? (@ <> \"\")')",
    )
}


def upgrade() -> None:
    build = import_module("shared.db.migrations.versions.0043_erased_meanwhile").build
    with op.get_context().autocommit_block():
        build(INDEXES)


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
