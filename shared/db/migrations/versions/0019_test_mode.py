"""Test mode: secrets and orders that are tests, apart from all others.

Adding a column with a constant default rewrites no table (PostgreSQL, ALTER TABLE, "Notes").
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

ACTIVE = "uq_webhook_secrets_active"
MOST = 10_000
"""Test orders that one call clears."""


def upgrade() -> None:
    for table in ("webhook_secrets", "orders"):
        op.add_column(
            table, sa.Column("is_test", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    op.drop_index(ACTIVE, "webhook_secrets")
    op.create_index(
        ACTIVE,
        "webhook_secrets",
        ["account_id", "platform", "shop", "is_test"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_index(
        "ix_orders_test",
        "orders",
        ["account_id", "accepted_at", "id"],
        postgresql_where=sa.text("is_test"),
    )
    op.execute(_CLEAR)
    op.execute("REVOKE EXECUTE ON FUNCTION clear_test_orders(uuid) FROM PUBLIC")
    _say_created("type = 'order.created'", "type IN ('order.created', 'order.test_created')")


# With the rights of the tables' owner: the ingress, whose route asks for it, may write none of
# these. What was mailed was mailed to the business itself.
_CLEAR = f"""
    CREATE FUNCTION clear_test_orders(account uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        due uuid[];
        gone uuid[];
    BEGIN
        due := ARRAY(
            SELECT id FROM public.orders WHERE is_test AND account_id = account
            ORDER BY accepted_at, id LIMIT {MOST}
        );
        -- In the order in which the recorder locks them: it waits, and does not deadlock.
        PERFORM 1 FROM public.orders WHERE id = ANY(due) ORDER BY id FOR UPDATE;
        WITH removed AS (
            DELETE FROM public.orders WHERE id = ANY(due) RETURNING id
        )
        SELECT array_agg(id) INTO gone FROM removed;
        DELETE FROM public.order_status_history WHERE order_id = ANY(gone);
        DELETE FROM public.order_conflicts WHERE order_id = ANY(gone);
        RETURN coalesce(cardinality(gone), 0);
    END $$
"""  # noqa: S608 - our own number


def _say_created(before: str, after: str) -> None:
    """Change what `erase_customer` takes for a new order, whatever else it has become."""
    old, new = (text.replace("'", "''") for text in (before, after))
    op.execute(f"""
        DO $do$ BEGIN
            EXECUTE replace(
                pg_get_functiondef('public.erase_customer(text)'::regprocedure), '{old}', '{new}');
        END $do$
    """)


def downgrade() -> None:
    _say_created("type IN ('order.created', 'order.test_created')", "type = 'order.created'")
    op.execute("DROP FUNCTION clear_test_orders(uuid)")
    # Nothing of them may be taken for a live one.
    op.execute("""
        DELETE FROM order_status_history WHERE order_id IN (SELECT id FROM orders WHERE is_test)
    """)
    op.execute("DELETE FROM orders WHERE is_test")
    op.drop_index("ix_orders_test", "orders")
    op.drop_column("orders", "is_test")
    op.drop_index(ACTIVE, "webhook_secrets")
    op.execute("ALTER TABLE webhook_secrets DISABLE TRIGGER webhook_secrets_guard")
    op.execute("DELETE FROM webhook_secrets WHERE is_test")
    op.execute("ALTER TABLE webhook_secrets ENABLE TRIGGER webhook_secrets_guard")
    op.create_index(
        ACTIVE,
        "webhook_secrets",
        ["account_id", "platform", "shop"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    op.drop_column("webhook_secrets", "is_test")
