"""An erasure scans the tables before it locks rows, and waits at most two seconds for a lock.

A recorder that waits for one order holds up a batch of others. So `erase_customer` first collects
the ids of the rows to change, without locks; then it locks outbox rows, awaited orders and orders
(the last two as a recorder does), and changes rows by their ids. Rows written in between are found
by the ids of the locked orders, or by the next pass of `services/ops/customers`.

It also does the work of `erase_suppressed_address`, which is kept for the version before.
"""

from importlib import import_module
from types import ModuleType

from alembic import op

revision = "0059"
down_revision = "0058"

_ERASE = r"""
    CREATE OR REPLACE FUNCTION erase_customer(address text)
    RETURNS TABLE (place text, touched bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
    DECLARE
        wanted text := lower(address);
        mention text := public.customer_mention(address);
        quoted text := regexp_replace(wanted, '([^a-z0-9])', '\\\1', 'g');
        -- Before the @ a deliverable address is ASCII: a cheap test before a document is parsed.
        begins text := split_part(wanted, '@', 1) || '@';
        theirs uuid[];
        mentioned uuid[];
        notes uuid[];
        conflicts uuid[];
        waiting uuid[];
        awaited uuid[];
        emails uuid[];
        responses uuid[];
        suppressed uuid[];
        refusals uuid[];
        facts bigint[];
        messages bigint[];
        removed bigint;
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

        -- 1. Scans. They take no row locks.
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
        waiting := ARRAY(
            SELECT event_id FROM public.waiting_updates AS u
            WHERE order_number IS NOT NULL
              AND (order_id = ANY(theirs) OR order_number ~* mention
                   OR EXISTS (SELECT FROM public.orders WHERE id = u.order_id
                              AND customer_email = 'erased@erased.invalid')));
        -- An awaited order has no address: only the words of its cancellations can name a person.
        awaited := ARRAY(
            SELECT order_id FROM public.awaited_orders
            WHERE cancel_reason ~* mention
               OR public.mentions_customer(cancelled_before, mention));
        emails := ARRAY(
            SELECT id FROM public.email_deliveries
            WHERE lower(recipient) = wanted AND template LIKE 'order\_%');
        -- A server that forwards mail quotes the address it forwards to.
        responses := ARRAY(SELECT id FROM public.email_deliveries WHERE response ~* mention);
        suppressed := ARRAY(
            SELECT id FROM public.suppressions AS s WHERE lower(s.address) = wanted);
        refusals := ARRAY(SELECT id FROM public.suppressions WHERE response ~* mention);
        -- By text: the body of a parked row may be no JSON. A test order's fact is mailed to the
        -- business.
        facts := ARRAY(
            SELECT sequence FROM public.outbox
            WHERE (type IN ('order.recorded', 'order.status_recorded',
                            'order.cancellation_recorded')
                   AND lower(encode(body, 'escape'))
                       ~ ('"customer_email" *: *"' || quoted || '"'))
               OR (type IN ('order.test_recorded', 'order.test_status_recorded',
                            'order.test_cancellation_recorded')
                   AND lower(encode(body, 'escape')) ~ ('"order_email" *: *"' || quoted || '"')));
        -- Messages about their orders lose all personal fields; others lose the address.
        messages := ARRAY(
            SELECT sequence FROM public.outbox
            WHERE sequence <> ALL(facts)
              AND (((type LIKE 'order.%' OR type = 'email.undeliverable')
                    AND strpos(lower(encode(body, 'escape')), begins) > 0
                    AND public.body_without_customer(body, mention) <> body)
                   OR ((public.order_named(type, body) = ANY(theirs)
                        OR public.is_of_erased(type, body))
                       AND public.body_without_order(type, body) <> body)));

        -- The request log has no other writer of these columns. In an idempotency key any
        -- character may precede the address.
        UPDATE public.webhook_requests AS request
        SET order_number = NULL, idempotency_key = CASE
            WHEN strpos(lower(idempotency_key), wanted) > 0 THEN NULL
            ELSE idempotency_key END
        WHERE strpos(lower(idempotency_key), wanted) > 0
           OR (request.order_number IS NOT NULL
               AND (request.order_id = ANY(theirs) OR request.order_number ~* mention
                    OR EXISTS (SELECT FROM public.orders
                               WHERE id = ANY(theirs) AND account_id = request.account_id
                                 AND orders.order_number = request.order_number)));
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'webhook_requests'; RETURN NEXT;

        -- 2. Locks. The relay holds outbox rows for as long as the broker confirms nothing: these
        -- are waited for before anything that a recorder needs.
        PERFORM 1 FROM public.outbox WHERE sequence = ANY(facts || messages)
        ORDER BY sequence FOR UPDATE;
        PERFORM 1 FROM public.awaited_orders WHERE order_id = ANY(awaited)
        ORDER BY order_id FOR UPDATE;
        PERFORM 1 FROM public.orders WHERE id = ANY(theirs || mentioned) ORDER BY id FOR UPDATE;

        -- 3. Changes, by the ids of rows and of orders.
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

        -- A recorder that held an order during the scans may have added rows to it.
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

        UPDATE public.waiting_updates SET order_number = NULL WHERE event_id = ANY(waiting);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'waiting_updates'; RETURN NEXT;

        UPDATE public.awaited_orders
        SET cancel_reason = regexp_replace(cancel_reason, mention, '[erased]', 'gi'),
            cancelled_before = public.without_customer(cancelled_before, mention)
        WHERE order_id = ANY(awaited);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'awaited_orders'; RETURN NEXT;

        UPDATE public.email_deliveries SET
            recipient = CASE WHEN id = ANY(emails) THEN 'erased@erased.invalid' ELSE recipient END,
            message_id = CASE WHEN id = ANY(emails) THEN '[erased]' ELSE message_id END,
            response = CASE
                WHEN response = '' THEN ''
                WHEN id = ANY(emails) THEN '[erased]'
                ELSE regexp_replace(response, mention, '[erased]', 'gi')
            END
        WHERE id = ANY(emails || responses);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'email_deliveries'; RETURN NEXT;

        -- A refused address is removed; that a person unsubscribed stays, as a keyed hash.
        DELETE FROM public.suppressions WHERE id = ANY(suppressed) AND cause = 'refused';
        GET DIAGNOSTICS removed = ROW_COUNT;
        UPDATE public.suppressions AS s
        SET address = CASE WHEN id = ANY(suppressed) THEN NULL ELSE s.address END,
            response = regexp_replace(response, mention, '[erased]', 'gi')
        WHERE id = ANY(suppressed || refusals);
        GET DIAGNOSTICS touched = ROW_COUNT;
        touched := touched + removed;
        place := 'suppressions'; RETURN NEXT;

        DELETE FROM public.outbox WHERE sequence = ANY(facts);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox discarded'; RETURN NEXT;

        UPDATE public.outbox SET reason = regexp_replace(reason, mention, '[erased]', 'gi'),
            body = public.body_without_customer(CASE
                WHEN public.is_of_erased(type, body)
                  OR (type IN ('order.created', 'order.test_created', 'order.placed',
                               'order.test_placed')
                      AND lower(encode(body, 'escape')) ~ ('"email" *: *"' || quoted || '"'))
                THEN public.body_without_order(type, body)
                ELSE body
            END, mention)
        WHERE sequence = ANY(messages);
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'outbox'; RETURN NEXT;
    END $$
"""


def upgrade() -> None:
    op.execute(_ERASE)


def downgrade() -> None:
    """Restore the function as migrations 0043 to 0054 left it."""
    shops = _migration("0038_what_shops_send")
    op.execute(_migration("0043_erased_meanwhile")._ERASE)
    keys = _migration("0047_numbers_of_noted_requests")
    keys._replace(keys._KEYS, keys._KEYS_AND_NUMBERS)
    for name, pairs in (
        ("0048_all_that_is_said", [("_AFTER", "_ERASE")]),
        ("0053_all_cancellations", [("_BEFORE", "_AFTER")]),
        ("0054_quoted_addresses", [("_BY_RECIPIENT", "_BY_TEXT"), ("_AFTER", "_SUPPRESSED")]),
    ):
        module = _migration(name)
        for before, after in pairs:
            shops._replace("erase_customer(text)", getattr(module, before), getattr(module, after))


def _migration(name: str) -> ModuleType:
    return import_module(f"shared.db.migrations.versions.{name}")
