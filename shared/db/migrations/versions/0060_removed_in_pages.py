"""What a business made is removed, and told, in pages: no transaction grows with what it has sent.

An order is removed before its history, which may be of any length. `removed_orders` has those whose
history is still there: no reader shows it, and the recorder does not take such an order again
until `sweep_removed_orders` has removed the rest.

`clear_test_orders(uuid)`, which removes everything at once, is kept for the version before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0060"
down_revision = "0059"


def upgrade() -> None:
    op.create_table(
        "removed_orders",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("is_cleared", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_removed_orders")),
    )
    op.create_index(
        op.f("ix_removed_orders_account_id_order_id"), "removed_orders", ["account_id", "order_id"]
    )
    op.create_table(
        "refusal_warnings",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("addresses", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_refusal_warnings")),
    )
    op.execute(_CLEAR)
    op.execute(_SWEEP)
    for function in ("clear_test_orders(uuid, integer)", "sweep_removed_orders(uuid, integer)"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


# With the rights of the tables' owner: the ingress, whose route asks for both, may write none of
# these.
#
# Planned at each call. `removed_orders` is nearly always empty, and a connection would keep the
# plans made for that: to scan the table, and compare each row with thousands of ids, one by one.
_CLEAR = """
    CREATE FUNCTION clear_test_orders(account uuid, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    DECLARE
        due uuid[];
        removed bigint;
    BEGIN
        due := ARRAY(
            SELECT id FROM public.orders WHERE is_test AND account_id = account
            ORDER BY accepted_at, id LIMIT most
        );
        -- In the order in which the recorder locks them: it waits, and does not deadlock.
        PERFORM 1 FROM public.orders WHERE id = ANY(due) ORDER BY id FOR UPDATE;
        -- What created them is forgotten at once: sent again before the sweep, it would be known,
        -- and lost. It is among the first entries of its time (`services/orders/conflicts.py`).
        DELETE FROM public.inbox WHERE consumer = 'services.orders' AND message_id IN (
            SELECT entry.event_id FROM public.orders CROSS JOIN LATERAL (
                SELECT event_id FROM public.order_status_history
                WHERE order_id = orders.id AND at = orders.accepted_at
                ORDER BY recorded_at NULLS FIRST LIMIT 20
            ) AS entry
            WHERE orders.id = ANY(due)
        );
        WITH gone AS (
            DELETE FROM public.orders WHERE id = ANY(due) RETURNING id
        )
        INSERT INTO public.removed_orders (order_id, account_id, is_cleared)
        SELECT id, account, true FROM gone ORDER BY id
        ON CONFLICT (order_id) DO UPDATE SET is_cleared = true;
        GET DIAGNOSTICS removed = ROW_COUNT;
        RETURN removed;
    END $$
"""
_SWEEP = """
    CREATE FUNCTION sweep_removed_orders(account uuid, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    DECLARE
        due uuid[];
        entries uuid[];
        conflicts uuid[];
        ended bigint;
    BEGIN
        -- It waits for no lock: another sweep, an erasure or retention may hold some of the rows.
        due := ARRAY(
            SELECT order_id FROM public.removed_orders
            WHERE account IS NULL OR account_id = account
            ORDER BY order_id LIMIT most FOR UPDATE SKIP LOCKED
        );
        -- A recorder of the version before does not wait: what it has recorded again stays whole.
        DELETE FROM public.removed_orders WHERE order_id = ANY(ARRAY(
            SELECT id FROM public.orders WHERE id = ANY(due)));
        GET DIAGNOSTICS ended = ROW_COUNT;
        IF ended > 0 THEN
            due := ARRAY(SELECT order_id FROM public.removed_orders WHERE order_id = ANY(due));
        END IF;

        entries := ARRAY(
            SELECT event_id FROM public.order_status_history
            WHERE order_id = ANY(due) LIMIT most FOR UPDATE SKIP LOCKED
        );
        conflicts := ARRAY(
            SELECT event_id FROM public.order_conflicts
            WHERE order_id = ANY(due) LIMIT most - cardinality(entries) FOR UPDATE SKIP LOCKED
        );
        -- Of cleared orders as if they had never come: else, sent again, they would be known and
        -- not recorded. What created them was forgotten when they were cleared.
        DELETE FROM public.inbox WHERE consumer = 'services.orders' AND message_id IN (
            SELECT event_id FROM public.order_status_history JOIN public.removed_orders
                USING (order_id) WHERE event_id = ANY(entries) AND is_cleared
            UNION ALL
            SELECT event_id FROM public.order_conflicts JOIN public.removed_orders
                USING (order_id) WHERE event_id = ANY(conflicts) AND is_cleared
        );
        DELETE FROM public.order_status_history WHERE event_id = ANY(entries);
        DELETE FROM public.order_conflicts WHERE event_id = ANY(conflicts);
        IF cardinality(entries) + cardinality(conflicts) < most THEN
            WITH gone AS (
                DELETE FROM public.removed_orders AS removed WHERE order_id = ANY(due)
                    AND NOT EXISTS (SELECT FROM public.order_status_history
                                    WHERE order_id = removed.order_id)
                    AND NOT EXISTS (SELECT FROM public.order_conflicts
                                    WHERE order_id = removed.order_id)
                RETURNING 1
            )
            SELECT ended + count(*) INTO ended FROM gone;
        END IF;
        RETURN ended + cardinality(entries) + cardinality(conflicts);
    END $$
"""


def downgrade() -> None:
    # Nothing of them may be taken for the history of an order that is sent again.
    for table in ("order_status_history", "order_conflicts"):
        op.execute(
            f"DELETE FROM {table} AS entry USING removed_orders AS removed"  # noqa: S608
            " WHERE entry.order_id = removed.order_id"
            " AND NOT EXISTS (SELECT FROM orders WHERE id = removed.order_id)"
        )
    op.execute("DROP FUNCTION sweep_removed_orders(uuid, integer)")
    op.execute("DROP FUNCTION clear_test_orders(uuid, integer)")
    op.drop_table("refusal_warnings")
    op.drop_table("removed_orders")
