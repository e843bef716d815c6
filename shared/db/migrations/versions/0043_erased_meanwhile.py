"""Erasing finds what is written while it waits, and messages that name an order by its id alone.

A recorder that has an order in hand may write a note about it after erasing has looked. And an
update has no address in it: it is the person's by its order.
"""

from collections.abc import Collection
from importlib import import_module

from alembic import op

revision = "0043"
down_revision = "0042"

# The order that a message about one names; of a fact that is mailed its address decides.
_NAMED = r"""
    CREATE OR REPLACE FUNCTION order_named(type text, body bytea) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
        SELECT CASE WHEN type LIKE 'order.%' AND type NOT LIKE '%recorded' THEN
            substring(lower(encode(body, 'escape')) FROM
                '"order_id" *: *"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')::uuid
        END
    $$
"""
_IS_OF_ERASED = """
    CREATE OR REPLACE FUNCTION is_of_erased(type text, body bytea) RETURNS boolean
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
        SELECT EXISTS (
            SELECT FROM public.orders
            WHERE id = public.order_named(type, body) AND customer_email = 'erased@erased.invalid')
    $$
"""
# What services/ops/customers/erasure.py leaves of it. What is no JSON is left as it is.
_WITHOUT_ORDER = """
    CREATE OR REPLACE FUNCTION body_without_order(type text, body bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        data jsonb;
        cleared jsonb;
    BEGIN
        data := convert_from(body, 'UTF8')::jsonb;
        cleared := data - ARRAY['order_number', 'metadata', 'carrier', 'tracking_number',
            'tracking_url', 'estimated_delivery', 'note', 'reason'];
        IF type IN ('order.created', 'order.test_created', 'order.placed', 'order.test_placed') THEN
            cleared := cleared || jsonb_build_object(
                'customer_details',
                jsonb_build_object(
                    'name', '[erased]', 'email', 'erased@erased.invalid', 'phone', ''),
                'item_summary', '[erased]', 'address', '[erased]');
        END IF;
        RETURN CASE WHEN cleared = data THEN body ELSE convert_to(cleared::text, 'UTF8') END;
    EXCEPTION WHEN data_exception THEN
        RETURN body;
    END $$
"""
# See migration 0012 for the order of its steps.
_ERASE = r"""
    CREATE OR REPLACE FUNCTION erase_customer(address text)
    RETURNS TABLE (place text, touched bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        wanted text := lower(address);
        mention text := public.customer_mention(address);
        quoted text := regexp_replace(wanted, '([^a-z0-9])', '\\\1', 'g');
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
        IF wanted !~ '^[^@\s]+@[^@\s]+$' OR wanted = 'erased@erased.invalid' THEN
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
            WHERE lower(recipient) = wanted AND template LIKE 'order\_%');

        -- A key is no text: what stands before the address is not part of another one.
        UPDATE public.webhook_requests SET idempotency_key = NULL
        WHERE strpos(lower(idempotency_key), wanted) > 0;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'webhook_requests'; RETURN NEXT;

        -- Whoever had an order in hand may have written more about it: by its id, once more below.
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
        WHERE event_id = ANY(notes)
           OR (order_id = ANY(theirs)
               AND (note NOT IN ('', '[erased]') OR tracking IS NOT NULL));
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'order_status_history'; RETURN NEXT;

        UPDATE public.order_conflicts SET event = (event || gone) - dropped
        WHERE event_id = ANY(conflicts) OR (order_id = ANY(theirs) AND NOT event @> gone);
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

        -- What is about an order of theirs loses its words, whatever is in them.
        UPDATE public.outbox SET reason = regexp_replace(reason, mention, '[erased]', 'gi'),
            body = public.body_without_customer(CASE
                WHEN public.is_of_erased(type, body)
                  OR (type IN ('order.created', 'order.test_created', 'order.placed',
                               'order.test_placed')
                      AND lower(encode(body, 'escape')) ~ ('"email" *: *"' || quoted || '"'))
                THEN public.body_without_order(type, body)
                ELSE body
            END, mention)
        WHERE ((type LIKE 'order.%' OR type = 'email.undeliverable')
               AND strpos(lower(encode(body, 'escape')), begins) > 0
               AND public.body_without_customer(body, mention) <> body)
           OR (public.is_of_erased(type, body) AND public.body_without_order(type, body) <> body);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox'; RETURN NEXT;
    END $$
"""
# What was written behind the look of an erasure before this version.
_LEFT = (
    """
    UPDATE order_status_history AS said
    SET note = CASE note WHEN '' THEN '' ELSE '[erased]' END, tracking = NULL
    FROM orders
    WHERE orders.id = said.order_id AND orders.customer_email = 'erased@erased.invalid'
      AND (said.note NOT IN ('', '[erased]') OR said.tracking IS NOT NULL)
    """,
    """
    UPDATE order_conflicts AS other
    SET event = convert_from(
        body_without_order('order.created', convert_to(event::text, 'UTF8')), 'UTF8')::jsonb
    FROM orders
    WHERE orders.id = other.order_id AND orders.customer_email = 'erased@erased.invalid'
      AND other.event IS NOT NULL
    """,
)
# By name: the table, what of it, of which rows. Built beside those who write: orders never stop.
INDEXES = {
    "ix_orders_customer_email": ("orders", "lower(customer_email)", ""),
    "ix_orders_test_accepted_at": ("orders", "accepted_at", "WHERE is_test"),
    "ix_orders_test_recorded_at": ("orders", "recorded_at", "WHERE is_test"),
    "ix_suppressions_refused_since": ("suppressions", "since", "WHERE cause = 'refused'"),
}
FUNCTIONS = (
    "order_named(text, bytea)",
    "is_of_erased(text, bytea)",
    "body_without_order(text, bytea)",
)


def upgrade() -> None:
    # All of it may be done twice: what comes before the indexes stays when they cannot be built.
    for function in (_NAMED, _IS_OF_ERASED, _WITHOUT_ORDER, _ERASE):
        op.execute(function)
    for name in FUNCTIONS:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
    with op.get_context().autocommit_block():
        build(INDEXES)
    for statement in _LEFT:
        op.execute(statement)


def build(indexes: dict[str, tuple[str, str, str]], unread: Collection[str] = ()) -> None:
    """Build indexes, and drop those that nobody reads then; what was broken off is begun anew.

    It waits for whoever writes as long as they take, for it stands before nobody meanwhile: to give
    up would leave an index that is of no use, and cost the whole table again.
    """
    ask = op.get_bind().exec_driver_sql
    patience = ask("SHOW lock_timeout").scalar_one()
    op.execute("SET lock_timeout = 0")
    try:
        for name, (table, what, rows) in indexes.items():
            found = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')"  # noqa: S608
            if ask(found).scalar_one_or_none() is False:
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} ({what}) {rows}")
        for name in unread:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    finally:  # it may be tried again in this session, and what comes after stands before others
        op.execute(f"SET lock_timeout = '{patience}'")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    before, shops = (
        import_module(f"shared.db.migrations.versions.{name}")
        for name in ("0026_erased_by_value", "0038_what_shops_send")
    )
    op.execute(before._ERASE)
    shops._replace("erase_customer(text)", shops._CREATED, shops._OF_A_CUSTOMER)
    op.execute("ALTER FUNCTION erase_customer(text) SET search_path = pg_catalog, pg_temp")
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
