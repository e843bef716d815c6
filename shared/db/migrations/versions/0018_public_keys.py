"""A business may sign with a key of its own: public keys live and end as secrets do."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

TABLE = "webhook_public_keys"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column(
            "added_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_with", sa.Uuid(), nullable=True),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("change", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("changed_in", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f(f"fk_{TABLE}_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.CheckConstraint("state IN ('active', 'revoked')", name=op.f(f"ck_{TABLE}_state")),
        sa.CheckConstraint("octet_length(public_key) = 32", name=op.f(f"ck_{TABLE}_public_key")),
    )
    op.create_index(op.f(f"ix_{TABLE}_account_id"), TABLE, ["account_id"])
    op.create_index(op.f(f"ix_{TABLE}_changed_in"), TABLE, ["changed_in"])
    op.create_index(
        f"uq_{TABLE}_active",
        TABLE,
        ["account_id", "public_key"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    # Both functions are the secrets' (0007): they know a row by state, account_id and updated_at.
    op.execute(f"""
        CREATE TRIGGER {TABLE}_guard
        BEFORE INSERT OR DELETE OR UPDATE OF state, account_id ON {TABLE}
        FOR EACH ROW EXECUTE FUNCTION guard_webhook_secret()
    """)
    op.execute(f"""
        CREATE TRIGGER {TABLE}_stamp BEFORE INSERT OR UPDATE ON {TABLE}
        FOR EACH ROW EXECUTE FUNCTION stamp_change()
    """)
    op.execute(_revoke("webhook_secrets", TABLE))


def _revoke(*tables: str) -> str:
    changes = "".join(
        f"""
        UPDATE public.{table}
        SET state = 'revoked', revoked_at = clock_timestamp(), revoked_with = OLD.id
        WHERE account_id = OLD.account_id AND state IN ('active', 'retiring');"""  # noqa: S608
        for table in tables
    )
    return f"""
    CREATE OR REPLACE FUNCTION revoke_with_approval() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF NEW.status = 'approved' AND NEW.account_id = OLD.account_id THEN
                RETURN NULL;
            END IF;
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'take an approval back in a transaction that is READ COMMITTED';
        END IF;{changes}
        RETURN NULL;
    END $$
    """


def downgrade() -> None:
    op.execute(_revoke("webhook_secrets"))
    op.drop_table(TABLE)
