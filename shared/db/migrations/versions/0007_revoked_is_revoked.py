"""Revoked is revoked: the database keeps the rule, and numbers changes so that no poll misses one.

A webhook secret that is live while its business is not approved is revoked here, once. There could
be some: a business that asked for one in the moment of its revocation got it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

STAMPED = ("webhook_secrets", "webhook_policies")


def upgrade() -> None:
    op.execute("CREATE SEQUENCE change_seq AS bigint")
    for table in STAMPED:
        for column in ("change", "changed_in"):
            op.add_column(
                table, sa.Column(column, sa.BigInteger(), server_default="0", nullable=False)
            )
        op.create_index(op.f(f"ix_{table}_changed_in"), table, ["changed_in"])
    op.add_column("webhook_secrets", sa.Column("revoked_with", sa.Uuid(), nullable=True))
    # The version before polls by updated_at, so that stays stamped while it still runs.
    op.execute("ALTER FUNCTION touch_updated_at() RENAME TO stamp_change")
    op.execute(_STAMP)
    op.execute("DROP TRIGGER webhook_secrets_touch ON webhook_secrets")
    op.execute("DROP TRIGGER webhook_policies_touch ON webhook_policies")
    for table in STAMPED:
        op.execute(f"""
            CREATE TRIGGER {table}_stamp BEFORE INSERT OR UPDATE ON {table}
            FOR EACH ROW EXECUTE FUNCTION stamp_change()
        """)
    op.execute(_HOLD_APPROVAL)
    op.execute(_GUARD)
    op.execute("""
        CREATE TRIGGER webhook_secrets_guard
        BEFORE INSERT OR DELETE OR UPDATE OF state, account_id ON webhook_secrets
        FOR EACH ROW EXECUTE FUNCTION guard_webhook_secret()
    """)
    op.execute(_REVOKE)
    op.execute("""
        CREATE TRIGGER kyc_applications_revoke
        AFTER DELETE OR UPDATE OF status, account_id ON kyc_applications
        FOR EACH ROW WHEN (OLD.status = 'approved')
        EXECUTE FUNCTION revoke_with_approval()
    """)
    op.execute("REVOKE EXECUTE ON FUNCTION hold_approval(uuid) FROM PUBLIC")
    # Named by the newest application, so that a revocation still on its way tells of them.
    op.execute("""
        UPDATE webhook_secrets AS secret
        SET state = 'revoked', revoked_at = now(), revoked_with = (
            SELECT id FROM kyc_applications
            WHERE kyc_applications.account_id = secret.account_id
            ORDER BY submitted_at DESC, id DESC LIMIT 1)
        WHERE state IN ('active', 'retiring') AND NOT EXISTS (
            SELECT FROM kyc_applications
            WHERE kyc_applications.account_id = secret.account_id AND status = 'approved')
    """)
    for table in STAMPED:
        op.drop_index(f"ix_{table}_updated_at", table_name=table)


# `change` orders the changes of one row: it is drawn while the row is locked. `changed_in` is the
# transaction: what a snapshot did not see yet is found by it, however late the transaction ends.
_STAMP = """
    CREATE OR REPLACE FUNCTION stamp_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        NEW.updated_at := clock_timestamp();
        NEW.change := nextval('public.change_seq');
        NEW.changed_in := pg_current_xact_id()::text::bigint;
        RETURN NEW;
    END $$
"""

# The lock that a revocation waits for, and that waits for a revocation: then it looks again.
_HOLD_APPROVAL = """
    CREATE FUNCTION hold_approval(account uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        PERFORM FROM public.kyc_applications
        WHERE account_id = account AND status = 'approved' FOR SHARE;
        RETURN FOUND;
    END $$
"""

_GUARD = """
    CREATE FUNCTION guard_webhook_secret() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        states constant text[] := ARRAY['active', 'retiring', 'expired', 'revoked'];
    BEGIN
        IF TG_OP = 'DELETE' THEN
            IF OLD.state IN ('active', 'retiring') OR OLD.updated_at > now() - interval '1 hour'
            THEN
                RAISE EXCEPTION 'revoke a webhook secret an hour before you delete it'
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'webhook_secrets_delete';
            END IF;
            RETURN OLD;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            IF array_position(states, NEW.state::text) < array_position(states, OLD.state::text)
            THEN
                RAISE EXCEPTION 'a webhook secret does not go back from % to %',
                    OLD.state, NEW.state
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'webhook_secrets_forward';
            END IF;
            IF NEW.account_id = OLD.account_id THEN
                RETURN NEW;
            END IF;
        END IF;
        IF NEW.state IN ('active', 'retiring') AND NOT public.hold_approval(NEW.account_id) THEN
            RAISE EXCEPTION 'the KYC of account % is not approved', NEW.account_id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'webhook_secrets_approved';
        END IF;
        RETURN NEW;
    END $$
"""

# Under a snapshot of the whole transaction a secret that was issued meanwhile could not be seen.
_REVOKE = """
    CREATE FUNCTION revoke_with_approval() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF NEW.status = 'approved' AND NEW.account_id = OLD.account_id THEN
                RETURN NULL;
            END IF;
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'take an approval back in a transaction that is READ COMMITTED';
        END IF;
        UPDATE public.webhook_secrets
        SET state = 'revoked', revoked_at = clock_timestamp(), revoked_with = OLD.id
        WHERE account_id = OLD.account_id AND state IN ('active', 'retiring');
        RETURN NULL;
    END $$
"""


def downgrade() -> None:
    op.execute("DROP TRIGGER kyc_applications_revoke ON kyc_applications")
    op.execute("DROP TRIGGER webhook_secrets_guard ON webhook_secrets")
    for function in ("revoke_with_approval()", "guard_webhook_secret()", "hold_approval(uuid)"):
        op.execute(f"DROP FUNCTION {function}")
    for table in STAMPED:
        op.execute(f"DROP TRIGGER {table}_stamp ON {table}")
    op.execute("DROP FUNCTION stamp_change()")
    op.execute("""
        CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := clock_timestamp();
            RETURN NEW;
        END $$
    """)
    for table, when in (("webhook_secrets", "UPDATE"), ("webhook_policies", "INSERT OR UPDATE")):
        op.execute(f"""
            CREATE TRIGGER {table}_touch BEFORE {when} ON {table}
            FOR EACH ROW EXECUTE FUNCTION touch_updated_at()
        """)
        op.create_index(f"ix_{table}_updated_at", table, ["updated_at"])
        op.drop_index(f"ix_{table}_changed_in", table_name=table)
        op.drop_column(table, "changed_in")
        op.drop_column(table, "change")
    op.drop_column("webhook_secrets", "revoked_with")
    op.execute("DROP SEQUENCE change_seq")
