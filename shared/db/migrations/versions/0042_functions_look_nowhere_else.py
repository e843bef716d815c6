"""What runs with its owner's rights finds no name in the temporary schema of who calls it.

Nor does what that calls in turn, which runs with them too. Where `pg_temp` is not in `search_path`,
it is searched first for relations and types ("Writing SECURITY DEFINER Functions Safely" in
PostgreSQL's documentation of CREATE FUNCTION): a temporary view named `pg_class` made a service the
owner of the database.
"""

from alembic import op

revision = "0042"
down_revision = "0041"

_ALTER = """
    DO $$
    DECLARE one regprocedure;
    BEGIN
        FOR one IN
            SELECT oid::regprocedure FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
              AND EXISTS (
                SELECT FROM unnest(proconfig) AS said WHERE said LIKE 'search_path=pg_catalog%')
              AND pg_has_role(proowner, 'USAGE')
        LOOP
            EXECUTE format('ALTER FUNCTION %s SET search_path = {path}', one);
        END LOOP;
    END $$
"""


def upgrade() -> None:
    op.execute(_ALTER.format(path="pg_catalog, pg_temp"))


def downgrade() -> None:
    op.execute(_ALTER.format(path="pg_catalog"))
