"""A customer is looked for in what the texts of a document say, and not in how JSON writes them.

Written as JSON, a line feed before an address ends in an `n`, and reads like another address.
"""

from importlib import import_module

from alembic import op

revision = "0026"
down_revision = "0025"

# Not validated when it is made, as a function in SQL would be, which cannot name itself.
_WITHOUT = """
    CREATE FUNCTION without_customer(value jsonb, mention text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog AS $$
    BEGIN
        RETURN CASE jsonb_typeof(value)
            WHEN 'string' THEN
                to_jsonb(regexp_replace(value #>> '{}', mention, '[erased]', 'gi'))
            WHEN 'array' THEN (
                SELECT coalesce(
                    jsonb_agg(public.without_customer(one, mention) ORDER BY place), '[]')
                FROM jsonb_array_elements(value) WITH ORDINALITY AS a (one, place))
            WHEN 'object' THEN (
                SELECT coalesce(jsonb_object_agg(
                    regexp_replace(name, mention, '[erased]', 'gi'),
                    public.without_customer(one, mention)), '{}')
                FROM jsonb_each(value) AS o (name, one))
            ELSE value
        END;
    END $$
"""
_MENTIONS = """
    CREATE FUNCTION mentions_customer(value jsonb, mention text) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog AS $$
        SELECT public.without_customer(value, mention) <> value
    $$
"""
# What is parked may be no JSON, nor even text, and must not keep a person from being erased.
_BODY = """
    CREATE FUNCTION body_without_customer(body bytea, mention text) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog AS $$
    DECLARE
        said text;
        data jsonb;
        cleared jsonb;
    BEGIN
        said := convert_from(body, 'UTF8');
        BEGIN
            data := said::jsonb;
        EXCEPTION WHEN data_exception THEN
            RETURN convert_to(regexp_replace(said, mention, '[erased]', 'gi'), 'UTF8');
        END;
        cleared := public.without_customer(data, mention);
        RETURN CASE WHEN cleared = data THEN body ELSE convert_to(cleared::text, 'UTF8') END;
    EXCEPTION WHEN data_exception THEN
        RETURN decode(
            regexp_replace(encode(body, 'escape'), mention, '[erased]', 'gi'), 'escape');
    END $$
"""
# See migration 0012 for the order of its steps.
_ERASE = """
    CREATE OR REPLACE FUNCTION erase_customer(address text)
    RETURNS TABLE (place text, touched bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        wanted text := lower(address);
        mention text := public.customer_mention(address);
        quoted text := regexp_replace(wanted, '([^a-z0-9])', '\\\\\\1', 'g');
        -- Before the @ an address that can be mailed is ASCII: a quick look at every document.
        begins text := split_part(wanted, '@', 1) || '@';
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
              AND (concat_ws(' ', customer_name, customer_phone, item_summary, orders.address,
                             order_number) ~* mention
                   OR (strpos(lower(concat(metadata, tracking)), begins) > 0
                       AND (public.mentions_customer(metadata, mention)
                            OR public.mentions_customer(tracking, mention)))));
        notes := ARRAY(
            SELECT event_id FROM public.order_status_history
            WHERE (order_id = ANY(theirs)
                   AND (note NOT IN ('', '[erased]') OR tracking IS NOT NULL))
               OR note ~* mention
               OR (strpos(lower(tracking::text), begins) > 0
                   AND public.mentions_customer(tracking, mention)));
        conflicts := ARRAY(
            SELECT event_id FROM public.order_conflicts
            WHERE (order_id = ANY(theirs) AND NOT event @> gone)
               OR (strpos(lower(event::text), begins) > 0
                   AND public.mentions_customer(event, mention)));
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
            metadata = public.without_customer(metadata, mention),
            tracking = public.without_customer(tracking, mention)
        WHERE id = ANY(mentioned);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'orders of others'; RETURN NEXT;

        UPDATE public.order_status_history SET note = CASE
            WHEN order_id <> ALL(theirs) THEN regexp_replace(note, mention, '[erased]', 'gi')
            WHEN note = '' THEN ''
            ELSE '[erased]' END,
            tracking = CASE WHEN order_id <> ALL(theirs)
            THEN public.without_customer(tracking, mention) END
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

        -- By its text: what is parked may be no JSON. A test order's is mailed to the business.
        DELETE FROM public.outbox
        WHERE (type IN ('order.recorded', 'order.status_recorded', 'order.cancellation_recorded')
               AND lower(encode(body, 'escape')) ~ ('"customer_email" *: *"' || quoted || '"'))
           OR (type IN ('order.test_recorded', 'order.test_status_recorded',
                        'order.test_cancellation_recorded')
               AND lower(encode(body, 'escape')) ~ ('"order_email" *: *"' || quoted || '"'));
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox discarded'; RETURN NEXT;

        UPDATE public.outbox SET reason = regexp_replace(reason, mention, '[erased]', 'gi'),
            body = CASE
            WHEN type IN ('order.created', 'order.test_created')
             AND lower(encode(body, 'escape')) ~ ('"email" *: *"' || quoted || '"')
            THEN convert_to(
                ((convert_from(body, 'UTF8')::jsonb || gone) - dropped)::text, 'UTF8')
            ELSE public.body_without_customer(body, mention)
            END
        WHERE (type LIKE 'order.%' OR type = 'email.undeliverable')
          AND strpos(lower(encode(body, 'escape')), begins) > 0
          AND public.body_without_customer(body, mention) <> body;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox'; RETURN NEXT;
    END $$
"""
FUNCTIONS = (
    "without_customer(jsonb, text)",
    "mentions_customer(jsonb, text)",
    "body_without_customer(bytea, text)",
)


def upgrade() -> None:
    for statement in (_WITHOUT, _MENTIONS, _BODY, _ERASE):
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def downgrade() -> None:
    orders, tests = (
        import_module(f"shared.db.migrations.versions.{name}")
        for name in ("0016_order_numbers", "0019_test_mode")
    )
    op.execute(orders._ERASE)
    tests._say_created("type = 'order.created'", "type IN ('order.created', 'order.test_created')")
    for function in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {function}")
