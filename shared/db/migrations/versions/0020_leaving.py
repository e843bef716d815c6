"""Customers may leave, addresses that were refused are not tried again, businesses name a sender.

Who has left is known by a keyed hash. The address beside it is for the business to read, and goes
when the customer is erased; the hash stays, so that the person stays unmailed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_BEFORE = "state IN ('sent', 'undeliverable')"
_NOW = "state IN ('sent', 'undeliverable', 'unsubscribed', 'suppressed')"
_PURPOSES_BEFORE = "purpose IN ('registration', 'password_reset', 'new_address')"
_PURPOSES_NOW = "purpose IN ('registration', 'password_reset', 'new_address', 'reply_to')"

# Beside `erase_customer`, in its transaction, with the rights of the table's owner. An address that
# was refused is nothing that its owner has wished for: nothing of it stays.
_ERASE = """
    CREATE FUNCTION erase_suppressed_address(address text)
    RETURNS TABLE (place text, touched bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        wanted text := lower(erase_suppressed_address.address);
    BEGIN
        WITH gone AS (
            DELETE FROM public.suppressions s
            WHERE lower(s.address) = wanted AND s.cause = 'refused' RETURNING 1
        ), kept AS (
            UPDATE public.suppressions s SET address = NULL
            WHERE lower(s.address) = wanted AND s.cause = 'unsubscribed' RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM kept) INTO touched;
        place := 'suppressions'; RETURN NEXT;
    END $$
"""
# What ops staff may lift is what a mail server said. Who has left comes back by themselves.
_LIFT = """
    CREATE FUNCTION lift_suppression(suppression uuid) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
        WITH gone AS (
            DELETE FROM public.suppressions
            WHERE id = suppression AND cause = 'refused' RETURNING 1
        )
        SELECT EXISTS (SELECT FROM gone)
    $$
"""


def upgrade() -> None:
    op.create_table(
        "suppressions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.LargeBinary(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("by_order_id", sa.Uuid(), nullable=False),
        sa.Column("smtp_code", sa.SmallInteger(), nullable=True),
        sa.Column("response", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "cause = 'unsubscribed' OR cause = 'refused' AND order_id IS NULL",
            name=op.f("ck_suppressions_cause"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppressions")),
    )
    op.create_index(
        "uq_suppressions_all",
        "suppressions",
        ["account_id", "address_hash", "cause"],
        unique=True,
        postgresql_where=sa.text("order_id IS NULL"),
    )
    op.create_index(
        "uq_suppressions_order",
        "suppressions",
        ["order_id", "address_hash"],
        unique=True,
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_index("ix_suppressions_account_id_id", "suppressions", ["account_id", "id"])
    op.create_index(op.f("ix_suppressions_by_order_id"), "suppressions", ["by_order_id"])
    op.create_index(
        "ix_suppressions_untold",
        "suppressions",
        ["account_id"],
        postgresql_where=sa.text("cause = 'refused' AND told_at IS NULL"),
    )
    op.create_table(
        "email_senders",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("display_name", sa.Text(), server_default="", nullable=False),
        sa.Column("reply_to", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_email_senders_account_id"),
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_email_senders")),
    )  # fmt: skip
    _replace("email_deliveries", "ck_email_deliveries_state", _NOW)
    _replace("pending_proofs", "ck_pending_proofs_purpose", _PURPOSES_NOW)
    op.execute(_ERASE)
    op.execute(_LIFT)
    for function in ("erase_suppressed_address(text)", "lift_suppression(uuid)"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION lift_suppression(uuid)")
    op.execute("DROP FUNCTION erase_suppressed_address(text)")
    op.execute("DELETE FROM pending_proofs WHERE purpose = 'reply_to'")
    op.execute(
        "UPDATE email_deliveries SET state = 'undeliverable' "
        "WHERE state IN ('unsubscribed', 'suppressed')"
    )
    _replace("pending_proofs", "ck_pending_proofs_purpose", _PURPOSES_BEFORE)
    _replace("email_deliveries", "ck_email_deliveries_state", _BEFORE)
    op.drop_table("email_senders")
    op.drop_table("suppressions")


def _replace(table: str, constraint: str, condition: str) -> None:
    op.drop_constraint(op.f(constraint), table)
    # What is there has fulfilled the one before; to look at each email would hold up the notifier.
    op.create_check_constraint(op.f(constraint), table, condition, postgresql_not_valid=True)
