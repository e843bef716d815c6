"""A database that has grown: many businesses, and years of orders."""

from sqlalchemy import text

from bench.ground import Ground


def add_accounts(on: Ground, count: int) -> None:
    """Make businesses that have nothing yet."""
    with on.engine.begin() as connection:
        connection.execute(_ADD_ACCOUNTS, {"count": count})


def add_orders(on: Ground, count: int) -> None:
    """Make orders of the last year, evenly spread over all businesses, with their history."""
    with on.engine.begin() as connection:
        # The indexes are built afterwards: a hundred times faster than row by row.
        for statement in (*_DROP_INDEXES, _NUMBER_ACCOUNTS):
            connection.execute(text(statement))
        connection.execute(_ADD_ORDERS, {"count": count})
        for statement in (*_ADD_HISTORY, *_MAKE_INDEXES):
            connection.execute(text(statement))
    on.vacuum()


_NUMBER_ACCOUNTS = (
    "CREATE TEMP TABLE them AS SELECT id, row_number() OVER () - 1 AS n FROM accounts"
)
_ADD_ACCOUNTS = text("""
    INSERT INTO accounts (id, company_name, email, password_hash)
    SELECT id, 'Kettle & Co', id || '@kettle.example', '-'
    FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, :count)) AS given
""")
_DROP_INDEXES = (
    "ALTER TABLE orders DROP CONSTRAINT pk_orders",
    "DROP INDEX ix_orders_account_id_accepted_at_id",
    "ALTER TABLE order_status_history DROP CONSTRAINT pk_order_status_history",
    "DROP INDEX ix_order_status_history_order_id_at_recorded_at",
)
# The ids are UUIDv7 (RFC 9562, 5.7), one every six seconds of the last year and so on.
_ADD_ORDERS = text("""
    INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone, item_summary,
                        address, tracking_status, status_at, status_event_id, accepted_at,
                        recorded_at)
    SELECT o.id, a.id, 'Zoe Ade', 'zoe.ade@shop.example', '+2348000000', '2 x blue kettle',
           '12 Marina Road, Lagos', 'PENDING', o.at, o.id, o.at, o.at
    FROM (
        SELECT n, at, CAST(
            lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7'
            || substr(md5(CAST(n AS text)), 1, 3) || '8' || substr(md5(CAST(n AS text)), 4, 15)
            AS uuid) AS id
        FROM (
            SELECT n, now() - interval '1 day' - (:count - n) * interval '365 days' / :count AS at
            FROM generate_series(1, :count) AS n
        ) AS times
    ) AS o JOIN them AS a ON a.n = o.n % (SELECT count(*) FROM them)
    ORDER BY o.n
""")
_ADD_HISTORY = (
    "INSERT INTO order_status_history (event_id, order_id, tracking_status, at, applied) "
    "SELECT id, id, tracking_status, status_at, true FROM orders",
)
_MAKE_INDEXES = (
    "ALTER TABLE orders ADD CONSTRAINT pk_orders PRIMARY KEY (id)",
    "CREATE INDEX ix_orders_account_id_accepted_at_id ON orders (account_id, accepted_at, id)",
    "ALTER TABLE order_status_history ADD CONSTRAINT pk_order_status_history "
    "PRIMARY KEY (event_id)",
    "CREATE INDEX ix_order_status_history_order_id_at_recorded_at ON order_status_history "
    "(order_id, at, recorded_at NULLS FIRST)",
)
