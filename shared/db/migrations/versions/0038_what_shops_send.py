"""Orders of shops: waited for until they are placed, found by their numbers; tests tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"

NUMBERS = "ix_orders_of_shops"
# What `erase_customer` takes for a new order, whatever else that function has become.
_CREATED = "type IN ('order.created', 'order.test_created')"
_OF_A_CUSTOMER = (
    "type IN ('order.created', 'order.test_created', 'order.placed', 'order.test_placed')"
)
# What `clear_test_orders` removes of orders that are gone.
_HISTORY = "DELETE FROM public.order_status_history WHERE order_id = ANY(gone);"
_INBOX = """-- As if they had never come: else, sent again, they would be known and not recorded.
        DELETE FROM public.inbox WHERE consumer = 'services.orders' AND message_id IN (
            SELECT event_id FROM public.order_status_history WHERE order_id = ANY(gone)
            UNION ALL SELECT event_id FROM public.order_conflicts WHERE order_id = ANY(gone)
        );
        """


def upgrade() -> None:
    op.create_table(
        "awaited_orders",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_awaited_orders")),
    )
    op.create_index(op.f("ix_awaited_orders_since"), "awaited_orders", ["since"])
    op.create_index(
        NUMBERS,
        "orders",
        ["order_number", "account_id"],
        postgresql_where=sa.text("metadata ? 'shop'"),
    )
    _replace("erase_customer(text)", _CREATED, _OF_A_CUSTOMER)
    _replace("clear_test_orders(uuid)", _HISTORY, _INBOX + _HISTORY)


def downgrade() -> None:
    _replace("clear_test_orders(uuid)", _INBOX + _HISTORY, _HISTORY)
    _replace("erase_customer(text)", _OF_A_CUSTOMER, _CREATED)
    op.drop_index(NUMBERS, "orders")
    op.drop_table("awaited_orders")


def _replace(function: str, before: str, after: str) -> None:
    """Change a part of a function."""
    old, new = (text.replace("'", "''") for text in (before, after))
    op.execute(f"""
        DO $do$ BEGIN
            EXECUTE replace(
                pg_get_functiondef('public.{function}'::regprocedure), '{old}', '{new}');
        END $do$
    """)
