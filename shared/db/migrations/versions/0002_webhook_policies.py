"""Allowlists and rate limits by account; idempotency keys, whose ids no longer tell the time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "webhook_policies",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "allowed_networks", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("rate_per_second", sa.Integer(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("rate_per_second > 0", name=op.f("ck_webhook_policies_rate_per_second")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_webhook_policies_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_webhook_policies")),
    )
    op.create_index(
        "ix_webhook_policies_updated_at", "webhook_policies", ["updated_at"], unique=False
    )
    # At an insert too: now() is the transaction's start, which a poll may have passed already.
    op.execute("""
        CREATE TRIGGER webhook_policies_touch BEFORE INSERT OR UPDATE ON webhook_policies
        FOR EACH ROW EXECUTE FUNCTION touch_updated_at()
    """)
    op.create_table(
        "order_conflicts",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("event", postgresql.JSONB(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_order_conflicts")),
    )
    op.create_index(
        op.f("ix_order_conflicts_order_id"), "order_conflicts", ["order_id"], unique=False
    )
    # An order's id may be derived from its sender's key, so ids no longer tell which came first.
    op.create_index(
        "ix_orders_account_id_accepted_at_id",
        "orders",
        ["account_id", "accepted_at", "id"],
        unique=False,
    )
    op.drop_index("ix_orders_account_id_id", table_name="orders")
    # Nor do they tell how old an entry of the inbox is.
    op.add_column(
        "inbox",
        sa.Column(
            "handled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
    )
    op.create_index(
        "ix_inbox_derived",
        "inbox",
        ["consumer", "handled_at"],
        unique=False,
        postgresql_where=sa.text("substr(message_id::text, 15, 1) = '5'"),
    )


def downgrade() -> None:
    op.drop_index("ix_inbox_derived", table_name="inbox")
    op.drop_column("inbox", "handled_at")
    op.create_index("ix_orders_account_id_id", "orders", ["account_id", "id"], unique=False)
    op.drop_index("ix_orders_account_id_accepted_at_id", table_name="orders")
    op.drop_table("order_conflicts")
    op.drop_table("webhook_policies")
