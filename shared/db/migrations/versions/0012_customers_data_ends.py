"""Customers' data has an end: when the customer asks, and when its time is over.

Ops staff may erase a person by a function that runs as its owner and does just that: no table of
another service's is theirs to write. What it leaves is in `shared/erased.py`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

# A regular expression that finds an address in a text, whatever its case, and not a longer one that
# ends or begins like it. PostgreSQL's and Python's dialects agree on it.
_MENTION = r"""
    CREATE FUNCTION customer_mention(address text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog AS $$
        SELECT '(?<![a-zA-Z0-9._%+-])'
            || regexp_replace(lower(address), '([^a-z0-9])', '\\\1', 'g')
            || '(?![a-zA-Z0-9-]|\.[a-zA-Z0-9])'
    $$
"""

# One transaction with the audit fact of whoever calls it. The long looks lock nothing: a recorder
# that waits for one order has a batch of others in hand. Then orders are locked in the order of
# their ids, as it does.
_ERASE = """
    CREATE FUNCTION erase_customer(address text) RETURNS TABLE (place text, touched bigint)
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
    BEGIN
        IF wanted !~ '^[^@\\s]+@[^@\\s]+$' OR wanted = 'erased@erased.invalid' THEN
            RAISE EXCEPTION 'not the address of a person' USING ERRCODE = 'data_exception';
        END IF;

        theirs := ARRAY(SELECT id FROM public.orders WHERE lower(customer_email) = wanted);
        mentioned := ARRAY(
            SELECT id FROM public.orders
            WHERE lower(customer_email) <> wanted
              AND concat_ws(' ', customer_name, customer_phone, item_summary, orders.address)
                  ~* mention);
        notes := ARRAY(
            SELECT event_id FROM public.order_status_history
            WHERE (order_id = ANY(theirs) AND note NOT IN ('', '[erased]')) OR note ~* mention);
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
            address = '[erased]'
        WHERE id = ANY(theirs);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'orders'; RETURN NEXT;

        UPDATE public.orders SET
            customer_name = regexp_replace(customer_name, mention, '[erased]', 'gi'),
            customer_phone = regexp_replace(customer_phone, mention, '[erased]', 'gi'),
            item_summary = regexp_replace(item_summary, mention, '[erased]', 'gi'),
            address = regexp_replace(orders.address, mention, '[erased]', 'gi')
        WHERE id = ANY(mentioned);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'orders of others'; RETURN NEXT;

        UPDATE public.order_status_history SET note = CASE
            WHEN order_id = ANY(theirs) THEN '[erased]'
            ELSE regexp_replace(note, mention, '[erased]', 'gi') END
        WHERE event_id = ANY(notes);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'order_status_history'; RETURN NEXT;

        UPDATE public.order_conflicts SET event = event || gone WHERE event_id = ANY(conflicts);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'order_conflicts'; RETURN NEXT;

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
            THEN (convert_from(body, 'UTF8')::jsonb || gone)::text
            ELSE regexp_replace(convert_from(body, 'UTF8'), mention, '[erased]', 'gi')
            END, 'UTF8')
        WHERE (type LIKE 'order.%' OR type = 'email.undeliverable')
          AND lower(encode(body, 'escape')) ~ mention;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox'; RETURN NEXT;
    END $$
"""

# The days to keep are a setting. Never less than a week, so that whoever has taken the ingress over
# cannot have it drop what it did. Without an argument it is the version's before, which still runs.
_KEEP_PARTITIONS = """
    CREATE FUNCTION keep_webhook_request_partitions(keep_days integer) RETURNS date
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
    DECLARE
        today date := now();
        day date;
        partition text;
    BEGIN
        PERFORM pg_advisory_xact_lock(7034222);
        FOR ahead IN -1 .. 7 LOOP
            day := today + ahead;
            partition := 'webhook_requests_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass('partitions.' || partition) IS NOT NULL;
            EXECUTE format('CREATE TABLE partitions.%I (LIKE public.webhook_requests)', partition);
            EXECUTE format(
                'ALTER TABLE public.webhook_requests ATTACH PARTITION partitions.%I '
                'FOR VALUES FROM (%L) TO (%L)', partition, day, day + 1);
        END LOOP;
        FOR partition IN
            SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
            WHERE inhparent = 'public.webhook_requests'::regclass AND keep_days > 0
              AND relname < 'webhook_requests_' || to_char(today - greatest(keep_days, 7),
                                                           'YYYYMMDD')
        LOOP
            BEGIN
                EXECUTE format('DROP TABLE partitions.%I', partition);
            EXCEPTION WHEN lock_not_available THEN
                EXIT;
            END;
        END LOOP;
        RETURN (SELECT to_date(right(min(relname), 8), 'YYYYMMDD')
                FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
                WHERE inhparent = 'public.webhook_requests'::regclass);
    END $$
"""


def upgrade() -> None:
    op.execute(_MENTION)
    op.execute(_ERASE)
    op.execute(_KEEP_PARTITIONS)
    op.create_index(
        "ix_order_status_history_noted_at",
        "order_status_history",
        ["at"],
        postgresql_where=sa.text("note <> ''"),
    )
    op.create_index(op.f("ix_order_conflicts_at"), "order_conflicts", ["at"])
    # What has ended leaves a BRIN index that says of every page that it may be in it.
    op.drop_index("ix_email_deliveries_at", "email_deliveries")
    op.create_index("ix_email_deliveries_at", "email_deliveries", ["at"])
    for function in (
        "customer_mention(text)",
        "erase_customer(text)",
        "keep_webhook_request_partitions(integer)",
    ):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def downgrade() -> None:
    op.drop_index("ix_email_deliveries_at", "email_deliveries")
    op.create_index("ix_email_deliveries_at", "email_deliveries", ["at"], postgresql_using="brin")
    op.drop_index(op.f("ix_order_conflicts_at"), "order_conflicts")
    op.drop_index("ix_order_status_history_noted_at", "order_status_history")
    op.execute("DROP FUNCTION keep_webhook_request_partitions(integer)")
    op.execute("DROP FUNCTION erase_customer(text)")
    op.execute("DROP FUNCTION customer_mention(text)")
