"""The life of an account: a registration is no account before its address is proved.

What waits for its proof is in a table of its own. The workers of the version before go on writing
to `accounts` and `one_time_codes` until they are gone; what they leave unproved blocks nobody,
since a proof takes the place of an account that never was proved.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "pending_proofs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("company_name", sa.Text(), server_default="", nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("code_id", sa.Uuid(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("strange_attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("code_made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.CheckConstraint(
            "purpose IN ('registration', 'password_reset', 'new_address')",
            name=op.f("ck_pending_proofs_purpose"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_pending_proofs_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_proofs")),
    )
    for column in ("email", "account_id", "created_at"):
        op.create_index(op.f(f"ix_pending_proofs_{column}"), "pending_proofs", [column])
    for table, column in (("accounts", "closed_at"), ("webhook_policies", "blocked_at")):
        op.add_column(table, sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    op.execute("""
        CREATE FUNCTION close_account() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
        BEGIN
            UPDATE public.kyc_applications
            SET status = CASE status WHEN 'approved' THEN 'revoked' ELSE 'rejected' END,
                reason = 'The account was closed.', decided_by = 'the business',
                decided_at = clock_timestamp()
            WHERE account_id = NEW.id AND status IN ('approved', 'pending');
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER accounts_close AFTER UPDATE OF closed_at ON accounts
        FOR EACH ROW WHEN (OLD.closed_at IS NULL AND NEW.closed_at IS NOT NULL)
        EXECUTE FUNCTION close_account()
    """)
    op.create_table(
        "known_networks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column(
            "first_used_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_known_networks_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_known_networks")),
        sa.UniqueConstraint(
            "account_id", "network", name=op.f("uq_known_networks_account_id_network")
        ),
    )
    op.create_table(
        "account_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("refresh_id", sa.Uuid(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        *(
            sa.Column(
                name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
            )
            for name in ("created_at", "renewed_at")
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_account_sessions_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_sessions")),
    )
    for column in ("account_id", "expires_at"):
        op.create_index(op.f(f"ix_account_sessions_{column}"), "account_sessions", [column])
    op.create_table(
        "attempt_counts",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_attempt_counts")),
    )
    op.create_index(op.f("ix_attempt_counts_ends_at"), "attempt_counts", ["ends_at"])
    op.execute("""
        INSERT INTO pending_proofs (id, purpose, email, company_name, password_hash, network,
                                    code_id, code_hash, attempts, code_made_at, code_expires_at)
        SELECT id, 'registration', email, company_name, password_hash, '', code_id, code_hash,
               attempts, one_time_codes.created_at, expires_at
        FROM accounts JOIN one_time_codes ON account_id = id
        WHERE email_verified_at IS NULL
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER accounts_close ON accounts")
    op.execute("DROP FUNCTION close_account()")
    op.drop_column("webhook_policies", "blocked_at")
    op.drop_column("accounts", "closed_at")
    for table in ("account_sessions", "attempt_counts", "known_networks", "pending_proofs"):
        op.drop_table(table)
