"""A closed account has no open application, and so no live secret, however things come together.

An application that was sent in while its account was being closed was left pending, and could be
approved: its secret would have lived for ever. Whoever opens one holds the account now, and looks
then; the account comes before the application in every transaction, so that none waits for another
that waits for it.
"""

from alembic import op

revision = "0036"
down_revision = "0035"

_OPEN = "('pending', 'approved', 'incomplete')"

_HOLD_APPROVAL = """
    CREATE OR REPLACE FUNCTION hold_approval(account uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        {first}
        PERFORM FROM public.kyc_applications
        WHERE account_id = account AND status = 'approved' FOR SHARE;
        RETURN FOUND;
    END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION hold_open_account(account uuid) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
        BEGIN
            PERFORM FROM public.accounts WHERE id = account AND closed_at IS NULL FOR SHARE;
            RETURN FOUND;
        END $$
    """)
    op.execute("REVOKE EXECUTE ON FUNCTION hold_open_account(uuid) FROM PUBLIC")
    op.execute(
        _HOLD_APPROVAL.format(
            first="IF NOT public.hold_open_account(account) THEN RETURN false; END IF;"
        )
    )
    op.execute("""
        CREATE FUNCTION guard_open_application() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
        BEGIN
            IF NOT public.hold_open_account(NEW.account_id) THEN
                RAISE EXCEPTION 'account % is closed', NEW.account_id
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'kyc_applications_closed';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute(f"""
        CREATE TRIGGER kyc_applications_closed
        BEFORE INSERT OR UPDATE OF status, account_id ON kyc_applications
        FOR EACH ROW WHEN (NEW.status IN {_OPEN}) EXECUTE FUNCTION guard_open_application()
    """)
    # Those that came together before; with an approval the secrets end.
    op.execute(f"""
        UPDATE kyc_applications
        SET status = CASE status WHEN 'approved' THEN 'revoked' ELSE 'rejected' END,
            reason = 'The account was closed.', decided_by = 'the business',
            decided_at = clock_timestamp()
        FROM accounts
        WHERE accounts.id = account_id AND closed_at IS NOT NULL AND status IN {_OPEN}
    """)  # noqa: S608 - our own words


def downgrade() -> None:
    op.execute("DROP TRIGGER kyc_applications_closed ON kyc_applications")
    op.execute("DROP FUNCTION guard_open_application()")
    op.execute(_HOLD_APPROVAL.format(first=""))
    op.execute("DROP FUNCTION hold_open_account(uuid)")
