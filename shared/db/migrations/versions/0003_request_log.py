"""The request log, in a partition a day, and how much each secret is used."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "webhook_requests",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True, cache=1000), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("secret_id", sa.Uuid(), nullable=True),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.Column("webhook_timestamp", sa.Text(), nullable=True),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("body_bytes", sa.Integer(), nullable=True),
        sa.Column("latency_us", sa.Integer(), nullable=False),
        sa.Column("client_address", sa.Text(), nullable=False),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index(
        "ix_webhook_requests_account_id_accepted_at_id",
        "webhook_requests",
        ["account_id", "accepted", "at", "id"],
    )
    op.create_index(
        "ix_webhook_requests_event_id",
        "webhook_requests",
        ["event_id"],
        postgresql_where=sa.text("event_id IS NOT NULL"),
    )
    op.create_table(
        "webhook_secret_use",
        sa.Column("secret_id", sa.Uuid(), nullable=False),
        sa.Column("hour_of_day", sa.SmallInteger(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("secret_id", "hour_of_day", name=op.f("pk_webhook_secret_use")),
    )
    op.add_column(
        "webhook_secrets", sa.Column("last_warned_at", sa.DateTime(timezone=True), nullable=True)
    )
    # A schema of their own: nobody has rights on a partition itself, only through its parent.
    op.execute("CREATE SCHEMA partitions")
    op.execute(_KEEP_PARTITIONS)
    op.execute("REVOKE EXECUTE ON FUNCTION keep_webhook_request_partitions() FROM PUBLIC")
    op.execute("SELECT keep_webhook_request_partitions()")


# Runs as its owner, since no service may change the schema; it takes nothing from its caller, so
# that whoever has taken the ingress over cannot have it drop the log. ATTACH, unlike CREATE ...
# PARTITION OF, waits for nobody who reads or writes the log (PostgreSQL, 5.12.2.2). DROP waits for
# whoever does, such as pg_dump: it gives up soon, and the next call tries again.
_KEEP_PARTITIONS = """
    CREATE FUNCTION keep_webhook_request_partitions() RETURNS void
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
            WHERE inhparent = 'public.webhook_requests'::regclass
              AND relname < 'webhook_requests_' || to_char(today - 30, 'YYYYMMDD')
        LOOP
            BEGIN
                EXECUTE format('DROP TABLE partitions.%I', partition);
            EXCEPTION WHEN lock_not_available THEN
                RETURN;
            END;
        END LOOP;
    END $$
"""


def downgrade() -> None:
    op.execute("DROP FUNCTION keep_webhook_request_partitions")
    op.drop_table("webhook_requests")
    op.execute("DROP SCHEMA partitions")
    op.drop_table("webhook_secret_use")
    op.drop_column("webhook_secrets", "last_warned_at")
