"""An approval takes expired secrets along; a parked message stays parked while it is tried.

An expired secret that is used has a new one made: of a business that may have none, it promised
what never came. And a parked message was parked anew at each try; by its reason, which is empty
meanwhile, the database knows now what is under way.
"""

from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    # Of those that had expired nobody is told: only live ones are named by `revoked_with`.
    op.execute(
        _revoke("""
        UPDATE public.webhook_secrets
        SET state = 'revoked', revoked_at = clock_timestamp(),
            revoked_with = CASE WHEN state <> 'expired' THEN OLD.id END
        WHERE account_id = OLD.account_id AND state IN ('active', 'retiring', 'expired');""")
    )
    op.execute("""
        UPDATE webhook_secrets AS secret SET state = 'revoked', revoked_at = clock_timestamp()
        WHERE state = 'expired' AND NOT EXISTS (
            SELECT FROM kyc_applications
            WHERE kyc_applications.account_id = secret.account_id AND status = 'approved')
    """)
    op.execute(_guard("OLD.parked_at IS NULL OR OLD.reason = ''"))


def downgrade() -> None:
    op.execute(_guard("OLD.parked_at IS NULL"))
    op.execute(
        _revoke("""
        UPDATE public.webhook_secrets
        SET state = 'revoked', revoked_at = clock_timestamp(), revoked_with = OLD.id
        WHERE account_id = OLD.account_id AND state IN ('active', 'retiring');""")
    )


def _revoke(secrets: str) -> str:
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
        END IF;
        {secrets}
        UPDATE public.webhook_public_keys
        SET state = 'revoked', revoked_at = clock_timestamp(), revoked_with = OLD.id
        WHERE account_id = OLD.account_id AND state IN ('active', 'retiring');
        RETURN NULL;
    END $$
    """  # noqa: S608


def _guard(when: str) -> str:
    return f"""
    CREATE OR REPLACE TRIGGER outbox_guard BEFORE UPDATE OR DELETE ON outbox FOR EACH ROW
    WHEN (CURRENT_USER = 'fellow_ops' AND ({when}))
    EXECUTE FUNCTION guard_outbox()
    """
