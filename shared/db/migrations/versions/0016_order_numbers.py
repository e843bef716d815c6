"""Orders have a number of their sender's, its metadata, and where the parcel can be followed.

No index by number: the id of an order that has one is derived from it (`shared/ids.py`).
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"

# As in 0012; what is new goes with the person it is about.
_ERASE = """
    CREATE OR REPLACE FUNCTION erase_customer(address text)
    RETURNS TABLE (place text, touched bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        wanted text := lower(address);
        mention text := public.customer_mention(address);
        quoted text := regexp_replace(wanted, '([^a-z0-9])', '\\\\\\1', 'g');
        theirs uuid[];
        mentioned uuid[];
        notes uuid[];
        conflicts uuid[];
        emails uuid[];
        gone jsonb := jsonb_build_object(
            'customer_details',
            jsonb_build_object(
                'name', '[erased]', 'email', 'erased@erased.invalid', 'phone', ''),
            'item_summary', '[erased]', 'address', '[erased]');
        dropped text[] := ARRAY['order_number', 'metadata', 'carrier', 'tracking_number',
            'tracking_url', 'estimated_delivery'];
    BEGIN
        IF wanted !~ '^[^@\\s]+@[^@\\s]+$' OR wanted = 'erased@erased.invalid' THEN
            RAISE EXCEPTION 'not the address of a person' USING ERRCODE = 'data_exception';
        END IF;

        theirs := ARRAY(SELECT id FROM public.orders WHERE lower(customer_email) = wanted);
        mentioned := ARRAY(
            SELECT id FROM public.orders
            WHERE lower(customer_email) <> wanted
              AND concat_ws(' ', customer_name, customer_phone, item_summary, orders.address,
                            order_number, metadata, tracking) ~* mention);
        notes := ARRAY(
            SELECT event_id FROM public.order_status_history
            WHERE (order_id = ANY(theirs)
                   AND (note NOT IN ('', '[erased]') OR tracking IS NOT NULL))
               OR note ~* mention OR tracking::text ~* mention);
        conflicts := ARRAY(
            SELECT event_id FROM public.order_conflicts
            WHERE (order_id = ANY(theirs) AND NOT event @> gone) OR event::text ~* mention);
        emails := ARRAY(
            SELECT id FROM public.email_deliveries
            WHERE lower(recipient) = wanted AND template LIKE 'order\\_%');

        -- A key is no text: what stands before the address is not part of another one.
        UPDATE public.webhook_requests SET idempotency_key = NULL
        WHERE strpos(lower(idempotency_key), wanted) > 0;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'webhook_requests'; RETURN NEXT;

        PERFORM 1 FROM public.orders WHERE id = ANY(theirs || mentioned) ORDER BY id FOR UPDATE;
        UPDATE public.orders SET customer_name = '[erased]', customer_phone = '',
            customer_email = 'erased@erased.invalid', item_summary = '[erased]',
            address = '[erased]', order_number = NULL, metadata = NULL, tracking = NULL,
            tracking_said = NULL
        WHERE id = ANY(theirs);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'orders'; RETURN NEXT;

        UPDATE public.orders SET
            customer_name = regexp_replace(customer_name, mention, '[erased]', 'gi'),
            customer_phone = regexp_replace(customer_phone, mention, '[erased]', 'gi'),
            item_summary = regexp_replace(item_summary, mention, '[erased]', 'gi'),
            address = regexp_replace(orders.address, mention, '[erased]', 'gi'),
            order_number = regexp_replace(order_number, mention, '[erased]', 'gi'),
            metadata = regexp_replace(metadata::text, mention, '[erased]', 'gi')::jsonb,
            tracking = regexp_replace(tracking::text, mention, '[erased]', 'gi')::jsonb
        WHERE id = ANY(mentioned);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'orders of others'; RETURN NEXT;

        UPDATE public.order_status_history SET note = CASE
            WHEN order_id <> ALL(theirs) THEN regexp_replace(note, mention, '[erased]', 'gi')
            WHEN note = '' THEN ''
            ELSE '[erased]' END,
            tracking = CASE WHEN order_id <> ALL(theirs)
            THEN regexp_replace(tracking::text, mention, '[erased]', 'gi')::jsonb END
        WHERE event_id = ANY(notes);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'order_status_history'; RETURN NEXT;

        UPDATE public.order_conflicts SET event = (event || gone) - dropped
        WHERE event_id = ANY(conflicts);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'order_conflicts'; RETURN NEXT;

        UPDATE public.waiting_updates SET order_number = NULL
        WHERE order_number IS NOT NULL
          AND (order_id = ANY(theirs) OR order_number ~* mention);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'waiting_updates'; RETURN NEXT;

        UPDATE public.email_deliveries SET recipient = 'erased@erased.invalid',
            message_id = '[erased]',
            response = CASE response WHEN '' THEN '' ELSE '[erased]' END
        WHERE id = ANY(emails);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'email_deliveries'; RETURN NEXT;

        -- By its text: what is parked may be no JSON, and must not keep a person from being erased.
        DELETE FROM public.outbox
        WHERE type IN ('order.recorded', 'order.status_recorded', 'order.cancellation_recorded')
          AND lower(encode(body, 'escape')) ~ ('"customer_email" *: *"' || quoted || '"');
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox discarded'; RETURN NEXT;

        UPDATE public.outbox SET reason = regexp_replace(reason, mention, '[erased]', 'gi'),
            body = convert_to(CASE
            WHEN type = 'order.created'
             AND lower(encode(body, 'escape')) ~ ('"email" *: *"' || quoted || '"')
            THEN ((convert_from(body, 'UTF8')::jsonb || gone) - dropped)::text
            ELSE regexp_replace(convert_from(body, 'UTF8'), mention, '[erased]', 'gi')
            END, 'UTF8')
        WHERE (type LIKE 'order.%' OR type = 'email.undeliverable')
          AND lower(encode(body, 'escape')) ~ mention;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox'; RETURN NEXT;
    END $$
"""
_NOTED = "ix_order_status_history_noted_at"


def upgrade() -> None:
    op.add_column("orders", sa.Column("order_number", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("metadata", JSONB(), nullable=True))
    op.add_column("orders", sa.Column("tracking", JSONB(), nullable=True))
    op.add_column("orders", sa.Column("tracking_said", JSONB(), nullable=True))
    op.add_column("order_status_history", sa.Column("tracking", JSONB(), nullable=True))
    op.add_column("waiting_updates", sa.Column("order_number", sa.Text(), nullable=True))
    # What is over of a row that stays.
    _index_noted("note <> '' OR tracking IS NOT NULL")
    op.execute(_ERASE)


def downgrade() -> None:
    before = import_module("shared.db.migrations.versions.0012_customers_data_ends")
    op.execute("DROP FUNCTION erase_customer(text)")
    op.execute(before._ERASE)
    op.execute("REVOKE EXECUTE ON FUNCTION erase_customer(text) FROM PUBLIC")
    _index_noted("note <> ''")
    op.drop_column("waiting_updates", "order_number")
    op.drop_column("order_status_history", "tracking")
    for column in ("tracking_said", "tracking", "metadata", "order_number"):
        op.drop_column("orders", column)


def _index_noted(condition: str) -> None:
    op.drop_index(_NOTED, "order_status_history")
    op.create_index(_NOTED, "order_status_history", ["at"], postgresql_where=sa.text(condition))
